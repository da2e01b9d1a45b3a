"""Signed notes: a text and the signature lines below it.

    <text, ending in a newline>
    <empty line>
    — <key name> <base64 of 4-byte key ID and signature>      one or more; the dash is U+2014

Rules: the text is not to be used before `open_note` has verified it; a key is known by name *and* key ID; a line of a known
key that does not verify spoils the note, a line of an unknown key is ignored; what was parsed formats back to the same
bytes. https://c2sp.org/signed-note
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from translog.core.wire import clip, decode_base64, decode_text, encode_base64, split_lines
from translog.errors import MalformedError, SignatureError

NOTE_BYTES_MAX = 1_000_000
"""Largest note read, as in the reference implementation; a hundred ML-DSA-44 lines take a third of it."""
SIGNATURES_MAX = 100
"""Most signature lines read, as in the reference implementation; the specification asks for at least 16."""
KEY_ID_BYTES = 4

_DASH = "\u2014 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line: whose it says it is, and the bytes after the key ID (their meaning depends on the key's type)."""

    name: str
    key_id: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A parsed note, nothing of it verified. `text` ends in a newline."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedNote:
    """A note whose text may be used. `verified` has one signature per key that verified, in the note's order."""

    text: str
    verified: tuple[Signature, ...]
    unverified: tuple[Signature, ...]


class Verifier(Protocol):
    """A public key that can check one kind of signature line."""

    @property
    def name(self) -> str: ...
    @property
    def key_id(self) -> bytes: ...

    def verify(self, text: str, payload: bytes) -> None:
        """Raises SignatureError unless `payload` is this key's signature of the note text."""


class Signer(Protocol):
    """A private key, here or in a device, that can make one kind of signature line."""

    @property
    def name(self) -> str: ...
    @property
    def key_id(self) -> bytes: ...

    def sign(self, text: str, *, time_s: int) -> bytes:
        """The payload of a signature line over the note text; `time_s` (POSIX seconds) where the kind carries a time."""


def is_key_name(name: str) -> bool:
    """Whether `name` may name a key: not empty, no white space, no control characters, no `+`, no lone surrogates."""
    return bool(name) and not any(
        char == "+" or char.isspace() or ord(char) < 0x20 or 0xD800 <= ord(char) <= 0xDFFF for char in name
    )


def parse_note(data: bytes) -> Note:
    """The parts of a note, unverified. Raises MalformedError, also for more than NOTE_BYTES_MAX or SIGNATURES_MAX."""
    if len(data) > NOTE_BYTES_MAX:
        raise MalformedError(f"a note of {len(data)} bytes: at most {NOTE_BYTES_MAX} are read")
    content = decode_text(data, what="the note")
    text, separator, block = content.rpartition("\n\n")
    if not separator:
        raise MalformedError("not a note: no empty line before the signatures")
    lines = split_lines(block)
    if len(lines) > SIGNATURES_MAX:
        raise MalformedError(f"more than {SIGNATURES_MAX} signature lines")
    return Note(text=text + "\n", signatures=tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> Signature:
    """One signature line without its newline."""
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not separator or not is_key_name(name):
        raise MalformedError(f"not a signature line: {clip(line)}")
    blob = decode_base64(encoded)
    if len(blob) <= KEY_ID_BYTES:
        raise MalformedError(f"signature line without a signature: {clip(line)}")
    return Signature(name=name, key_id=blob[:KEY_ID_BYTES], payload=blob[KEY_ID_BYTES:])


def format_signature(signature: Signature) -> str:
    """One signature line with its newline."""
    return f"{_DASH}{signature.name} {encode_base64(signature.key_id + signature.payload)}\n"


def format_note(text: str, signatures: Iterable[Signature]) -> bytes:
    """The bytes of a note."""
    return (text + "\n" + "".join(format_signature(signature) for signature in signatures)).encode()


def open_note(data: bytes, verifiers: Iterable[Verifier]) -> VerifiedNote:
    """Parses and verifies a note.

    Raises MalformedError; SignatureError if no line is of a known key, or if any line of a known key does not verify.
    """
    return verify_note(parse_note(data), verifiers)


def verify_note(note: Note, verifiers: Iterable[Verifier]) -> VerifiedNote:
    """See `open_note`, for a note already parsed."""
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified: dict[tuple[str, bytes], Signature] = {}
    unverified = []
    for signature in note.signatures:
        key = (signature.name, signature.key_id)
        if key in known:
            known[key].verify(note.text, signature.payload)
            verified.setdefault(key, signature)
        else:
            unverified.append(signature)
    if not verified:
        signers = ", ".join(f"{s.name}+{s.key_id.hex()}" for s in note.signatures[:4])
        raise SignatureError(f"no signature by a known key; the note is signed by {signers}", code="unknown-key")
    return VerifiedNote(text=note.text, verified=tuple(verified.values()), unverified=tuple(unverified))


def sign_note(text: str, signers: Sequence[Signer], *, time_s: int) -> bytes:
    """A note over `text` with one line per signer. Raises MalformedError if the text could not be parsed back."""
    signatures = [
        Signature(name=signer.name, key_id=signer.key_id, payload=signer.sign(text, time_s=time_s)) for signer in signers
    ]
    data = format_note(text, signatures)
    if parse_note(data) != Note(text=text, signatures=tuple(signatures)):
        raise MalformedError("this text cannot be a note: it would parse as another one")
    return data
