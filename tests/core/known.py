"""Known answers, and every small change of a good value.

LOG, WITNESS and CHECKPOINT are of our own making: seeds are the bytes 00..1f and 20..3f, the tree has the one entry `hello`,
the time is 1700000000. SPEC_* is the example of https://c2sp.org/signed-note; PETER_* and ENOCH_* are of
golang.org/x/mod/sumdb/note, note_test.go (BSD-3-Clause).
"""

import itertools
from collections.abc import Iterator

from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey, parse_vkey

TIME = 1_700_000_000
LOG_VKEY = "example.com/log+d455c521+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
WITNESS_VKEY = "example.com/witness+098ef77f+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"
LOG = SKey(name="example.com/log", type=KeyType.ED25519, seed=bytes(range(32)))
WITNESS = SKey(name="example.com/witness", type=KeyType.COSIGNATURE_ED25519, seed=bytes(range(32, 64)))
LOG_MLDSA = SKey(name="example.com/log", type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(range(64, 96)))
WITNESS_MLDSA = SKey(name="example.com/witness", type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(range(32)))
LEAF = b"hello"
TEXT = "example.com/log\n1\niipcm3aIJ95alVLDigRMZpWcaPbS8htSYK9U0vh9uCc=\n"
LOG_LINE = (
    "\u2014 example.com/log 1FXFIeo95mfFlSjutprtqzdb94Rd7e6645LnC2HWsQ0LoAFsPgRFgJmcZRk1fgp59iqhQFldqgE2Ze3UEGQY3lIDfww=\n"
)
WITNESS_LINE = (
    "\u2014 example.com/witness "
    "CY73fwAAAABlU/EAYHYcA6wpnZ7fZBFWABe2IDOVesXYAq84XoFyeffDRxVoNucZyxMEVzWRgcFt6P1xPN8cRthFTo+yQyRtk8lBBg==\n"
)
CHECKPOINT = (TEXT + "\n" + LOG_LINE + WITNESS_LINE).encode()

SPEC_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_VKEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"


def verifier(vkey: str) -> KeyVerifier:
    return KeyVerifier(parse_vkey(vkey))


def signer(skey: SKey) -> KeySigner:
    return KeySigner(skey)


def substrings(good: bytes) -> Iterator[bytes]:
    """Every substring of `good` but itself."""
    ends = itertools.combinations(range(len(good) + 1), 2)
    return (good[i:j] for i, j in ends if (i, j) != (0, len(good)))


def changes(good: bytes) -> Iterator[bytes]:
    """Every change of one byte of `good` to any other value."""
    for at, old in enumerate(good):
        for new in range(256):
            if new != old:
                yield good[:at] + bytes([new]) + good[at + 1 :]


def text_changes(good: str) -> Iterator[str]:
    """The same for formats read as text: every substring, and every character changed to each of the first 256."""
    ends = itertools.combinations(range(len(good) + 1), 2)
    yield from (good[i:j] for i, j in ends if (i, j) != (0, len(good)))
    yield from (
        good[:at] + chr(new) + good[at + 1 :]
        for at in range(len(good))
        for new in (*range(256), 0x2028)
        if chr(new) != good[at]
    )
