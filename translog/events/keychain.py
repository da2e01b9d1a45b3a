"""Changes of a name's keys as public entries, and the chain that they form.

    {"translog":"key/1","role":"log|stream","name":"<key name>","vkey":"<vkey>","action":"add|retire","note":"<note>"}

The note is shaped like a checkpoint, so that keys of every type sign it: origin `<name>/keys`, size = how many changes of that
name there are with this one, root = SHA-256(the entry's text without its member `note`).

Rules: compact JSON with exactly these members in this order; what was parsed formats back to the same bytes. An entry counts
only if it is the next change: its number follows, a key that was active before it signed it, and it adds a key that is new or
retires one that is active and not the last. Everything else that looks like one is nobody's business and changes nothing, so
that look-alikes and replays in an opaque log do no harm. Pure. specs/formats.md, "Changes of keys".
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256

from translog.core.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.keys import KeyType, VKey, parse_vkey
from translog.core.note import Signer, parse_note, sign_note, verify_note
from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import clip
from translog.errors import MalformedError, VerificationError
from translog.events.jsontext import compact

KEY = "key/1"
_PREFIX = b'{"translog":"key/1"'
_MEMBERS = ("translog", "role", "name", "vkey", "action", "note")


class Role(StrEnum):
    """Whose keys change."""

    LOG = "log"
    STREAM = "stream"


class Action(StrEnum):
    """What happens to the key."""

    ADD = "add"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A parsed change. The signatures of `note` are not verified; `number` is what it says."""

    role: Role
    name: str
    vkey: VKey
    action: Action
    note: bytes
    number: int


def looks_like_key_change(entry: bytes) -> bool:
    """Whether an entry may be one, by its first bytes."""
    return entry.startswith(_PREFIX)


def parse_key_change(entry: bytes) -> KeyChange:
    """The change that an entry states. Raises MalformedError for any other entry."""
    if len(entry) > ENTRY_BYTES_MAX or not looks_like_key_change(entry):
        raise MalformedError("the entry is not a change of keys (key/1)")
    try:
        document = json.loads(entry.decode("utf-8"))
        texts = {member: document[member] for member in _MEMBERS}
        if not all(isinstance(text, str) for text in texts.values()) or compact(texts).encode() != entry:
            raise ValueError
        role, action = Role(texts["role"]), Action(texts["action"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MalformedError("the entry is not a change of keys (key/1) in its one spelling") from None
    vkey = parse_vkey(texts["vkey"])
    if vkey.name != texts["name"]:
        raise MalformedError(f"a change of the keys of {clip(texts['name'])} has a key named {clip(vkey.name)}")
    if vkey.type is KeyType.COSIGNATURE_ED25519 or str(vkey) != texts["vkey"]:
        raise MalformedError("the key is not one that signs checkpoints, of type 0x01 or 0x06")
    note = texts["note"].encode()
    checkpoint = parse_checkpoint(parse_note(note).text)
    if checkpoint.origin != keys_origin(vkey.name) or checkpoint.extensions or checkpoint.size == 0:
        raise MalformedError("the note is not that of a change of these keys")
    if checkpoint.root != _root(role, vkey, action):
        raise MalformedError("the note is of another change")
    return KeyChange(role=role, name=vkey.name, vkey=vkey, action=action, note=note, number=checkpoint.size)


def sign_key_change(
    *, role: Role, name: str, vkey: VKey, action: Action, number: int, signers: Sequence[Signer], time_s: int
) -> bytes:
    """The entry that states change `number` (from 1) of the keys of `name`. Raises MalformedError for a name that cannot be
    one, or that is not the key's."""
    if vkey.name != name:
        raise MalformedError(f"the key is named {clip(vkey.name)}, not {clip(name)}")
    text = format_checkpoint(Checkpoint(origin=keys_origin(name), size=number, root=_root(role, vkey, action)))
    members = _members(role, vkey, action) | {"note": sign_note(text, signers, time_s=time_s).decode()}
    entry = compact(members).encode()
    parse_key_change(entry)
    return entry


def keys_origin(name: str) -> str:
    """The origin in the notes of a name's changes."""
    return f"{name}/keys"


def _members(role: Role, vkey: VKey, action: Action) -> dict[str, str]:
    return {"translog": KEY, "role": role.value, "name": vkey.name, "vkey": str(vkey), "action": action.value}


def _root(role: Role, vkey: VKey, action: Action) -> bytes:
    return sha256(compact(_members(role, vkey, action)).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChain:
    """The keys of `name` after `number` changes.

    Who holds a policy may know some of the keys only: with `kinds`, those of these types that a policy listed. Keys of other
    types are then neither believed nor taken up, and a key that was never known may be retired.
    """

    name: str
    active: tuple[VKey, ...]
    number: int = 0
    retired: tuple[VKey, ...] = ()
    role: Role = Role.LOG
    kinds: frozenset[KeyType] | None = None

    def follow(self, entry: bytes) -> "KeyChain":
        """The chain with one change more.

        Raises MalformedError for an entry that is no change of keys, SignatureError for one that none of these keys signed,
        VerificationError for any other that is not the next: of another name, of another number, of a key that was there
        before, of a key that is not there, of the last.
        """
        change = parse_key_change(entry)
        if (change.role, change.name) != (self.role, self.name):
            raise VerificationError(f"a change of the keys of {clip(change.name)}, not of {clip(self.name)}")
        if change.number != self.number + 1:
            raise VerificationError(f"change {change.number} of the keys of {clip(self.name)} does not follow {self.number}")
        self.require_signed(change)
        return self._add(change.vkey) if change.action is Action.ADD else self._retire(change.vkey)

    def require_signed(self, change: KeyChange) -> None:
        """Raises SignatureError unless an active key signed the change."""
        verify_note(parse_note(change.note), [KeyVerifier(vkey) for vkey in self.active])

    def _add(self, vkey: VKey) -> "KeyChain":
        ids = {known.key_id for known in (*self.active, *self.retired)}
        if vkey.key_id in ids:
            raise VerificationError(f"the key {vkey.key_id.hex()} that is added was there before")
        if self.kinds is not None and vkey.type not in self.kinds:
            return replace(self, number=self.number + 1)
        return replace(self, number=self.number + 1, active=(*self.active, vkey))

    def _retire(self, vkey: VKey) -> "KeyChain":
        if vkey not in self.active:
            if self.kinds is None or vkey in self.retired:
                raise VerificationError(f"the key {vkey.key_id.hex()} that is retired is not in use")
            return replace(self, number=self.number + 1, retired=(*self.retired, vkey))
        active = tuple(known for known in self.active if known != vkey)
        if not active:
            raise VerificationError(f"the key {vkey.key_id.hex()} that is retired is the last one", code="last-key")
        return replace(self, number=self.number + 1, active=active, retired=(*self.retired, vkey))


def keys_before(keys: Sequence[VKey], changes: Sequence[bytes]) -> Iterator[tuple[VKey, ...]]:
    """The keys that were active before each of the changes, first to last, and after them all: `keys`. What is told, nothing
    verified. Raises MalformedError for an entry that is no change of keys."""
    after: list[tuple[VKey, ...]] = [tuple(keys)]
    for entry in reversed(changes):
        change = parse_key_change(entry)
        others = tuple(vkey for vkey in after[-1] if vkey != change.vkey)
        after.append(others if change.action is Action.ADD else (*others, change.vkey))
    return reversed(after)
