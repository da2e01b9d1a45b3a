"""A log made for a witness: it signs whatever tree it is told to. Trees and proofs are those of the oracle of tests/core."""

from base64 import b64decode, b64encode
from collections.abc import Sequence

from core.merkle_oracle import Oracle

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey, VKey
from translog.core.note import VerifiedNote, format_signature, open_note, parse_note, sign_note
from translog.core.wire import encode_base64
from translog.witness.protocol import monitoring_path, parse_cosignatures

ENTRIES = [b"entry %d" % index for index in range(40)]
OTHER = [b"another %d" % index for index in range(40)]
TIME_S = 1_700_000_000


class MadeLog:
    """A log of ENTRIES, or of others, with keys of its own for each origin."""

    def __init__(
        self, origin: str = "log.example/made", *, entries: Sequence[bytes] = ENTRIES, types: Sequence[KeyType] | None = None
    ) -> None:
        kinds = types or (KeyType.COSIGNATURE_MLDSA44, KeyType.ED25519)
        seed = origin.encode().ljust(31, b"\0")[:31]
        self.origin = origin
        self.skeys = [SKey(name=origin, type=kind, seed=seed + bytes([kind])) for kind in kinds]
        self.tree = Oracle(entries)

    @property
    def vkeys(self) -> list[VKey]:
        return [skey.vkey for skey in self.skeys]

    @property
    def path(self) -> str:
        """Where a witness shows what it cosigned last."""
        return f"/{monitoring_path(self.origin)}"

    def root(self, size: int) -> bytes:
        return self.tree.mth(0, size)

    def note(self, size: int, *, root: bytes | None = None, origin: str = "") -> bytes:
        """A signed checkpoint."""
        checkpoint = Checkpoint(origin=origin or self.origin, size=size, root=root or self.root(size))
        return sign_note(format_checkpoint(checkpoint), [KeySigner(skey) for skey in self.skeys], time_s=TIME_S)

    def proof(self, old: int, size: int) -> list[bytes]:
        """The consistency proof, as a request has it."""
        return self.tree.proof(old, 0, size) if 0 < old < size else []

    def request(self, old: int, size: int, *, proof: Sequence[bytes] | None = None, note: bytes | None = None) -> bytes:
        """A request by the words of the specification, not by the package."""
        hashes = self.proof(old, size) if proof is None else proof
        lines = [f"old {old}", *(b64encode(hash_).decode() for hash_ in hashes), ""]
        return "\n".join(lines).encode() + b"\n" + (self.note(size) if note is None else note)

    def require_cosigned(self, size: int, answer: bytes, vkeys: Sequence[VKey]) -> VerifiedNote:
        """Checks that an answer is the lines of all these keys for the checkpoint of `size`, and no others."""
        lines = parse_cosignatures(answer)
        assert sorted(line.key_id for line in lines) == sorted(vkey.key_id for vkey in vkeys)
        verified = open_note(self.note(size) + answer, [KeyVerifier(vkey) for vkey in vkeys])
        assert len(verified.verified) == len(vkeys)
        return verified


def forged_line(vkey: VKey, length: int) -> bytes:
    """A signature line under a key's name and key ID that is none of its."""
    return f"\u2014 {vkey.name} {encode_base64(vkey.key_id + bytes(length))}\n".encode()


def lines_of(note: bytes) -> list[bytes]:
    """The signature lines of a note."""
    return [format_signature(signature).encode() for signature in parse_note(note).signatures]


def spoiled(line: bytes) -> bytes:
    """A signature line with one bit of its signature flipped."""
    head, _, encoded = line.rstrip(b"\n").rpartition(b" ")
    data = bytearray(b64decode(encoded))
    data[-1] ^= 1
    return head + b" " + b64encode(data) + b"\n"
