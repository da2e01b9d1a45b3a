"""What a witness may be asked, and the status that tlog-witness has for it.

Rules: every situation has a log of its own, so that none depends on another; all logs have one tree. A witness that is asked
must know `known_keys()`. https://c2sp.org/tlog-witness
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey, VKey
from translog.core.merkle import EMPTY_ROOT, prove_consistency, root_hash
from translog.core.note import Signature, format_signature, open_note, sign_note
from translog.core.wire import encode_base64
from translog.errors import VerificationError

from .static_log import TIME_S, flip, make_log
from .witness_programs import Answer, Asker

SIZE = 9
_TREE = make_log(SIZE)
_FORGED_ROOT = b"\x01" * 32
UNVERIFIABLE = b"lines that do not verify"


@dataclass(frozen=True, slots=True)
class OfferedLog:
    """A log whose checkpoints are offered: with one key of each type, the tree is the one of all logs here."""

    origin: str

    @property
    def skeys(self) -> tuple[SKey, ...]:
        return tuple(self.skey(key_type, 0) for key_type in (KeyType.ED25519, KeyType.COSIGNATURE_MLDSA44))

    def skey(self, key_type: KeyType, number: int) -> SKey:
        return SKey(name=self.origin, type=key_type, seed=bytes([number]) * 32)

    def note(self, size: int, *, root: bytes = b"", skeys: Iterable[SKey] = (), extensions: tuple[str, ...] = ()) -> bytes:
        root = root or (root_hash(size, _TREE.reader) if size else EMPTY_ROOT)
        text = format_checkpoint(Checkpoint(origin=self.origin, size=size, root=root, extensions=extensions))
        return sign_note(text, [KeySigner(skey) for skey in skeys or self.skeys], time_s=TIME_S)

    def proof(self, old: int, size: int) -> list[bytes]:
        return prove_consistency(old=old, new=size, reader=_TREE.reader) if 0 < old < size else []

    def request(self, old: int, size: int, *, proof: Sequence[bytes] | None = None, note: bytes = b"") -> bytes:
        """The body that asks to cosign the tree of `size`, built without our protocol module: not every one is allowed."""
        hashes = self.proof(old, size) if proof is None else proof
        lines = [f"old {old}", *map(encode_base64, hashes)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + (note or self.note(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Of which sizes the witness has cosigned checkpoints `before`, what it is then asked, and the status by specification."""

    status: int
    before: tuple[int, ...] = ()
    ask: Callable[[OfferedLog], bytes]


def _by_others(log: OfferedLog, count: int) -> bytes:
    """A note with lines of other witnesses' ML-DSA-44 keys, of 3.3 kB each."""
    names = [f"witness-{number}.example" for number in range(count)]
    others = [SKey(name=name, type=KeyType.COSIGNATURE_MLDSA44, seed=b"o" * 32) for name in names]
    return log.note(3, skeys=[*log.skeys, *others])


def _wrongly_signed(log: OfferedLog) -> bytes:
    note = log.note(3, skeys=log.skeys[:1])
    return note[:-8] + flip(note[-8:], 0)


SITUATIONS: dict[str, Situation] = {
    "the first": Situation(status=200, ask=lambda log: log.request(0, 3)),
    "a larger one": Situation(status=200, before=(3,), ask=lambda log: log.request(3, 7)),
    "the same again": Situation(status=200, before=(3,), ask=lambda log: log.request(3, 3)),
    "an empty tree": Situation(status=200, ask=lambda log: log.request(0, 0)),
    "an empty tree again": Situation(status=200, before=(0,), ask=lambda log: log.request(0, 0)),
    "one after an empty tree": Situation(status=200, before=(0,), ask=lambda log: log.request(0, 3)),
    "extension lines": Situation(
        status=200, ask=lambda log: log.request(0, 3, note=log.note(3, skeys=log.skeys[:1], extensions=("more",)))
    ),
    "only ML-DSA-44": Situation(status=200, ask=lambda log: log.request(0, 3, note=log.note(3, skeys=log.skeys[1:]))),
    "only Ed25519": Situation(status=200, ask=lambda log: log.request(0, 3, note=log.note(3, skeys=log.skeys[:1]))),
    "12 kB": Situation(status=200, ask=lambda log: log.request(0, 3, note=_by_others(log, 3))),
    "19 kB": Situation(status=200, ask=lambda log: log.request(0, 3, note=_by_others(log, 5))),
    "old 0 when it has 3": Situation(status=409, before=(3,), ask=lambda log: log.request(0, 7)),
    "old 5 when it has 3": Situation(status=409, before=(3,), ask=lambda log: log.request(5, 7)),
    "old 3 when it has none": Situation(status=409, ask=lambda log: log.request(3, 7)),
    "old 3 to 5 when it has 7": Situation(status=409, before=(7,), ask=lambda log: log.request(3, 5)),
    "old above new": Situation(status=400, before=(3,), ask=lambda log: log.request(9, 7)),
    "old above new when it has none": Situation(status=400, ask=lambda log: log.request(9, 7)),
    "a smaller one": Situation(status=400, before=(7,), ask=lambda log: log.request(7, 3)),
    "an unknown log": Situation(status=404, ask=lambda log: OfferedLog("unknown.example").request(0, 3)),
    "an unknown key": Situation(
        status=403, ask=lambda log: log.request(0, 3, note=log.note(3, skeys=[log.skey(KeyType.ED25519, 1)]))
    ),
    "a wrong signature": Situation(status=403, ask=lambda log: log.request(0, 3, note=_wrongly_signed(log))),
    "a wrong proof": Situation(status=422, before=(3,), ask=lambda log: log.request(3, 7, proof=log.proof(3, 8))),
    "no proof": Situation(status=422, before=(3,), ask=lambda log: log.request(3, 7, proof=[])),
    "a hash too many": Situation(
        status=422, before=(3,), ask=lambda log: log.request(3, 7, proof=[*log.proof(3, 7), b"\x00" * 32])
    ),
    "a proof from 0": Situation(status=422, ask=lambda log: log.request(0, 3, proof=[b"\x00" * 32])),
    "a proof from 0 after an empty tree": Situation(
        status=422, before=(0,), ask=lambda log: log.request(0, 3, proof=[b"\x00" * 32])
    ),
    "a proof to the same": Situation(status=422, before=(3,), ask=lambda log: log.request(3, 3, proof=[b"\x00" * 32])),
    "another root": Situation(status=422, before=(3,), ask=lambda log: log.request(3, 3, note=log.note(3, root=_FORGED_ROOT))),
    "an empty tree with a root": Situation(status=422, ask=lambda log: log.request(0, 0, note=log.note(0, root=_FORGED_ROOT))),
    "64 hashes": Situation(status=400, before=(3,), ask=lambda log: log.request(3, 7, proof=[b"\x00" * 32] * 64)),
    "31 bytes of hash": Situation(status=400, before=(3,), ask=lambda log: log.request(3, 7, proof=[b"\x00" * 31])),
    "nothing": Situation(status=400, ask=lambda log: b""),
    "no old line": Situation(status=400, ask=lambda log: b"\n" + log.note(3)),
    "no empty line": Situation(status=400, ask=lambda log: b"old 0\n"),
    "no size": Situation(status=400, ask=lambda log: log.request(0, 3).replace(b"old 0", b"old ")),
    "a leading zero": Situation(status=400, before=(3,), ask=lambda log: log.request(3, 7).replace(b"old 3", b"old 03")),
    "a sign": Situation(status=400, before=(3,), ask=lambda log: log.request(3, 7).replace(b"old 3", b"old +3")),
    "a negative size": Situation(status=400, ask=lambda log: log.request(0, 7).replace(b"old 0", b"old -1")),
    "more after the size": Situation(status=400, before=(3,), ask=lambda log: log.request(3, 7).replace(b"old 3", b"old 3 x")),
    "CRLF": Situation(status=400, ask=lambda log: b"old 0\r\n\r\n" + log.note(3)),
    "no signatures": Situation(status=400, ask=lambda log: log.request(0, 3, note=log.note(3).partition(b"\n\n")[0] + b"\n")),
    "a checkpoint of two lines": Situation(status=400, ask=lambda log: log.request(0, 3, note=_note_of(log, "3\n"))),
    "a size with a leading zero": Situation(
        status=400, ask=lambda log: log.request(0, 3, note=_note_of(log, f"03\n{encode_base64(_TREE.root)}\n"))
    ),
}


def _note_of(log: OfferedLog, rest: str) -> bytes:
    """A note of lines that are no checkpoint, signed with Ed25519, which takes any."""
    return sign_note(f"{log.origin}\n{rest}", [KeySigner(log.skeys[0])], time_s=TIME_S)


def log_of(situation: str) -> OfferedLog:
    """The situation's log."""
    return OfferedLog(f"log.example/{situation.replace(' ', '-')}")


def known_keys(key_type: KeyType) -> list[VKey]:
    """One key of every situation's log."""
    return [log_of(situation).skey(key_type, 0).vkey for situation in SITUATIONS]


def ask_all(url: str, vkeys: Sequence[VKey]) -> dict[str, Answer]:
    """Each situation with the witness's answer; that of a 200 stands for its lines, which are verified."""
    answers = {}
    with closing(Asker(url)) as asker:
        for name, situation in SITUATIONS.items():
            log, had = log_of(name), 0
            for size in situation.before:
                assert asker.add_checkpoint(log.request(had, size)).status == 200
                had = size
            body = situation.ask(log)
            answer = asker.add_checkpoint(body)
            if answer.status == 200:
                answer = answer._replace(body=lines_of(answer.body, body[body.index(log.origin.encode()) :], vkeys))
            answers[name] = answer
    return answers


def lines_of(body: bytes, note: bytes, vkeys: Sequence[VKey]) -> bytes:
    """The types of the keys that made the lines of an answer, which has no others, and which all verify, or UNVERIFIABLE."""
    try:
        opened = open_note(note + body, map(KeyVerifier, vkeys))
    except VerificationError:
        return UNVERIFIABLE
    own = [(vkey.name, vkey.key_id) for vkey in vkeys]
    assert body == b"".join(format_signature(line).encode() for line in opened.verified)
    return " ".join(vkeys[own.index((line.name, line.key_id))].type.label for line in opened.verified).encode()


def forged_line(vkey: VKey) -> bytes:
    """A line that only looks like one of `vkey`."""
    return format_signature(Signature(name=vkey.name, key_id=vkey.key_id, payload=bytes(72))).encode()
