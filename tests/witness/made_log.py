"""A log that signs what it is told to, and a witness that knows it."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from core.merkle_oracle import Oracle

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey, VKey
from translog.core.note import Signer, sign_note, verify_note
from translog.core.note import parse_note as parse_note  # tests of notes have both from here
from translog.witness.loglist import KnownLog
from translog.witness.protocol import AddCheckpoint, format_add_checkpoint
from translog.witness.service import Witness
from translog.witness.store import WitnessStore

NOW_S = 1_800_000_000
WITNESS_NAME = "witness.example/w"


def make_key(name: str, key_type: KeyType, number: int = 0) -> SKey:
    return SKey(name=name, type=key_type, seed=sha256(f"{name} {key_type} {number}".encode()).digest())


WITNESS_KEYS = tuple(
    make_key(WITNESS_NAME, key_type, 9) for key_type in (KeyType.COSIGNATURE_MLDSA44, KeyType.COSIGNATURE_ED25519)
)

WITNESS_VKEYS = tuple(key.vkey for key in WITNESS_KEYS)


class MadeLog:
    """Entries are numbers; a fork has other ones from `fork_at` on."""

    def __init__(
        self,
        origin: str = "log.example/made",
        *,
        fork_at: int | None = None,
        key_name: str = "",
        types: Sequence[KeyType] = (KeyType.ED25519, KeyType.COSIGNATURE_MLDSA44),
        size: int = 64,
    ) -> None:
        self.origin = origin
        self.skeys = tuple(make_key(key_name or origin, key_type) for key_type in types)
        self.tree = Oracle([b"%d" % n if fork_at is None or n < fork_at else b"other %d" % n for n in range(size)])

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        return tuple(skey.vkey for skey in self.skeys)

    @property
    def known(self) -> KnownLog:
        return KnownLog(origin=self.origin, vkeys=self.vkeys, queries_per_day=1_000_000)

    def text(self, size: int, *, root: bytes | None = None, origin: str = "", extensions: tuple[str, ...] = ()) -> str:
        root = self.tree.mth(0, size) if root is None else root
        return format_checkpoint(Checkpoint(origin=origin or self.origin, size=size, root=root, extensions=extensions))

    def note(self, size: int, *, signers: Sequence[Signer] | None = None, time_s: int = NOW_S, **text: Any) -> bytes:
        return sign_note(self.text(size, **text), signers or [KeySigner(skey) for skey in self.skeys], time_s=time_s)

    def proof(self, old: int, new: int) -> tuple[bytes, ...]:
        return tuple(self.tree.proof(old, 0, new)) if 0 < old < new else ()

    def request(self, old: int, new: int, *, proof: Sequence[bytes] | None = None, note: bytes | None = None) -> bytes:
        return format_add_checkpoint(
            AddCheckpoint(
                old=old,
                proof=self.proof(old, new) if proof is None else tuple(proof),
                note=self.note(new) if note is None else note,
            )
        )


class Time:
    """A clock that stands still until it is set."""

    def __init__(self, now_s: int = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> int:
        return self.now_s * 1000


def make_witness(path: Path, *logs: MadeLog, now_ms: Callable[[], int] | None = None, **options: Any) -> Witness:
    """A witness with a state of its own at `path`, new or not."""
    store = WitnessStore.open(path) if path.exists() else WitnessStore.create(path, name=WITNESS_NAME, vkeys=WITNESS_VKEYS)
    witness = Witness(store=store, signers=[KeySigner(skey) for skey in WITNESS_KEYS], now_ms=now_ms or Time(), **options)
    for log in logs:
        witness.add_log(log.known)
    return witness


def require_cosigned(note: bytes, answer: bytes, *, vkeys: Sequence[VKey] = WITNESS_VKEYS) -> None:
    """An answer's lines, put below the note that was sent, are those of the witness's keys, and each verifies."""
    opened = verify_note(parse_note(note + answer), [KeyVerifier(vkey) for vkey in vkeys])
    assert {(line.name, line.key_id) for line in opened.verified} == {(vkey.name, vkey.key_id) for vkey in vkeys}
    assert answer.count(b"\n") == len(vkeys)
