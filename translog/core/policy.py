"""Trust policies: which logs, which witnesses, and how many of them must have cosigned.

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <member>...
    quorum <name>|none

Rules: one quorum line; names are defined above their use; a key is a duplicate by its raw bytes; a group member belongs to
one group. A checkpoint passes if any listed log key of its origin signed it and the quorum cosigned it. Beyond the
specification we refuse a witness with a log's raw key or name: it would let a log witness itself. A policy that we write never
takes a witness's Ed25519 key for enough where its ML-DSA-44 key is known, unless asked to.
https://c2sp.org/tlog-policy
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.cosignature import KeyVerifier, signature_time
from translog.core.keys import KeyType, VKey, parse_vkey
from translog.core.merkle import EMPTY_ROOT
from translog.core.note import parse_note, verify_note
from translog.core.wire import clip, parse_decimal
from translog.errors import ConsistencyError, MalformedError, QuorumError, SignatureError

POLICY_BYTES_MAX = 1_000_000
"""Largest policy read; the specification asks for at least 32 logs, 32 witnesses and 32 groups (about 120 kB)."""
NO_QUORUM = "none"

_WORD = re.compile(rb"[^ \t]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLog:
    """A log key that may sign checkpoints of the origin that is its name."""

    vkey: VKey
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWitness:
    """A witness key under the policy's own name for it."""

    name: str
    vkey: VKey
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGroup:
    """Satisfied when at least `threshold` of the members (witnesses or groups) are."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A parsed policy. `quorum` names a witness or a group, or is "none"."""

    logs: tuple[PolicyLog, ...]
    witnesses: Mapping[str, PolicyWitness]
    groups: Mapping[str, PolicyGroup]
    quorum: str


@dataclass(slots=True)
class _Builder:
    """A policy as far as it has been read."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: dict[str, PolicyWitness] = field(default_factory=dict)
    groups: dict[str, PolicyGroup] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)
    log_keys: set[bytes] = field(default_factory=set)
    witness_keys: set[bytes] = field(default_factory=set)
    quorum: str | None = None

    def add_log(self, words: list[str]) -> None:
        _require_words(words, 1, 2, "log <vkey> [<url>]")
        vkey = _vkey(words[0])
        if vkey.type is KeyType.COSIGNATURE_ED25519:
            raise MalformedError("a log key must be of type 0x01 or 0x06")
        if vkey.public_key in self.log_keys:
            raise MalformedError("this log key is listed already")
        self.log_keys.add(vkey.public_key)
        self.logs.append(PolicyLog(vkey=vkey, url=words[1] if len(words) > 1 else None))

    def add_witness(self, words: list[str]) -> None:
        _require_words(words, 2, 3, "witness <name> <vkey> [<url>]")
        name = self._new_name(words[0])
        vkey = _vkey(words[1])
        if vkey.type is KeyType.ED25519:
            raise MalformedError("a witness key must be a cosignature key, of type 0x04 or 0x06")
        if vkey.public_key in self.witness_keys:
            raise MalformedError("this witness key is listed already")
        self.witness_keys.add(vkey.public_key)
        self.witnesses[name] = PolicyWitness(name=name, vkey=vkey, url=words[2] if len(words) > 2 else None)

    def add_group(self, words: list[str]) -> None:
        _require_words(words, 3, None, "group <name> all|any|<k> <member>...")
        name = self._new_name(words[0])
        members = tuple(words[2:])
        for member in members:
            if member not in self.witnesses and member not in self.groups:
                raise MalformedError(f"{clip(member)} is not defined above this line")
            if member in self.grouped:
                raise MalformedError(f"{clip(member)} is a member of a group already")
            self.grouped.add(member)
        threshold = {"any": 1, "all": len(members)}.get(words[1]) or parse_decimal(words[1], maximum=len(members))
        if threshold < 1:
            raise MalformedError("a group needs at least 1 of its members")
        self.groups[name] = PolicyGroup(name=name, threshold=threshold, members=members)

    def set_quorum(self, words: list[str]) -> None:
        _require_words(words, 1, 1, "quorum <name>|none")
        if self.quorum is not None:
            raise MalformedError("there is a quorum line already")
        if words[0] != NO_QUORUM and words[0] not in self.witnesses and words[0] not in self.groups:
            raise MalformedError(f"{clip(words[0])} is not defined above this line")
        self.quorum = words[0]

    def _new_name(self, name: str) -> str:
        if name == NO_QUORUM or name in self.witnesses or name in self.groups:
            raise MalformedError(f"the name {clip(name)} is taken")
        return name


def _vkey(word: str) -> VKey:
    try:
        return parse_vkey(word.encode("ascii", "surrogateescape").decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedError("the vkey is not UTF-8") from None


def _require_words(words: list[str], least: int, most: int | None, form: str) -> None:
    if len(words) < least or (most is not None and len(words) > most):
        raise MalformedError(f"expected: {form}")


def parse_policy(data: bytes) -> Policy:
    """The policy in a file. Raises MalformedError naming the line."""
    if len(data) > POLICY_BYTES_MAX:
        raise MalformedError(f"a policy of {len(data)} bytes: at most {POLICY_BYTES_MAX} are read")
    builder = _Builder()
    adders = {
        "log": builder.add_log,
        "witness": builder.add_witness,
        "group": builder.add_group,
        "quorum": builder.set_quorum,
    }
    for number, line in enumerate(data.split(b"\n"), start=1):
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in line):
            raise MalformedError(f"policy line {number}: a control character")
        # Bytes above ASCII are opaque: surrogateescape keeps each as it is, so names compare byte by byte.
        words = [word.decode("ascii", "surrogateescape") for word in _WORD.findall(line)]
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in adders:
            raise MalformedError(f"policy line {number}: expected log, witness, group or quorum, not {clip(words[0])}")
        try:
            adders[words[0]](words[1:])
        except MalformedError as error:
            raise MalformedError(f"policy line {number}: {error.detail}", hint=error.hint) from None
    return _require_whole(builder)


def _require_whole(builder: _Builder) -> Policy:
    if builder.quorum is None:
        raise MalformedError("the policy has no quorum line", hint="write `quorum none` to ask for no witnesses")
    log_names = {log.vkey.name for log in builder.logs}
    for witness in builder.witnesses.values():
        if witness.vkey.public_key in builder.log_keys or witness.vkey.name in log_names:
            raise MalformedError(f"witness {clip(witness.name)} has a log's key or name: a log cannot witness itself")
    return Policy(logs=tuple(builder.logs), witnesses=builder.witnesses, groups=builder.groups, quorum=builder.quorum)


def format_policy(policy: Policy) -> str:
    """The policy as text without comments, which `parse_policy` reads back as the same. Encode it with
    ("utf-8", "surrogateescape"): names and URLs are any octets."""
    lines = [" ".join(filter(None, ("log", str(log.vkey), _text(log.url)))) for log in policy.logs]
    lines += _witness_lines(policy)
    return "".join(f"{line}\n" for line in lines)


def _witness_lines(policy: Policy) -> list[str]:
    """The lines of witnesses, groups and quorum."""
    lines = [
        " ".join(filter(None, ("witness", _text(witness.name), str(witness.vkey), _text(witness.url))))
        for witness in policy.witnesses.values()
    ]
    for group in policy.groups.values():
        threshold = {len(group.members): "all", 1: "any"}.get(group.threshold, str(group.threshold))
        lines.append(" ".join(("group", _text(group.name), threshold, *map(_text, group.members))))
    return [*lines, f"quorum {_text(policy.quorum)}"]


def _text(word: str | None) -> str:
    """A word of a parsed policy, in which each octet above ASCII stands for itself, as the text that the octets are."""
    return (word or "").encode("ascii", "surrogateescape").decode("utf-8", "surrogateescape")


def restrict_policy(policy: Policy, *, classic: bool) -> Policy:
    """The policy with the ML-DSA-44 keys only (`classic`: the Ed25519 ones) of witnesses that have both in one `any` group.

    A witness is known by its vkey's name. Whatever satisfies the result satisfies `policy` too.
    """
    wanted = KeyType.COSIGNATURE_ED25519 if classic else KeyType.COSIGNATURE_MLDSA44
    dropped: set[str] = set()
    for group in policy.groups.values():
        if group.threshold == 1:
            listed = [policy.witnesses[member] for member in group.members if member in policy.witnesses]
            having = {witness.vkey.name for witness in listed if witness.vkey.type is wanted}
            dropped |= {each.name for each in listed if each.vkey.type is not wanted and each.vkey.name in having}
    dropped.discard(policy.quorum)
    groups = {
        group.name: PolicyGroup(
            name=group.name,
            threshold=group.threshold,
            members=tuple(member for member in group.members if member not in dropped),
        )
        for group in policy.groups.values()
    }
    witnesses = {name: witness for name, witness in policy.witnesses.items() if name not in dropped}
    return Policy(logs=policy.logs, witnesses=witnesses, groups=groups, quorum=policy.quorum)


def format_log_policy(vkeys: Iterable[VKey], *, url: str = "", classic: bool = False, publication: Policy | None = None) -> str:
    """A policy that trusts one log and asks for the witnesses of its `publication` policy, if there is one, with comments that
    say how far it can be relied on.

    Lists the ML-DSA-44 keys, or with `classic` (or where there is none) the Ed25519 ones. Log keys come from `vkeys` only.
    Raises MalformedError without keys, and for what would make no policy: a witness with a key of the log, names not in UTF-8.
    """
    vkeys = list(vkeys)
    wanted = KeyType.ED25519 if classic else KeyType.COSIGNATURE_MLDSA44
    listed = [vkey for vkey in vkeys if vkey.type is wanted]
    lines = []
    if not listed:
        listed = [vkey for vkey in vkeys if vkey.type is not KeyType.COSIGNATURE_ED25519]
        lines.append(f"# The log has no {wanted.label} key: this policy is as strong as what it lists.")
    elif classic:
        lines.append("# Ed25519 only: a quantum computer could forge what this policy accepts.")
    if not listed:
        raise MalformedError("a policy needs a key that signs checkpoints")
    lines += [f"log {vkey} {url}".rstrip() for vkey in listed]
    if publication is None or publication.quorum == NO_QUORUM:
        lines.append("# No witnesses: the log's operator alone could show different people different trees.")
    if publication is None:
        lines.append(f"quorum {NO_QUORUM}")
    else:
        restricted = restrict_policy(publication, classic=classic)
        lines += [*_other_kind(restricted, wanted), *_witness_lines(restricted)]
    return _require_policy("".join(f"{line}\n" for line in lines))


def _other_kind(policy: Policy, wanted: KeyType) -> Iterator[str]:
    """Says which witnesses are listed without a key of the wanted algorithm."""
    having = {witness.vkey.name for witness in policy.witnesses.values() if witness.vkey.type.label == wanted.label}
    others = [_text(witness.name) for witness in policy.witnesses.values() if witness.vkey.name not in having]
    if others and wanted is KeyType.COSIGNATURE_MLDSA44:
        yield f"# Ed25519 only, so that a quantum computer could forge their cosignatures: {', '.join(others)}"
    elif others:
        yield f"# Without an Ed25519 key that is known here: {', '.join(others)}"


def _require_policy(text: str) -> str:
    """The text. Raises MalformedError if it is none of a policy."""
    try:
        parse_policy(text.encode())
    except UnicodeEncodeError:
        raise MalformedError("the policy has a name or URL that is not UTF-8", hint="call it something else") from None
    return text


def require_quorum(policy: Policy, cosigned: Iterable[str]) -> None:
    """Raises QuorumError unless the witnesses named (by the policy's names) satisfy the quorum."""
    satisfied = set(cosigned)
    for group in policy.groups.values():  # members are defined above, so one pass in order is enough
        if sum(member in satisfied for member in group.members) >= group.threshold:
            satisfied.add(group.name)
    if policy.quorum != NO_QUORUM and policy.quorum not in satisfied:
        seen = ", ".join(sorted(satisfied & set(policy.witnesses))) or "no witness it lists"
        raise QuorumError(f"the policy's quorum {clip(policy.quorum)} is not reached: cosigned by {seen}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A verified signature under a policy: the key, the policy's name for a witness, and the time it states, if any."""

    name: str
    vkey: VKey
    time_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCheckpoint:
    """A tree head that a policy accepts: the log keys that signed and the witnesses that cosigned. Made by
    `verify_checkpoint` only."""

    checkpoint: Checkpoint
    signed: tuple[Cosigned, ...]
    cosigned: tuple[Cosigned, ...]


def verify_checkpoint(note: bytes, policy: Policy) -> VerifiedCheckpoint:
    """The tree head in `note`, if `policy` accepts it.

    Raises MalformedError; SignatureError if no listed key of its origin signed it, if the line of a listed key does not
    verify, or if it has extension lines that only an ML-DSA-44 signature would vouch for; ConsistencyError for a tree of
    size 0 with a root of something; QuorumError.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    logs = [log for log in policy.logs if log.vkey.name == checkpoint.origin]
    if not logs:
        raise SignatureError(f"the policy lists no log {clip(checkpoint.origin)}", code="unknown-log")
    witnesses = list(policy.witnesses.values())
    opened = verify_note(parsed, [KeyVerifier(log.vkey) for log in logs] + [KeyVerifier(witness.vkey) for witness in witnesses])
    payloads = {(signature.name, signature.key_id): signature.payload for signature in opened.verified}

    def verified(name: str, vkey: VKey) -> list[Cosigned]:
        payload = payloads.get((vkey.name, vkey.key_id))
        return [] if payload is None else [Cosigned(name=name, vkey=vkey, time_s=signature_time(vkey, payload))]

    signed = tuple(item for log in logs for item in verified(log.vkey.name, log.vkey))
    cosigned = tuple(item for witness in witnesses for item in verified(witness.name, witness.vkey))
    if not signed:
        raise SignatureError(f"no key of the log {clip(checkpoint.origin)} in the policy signed this", code="unknown-key")
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise ConsistencyError("the checkpoint is of size 0, but its root is not that of the empty tree")
    if checkpoint.extensions and all(item.vkey.type is KeyType.COSIGNATURE_MLDSA44 for item in signed):
        raise SignatureError("the checkpoint has extension lines, which the log's ML-DSA-44 signature does not cover")
    require_quorum(policy, [item.name for item in cosigned])
    return VerifiedCheckpoint(checkpoint=checkpoint, signed=signed, cosigned=cosigned)
