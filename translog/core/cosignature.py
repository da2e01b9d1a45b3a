"""What each key type signs, and the signers and verifiers of note lines made from keys.

    0x01   the note text
    0x04   "cosignature/v1\\n" "time " <decimal> "\\n" <note text>                      payload: u64 time || signature
    0x06   "subtree/v1\\n\\0" u8-framed cosigner name, u64 time, u8-framed origin,
           u64 start, u64 end, 32-byte hash; start 0 and end = size for a checkpoint    payload: u64 time || signature

Rules: times are POSIX seconds, big-endian, at most 2^63-1; 0x06 does not cover extension lines (core/policy.py refuses them
where nothing else verified); time 0 makes no claim, and we never sign it. A log's own ML-DSA-44 signature is
a 0x06 line under its origin. https://c2sp.org/tlog-cosignature
"""

from dataclasses import dataclass

from translog.core.checkpoint import ORIGIN_BYTES_MAX, parse_checkpoint
from translog.core.keys import SIGNATURE_BYTES, KeyType, SKey, VKey, sign_bytes, verify_bytes
from translog.core.wire import HASH_BYTES, SIZE_MAX
from translog.errors import MalformedError, SignatureError

TIME_BYTES = 8


def ed25519_message(text: str, *, time_s: int) -> bytes:
    """What a 0x04 key signs."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def mldsa44_message(*, cosigner: str, time_s: int, origin: str, start: int, end: int, subtree: bytes) -> bytes:
    """What a 0x06 key signs. Raises MalformedError for a name or origin that is empty or over 255 bytes."""
    if len(subtree) != HASH_BYTES or not 0 <= time_s <= SIZE_MAX or not 0 <= start <= end <= SIZE_MAX:
        raise MalformedError("a hash, time or size out of range in a subtree cosignature")
    if start and time_s:
        raise MalformedError("a cosignature of a subtree that does not start at 0 carries no time")
    framed = []
    for what, value in (("cosigner name", cosigner.encode()), ("origin", origin.encode())):
        if not 1 <= len(value) <= ORIGIN_BYTES_MAX:
            raise MalformedError(f"the {what} has {len(value)} bytes, not 1 to {ORIGIN_BYTES_MAX}")
        framed.append(bytes([len(value)]) + value)
    times_and_sizes = [value.to_bytes(8, "big") for value in (time_s, start, end)]
    return b"".join((b"subtree/v1\n\0", framed[0], times_and_sizes[0], framed[1], *times_and_sizes[1:], subtree))


def _message(key: VKey, text: str, time_s: int) -> bytes:
    if key.type is KeyType.ED25519:
        return text.encode()
    if key.type is KeyType.COSIGNATURE_ED25519:
        return ed25519_message(text, time_s=time_s)
    checkpoint = parse_checkpoint(text)
    return mldsa44_message(
        cosigner=key.name,
        time_s=time_s,
        origin=checkpoint.origin,
        start=0,
        end=checkpoint.size,
        subtree=checkpoint.root,
    )


def signature_time(vkey: VKey, payload: bytes) -> int | None:
    """The time (POSIX seconds) that a signature line of this key states; None for a kind without one, and for 0, which
    makes no claim that the tree was the largest at any time. Raises SignatureError for a payload without a valid time."""
    return _split(vkey, payload)[0] or None


def _split(vkey: VKey, payload: bytes) -> tuple[int, bytes]:
    """The time, 0 for none, and the bare signature."""
    if vkey.type is KeyType.ED25519:
        return 0, payload
    time_s = int.from_bytes(payload[:TIME_BYTES], "big")
    if len(payload) < TIME_BYTES or time_s > SIZE_MAX:
        raise SignatureError(f"the cosignature of {vkey.name}+{vkey.key_id.hex()} states no valid time")
    return time_s, payload[TIME_BYTES:]


@dataclass(frozen=True, slots=True)
class KeyVerifier:
    """A note.Verifier for a vkey of any supported type."""

    vkey: VKey

    @property
    def name(self) -> str:
        return self.vkey.name

    @property
    def key_id(self) -> bytes:
        return self.vkey.key_id

    def verify(self, text: str, payload: bytes) -> None:
        """See note.Verifier. A 0x06 key verifies checkpoints only: any other text raises SignatureError."""
        time_s, signature = _split(self.vkey, payload)
        if len(signature) != SIGNATURE_BYTES[self.vkey.type]:
            raise SignatureError(f"the signature of {self.name}+{self.key_id.hex()} has the wrong length")
        try:
            message = _message(self.vkey, text, time_s)
        except MalformedError as error:
            raise SignatureError(f"{self.name} cannot have signed this: {error.detail}") from None
        verify_bytes(self.vkey, message, signature)


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A note.Signer over a private key held in memory."""

    skey: SKey

    @property
    def name(self) -> str:
        return self.skey.name

    @property
    def key_id(self) -> bytes:
        return self.skey.vkey.key_id

    def sign(self, text: str, *, time_s: int) -> bytes:
        """See note.Signer. Raises MalformedError for a time out of range, or for a text a 0x06 key cannot sign."""
        if not 0 < time_s <= SIZE_MAX:
            raise MalformedError(f"cannot sign at time {time_s}")
        signature = sign_bytes(self.skey, _message(self.skey.vkey, text, time_s))
        return signature if self.skey.type is KeyType.ED25519 else time_s.to_bytes(TIME_BYTES, "big") + signature
