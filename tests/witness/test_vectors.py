"""Requests of others' tests, with the answers they expect: filippo.io/torchwood, cmd/litewitness/testdata (BSD-3-Clause).

The log's tree has made-up leaf hashes; its checkpoints are signed by a Sigsum key, with the proofs between them. One answer is
another here: their forged signature is base64 with bits left over, which we take for malformed before we look whose it is.
"""

from pathlib import Path

import pytest

from translog.core.keys import KeyType, VKey, parse_vkey
from translog.core.wire import encode_base64
from translog.errors import ConsistencyError, MalformedError, NotFoundError, OldSizeError, SignatureError, TranslogError
from translog.witness.loglist import KnownLog
from witness.made_log import make_witness, require_cosigned

ORIGIN = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
KEY = "ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f"
ROOT_3, ROOT_5 = "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=", "QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY="
SIGNED_1 = "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY="
SIGNED_3 = "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go="
SIGNED_5 = "UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww="


def leaf(number: int) -> str:
    """The hash in base64: what looks like one in the requests."""
    return encode_base64(bytes([42, number]) + bytes(30))


def note(size: int, root: str, signed: str, *, origin: str = ORIGIN) -> str:
    return f"{origin}\n{size}\n{root}\n\n\u2014 {origin} {signed}\n"


FROM_1_TO_3 = f"old 1\n{leaf(1)}\n{leaf(2)}\n\n"
OTHER = ORIGIN[:-1] + "3"
SEQUENCE: list[tuple[str, type[TranslogError] | None, int]] = [
    ("old 0\n\n" + note(1, leaf(0), SIGNED_1), None, 1),
    (FROM_1_TO_3 + note(3, ROOT_3, SIGNED_3.replace("6go=", "6gx=")), MalformedError, 1),
    (FROM_1_TO_3 + note(3, ROOT_3, SIGNED_3.replace("6go=", "6gw=")), SignatureError, 1),
    (FROM_1_TO_3 + note(3, ROOT_3, SIGNED_3, origin=OTHER), NotFoundError, 1),
    ("old 1\n\n" + note(3, ROOT_3, SIGNED_3), ConsistencyError, 1),
    (FROM_1_TO_3.replace("AAA=\n\n", "ABA=\n\n") + note(3, ROOT_3, SIGNED_3), ConsistencyError, 1),
    (FROM_1_TO_3 + note(3, ROOT_3, SIGNED_3), None, 3),
    (
        f"old 1\n{leaf(1)}\n+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=\n{leaf(4)}\n\n" + note(5, ROOT_5, SIGNED_5),
        OldSizeError,
        3,
    ),
    (
        f"old 3\n{leaf(2)}\n{leaf(3)}\nwgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE=\n{leaf(4)}\n\n" + note(5, ROOT_5, SIGNED_5),
        None,
        5,
    ),
    ("old 0\n\n" + note(5, ROOT_5, SIGNED_5), OldSizeError, 5),
]


def test_the_sequence_of_litewitness(tmp_path: Path) -> None:
    vkey = VKey(name=ORIGIN, type=KeyType.ED25519, public_key=bytes.fromhex(KEY))
    witness = make_witness(tmp_path / "state")
    witness.add_log(KnownLog(origin=ORIGIN, vkeys=(vkey,)))
    for body, error, size in SEQUENCE:
        if error is None:
            require_cosigned(body.partition("\n\n")[2].encode(), witness.add_checkpoint(body.encode()))
        else:
            with pytest.raises(error) as raised:
                witness.add_checkpoint(body.encode())
            assert type(raised.value) is error
            assert getattr(raised.value, "size", size) == size
        stored = witness.store.find_cosigned(ORIGIN)
        assert stored is not None
        assert stored.size == size
    witness.store.close()


def test_the_checksum_databases_tree_is_cosigned(tmp_path: Path) -> None:
    vkey = parse_vkey("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    witness = make_witness(tmp_path / "state")
    witness.add_log(KnownLog(origin="go.sum database tree", vkeys=(vkey,)))
    body = (
        "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n"
        "\u2014 sum.golang.org Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n"
    ).encode()
    require_cosigned(body, witness.add_checkpoint(b"old 0\n\n" + body))
    witness.store.close()
