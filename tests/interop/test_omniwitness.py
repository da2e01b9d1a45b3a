"""The omniwitness, a witness by other people, cosigns a log of ours, with a line of each of its two keys.

It answers as tlog-witness says, but for what is listed here. What is listed is the program as it is: a line less is an
improvement. It knows one key of a log, of either type, and says nothing of why it refuses.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from translog.client.witness import RemoteWitness
from translog.core.keys import KeyType
from translog.core.note import parse_note
from translog.errors import OldSizeError, RemoteError

from .witness_programs import Answer, Asker, Litewitness, Omniwitness, free_port
from .witness_situations import SITUATIONS, UNVERIFIABLE, OfferedLog, ask_all, forged_line, known_keys, lines_of
from .witnessed_log import WitnessedLog, verify_with_command

TEXT = "text/plain; charset=utf-8"
COSIGNED = Answer(200, TEXT, b"Ed25519 ML-DSA-44")
MORE = OfferedLog("log.example/more")
SIZES = {"old 0 when it has 3": 3, "old 5 when it has 3": 3, "old 3 to 5 when it has 7": 7}
DEVIATIONS = {
    "19 kB": Answer(400, "", b""),
    "old 3 when it has none": COSIGNED,
    "old above new when it has none": COSIGNED,
    "an unknown log": Answer(500, "", b""),
    "an unknown key": Answer(500, "", b""),
    "a wrong signature": Answer(500, "", b""),
    "a proof from 0": COSIGNED,
    "64 hashes": Answer(422, "", b""),
    "31 bytes of hash": Answer(422, "", b""),
    "a leading zero": COSIGNED,
    "more after the size": COSIGNED,
    "CRLF": COSIGNED,
    "no signatures": Answer(500, "", b""),
    "a checkpoint of two lines": Answer(500, "", b""),
}
UNKNOWN_KEYS = {
    KeyType.ED25519: {
        "only ML-DSA-44": Answer(500, "", b""),
        "a size with a leading zero": Answer(200, TEXT, UNVERIFIABLE),
    },
    KeyType.COSIGNATURE_MLDSA44: {
        "only Ed25519": Answer(500, "", b""),
        "extension lines": Answer(500, "", b""),
        "a size with a leading zero": Answer(500, "", b""),
    },
}
"""By the type of the key that it knows: what comes of it where the other signed."""


@pytest.fixture
def witness(omniwitness_program: Path, tmp_path: Path) -> Omniwitness:
    folder = tmp_path / "omniwitness"
    folder.mkdir()
    return Omniwitness(program=omniwitness_program, folder=folder)


@pytest.fixture
def url(witness: Omniwitness) -> Iterator[str]:
    """The witness running, with one log known to it."""
    witness.know([MORE.skeys[1].vkey])
    with witness.running() as url:
        yield url


@pytest.mark.parametrize("known", UNKNOWN_KEYS)
def test_its_answers_are_the_known_ones(known: KeyType, witness: Omniwitness) -> None:
    witness.know(known_keys(known))
    conflicts = {name: Answer(409, "text/x.tlog.size", b"%d\n" % size) for name, size in SIZES.items()}
    usual = {name: Answer(situation.status, "", b"") for name, situation in SITUATIONS.items()}
    usual |= {name: COSIGNED for name, situation in SITUATIONS.items() if situation.status == 200}
    with witness.running() as url:
        assert ask_all(url, witness.vkeys) == usual | conflicts | DEVIATIONS | UNKNOWN_KEYS[known]


def test_it_serves_no_checkpoints(url: str) -> None:
    with closing(Asker(url)) as asker:
        assert asker.ask("GET", f"{'0' * 64}/checkpoint") == Answer(404, TEXT, b"404 page not found\n")
        assert asker.ask("GET", "add-checkpoint") == Answer(405, TEXT, b"Method Not Allowed\n")


def test_lines_forged_in_its_name_change_nothing(witness: Omniwitness, url: str) -> None:
    with closing(Asker(url)) as asker:
        for old, size in ((0, 3), (3, 7)):
            body = MORE.request(old, size, note=MORE.note(size) + b"".join(map(forged_line, witness.vkeys)))
            assert lines_of(asker.add_checkpoint(body).body, MORE.note(size), witness.vkeys) == b"Ed25519 ML-DSA-44"


async def test_our_client_follows_it_to_the_size_it_has(witness: Omniwitness) -> None:
    witness.know([MORE.skeys[0].vkey])
    with witness.running() as url:
        async with RemoteWitness(url, timeout_ms=5_000) as remote:
            await remote.add_checkpoint(old=0, proof=(), note=MORE.note(3))
    with witness.running() as url:
        async with RemoteWitness(url, timeout_ms=5_000) as remote:
            with pytest.raises(OldSizeError) as caught:
                await remote.add_checkpoint(old=0, proof=(), note=MORE.note(7))
            assert caught.value.size == 3
            lines = await remote.add_checkpoint(old=3, proof=MORE.proof(3, 7), note=MORE.note(7))
            assert await remote.latest(MORE.origin) is None
    assert [line.key_id for line in lines] == [vkey.key_id for vkey in witness.vkeys]


async def test_our_client_tells_whose_turn_it_is(witness: Omniwitness) -> None:
    witness.know([MORE.skeys[0].vkey])
    codes = []
    with witness.running(requests_per_s=1) as url, closing(Asker(url)) as asker:
        async with RemoteWitness(url, timeout_ms=5_000) as remote:
            for _ in range(2):
                with pytest.raises(RemoteError) as caught:
                    await remote.add_checkpoint(old=0, proof=(), note=OfferedLog("unknown.example").note(3))
                codes.append(caught.value.code)
        assert asker.add_checkpoint(b"") == Answer(429, TEXT, b"Too Many Requests\n")
    assert codes == ["witness-failed", "witness-pushback"]


def test_our_log_publishes_what_it_cosigned(witness: Omniwitness, tmp_path: Path) -> None:
    """Known to it by the log's ML-DSA-44 key, with both lines. Either is enough; users of the log ask for the better."""
    log = WitnessedLog(tmp_path, origin="log.example/omni")
    witness.know([log.vkey(KeyType.COSIGNATURE_MLDSA44)])
    port = free_port()
    log.ask_for(_policy_lines(witness, port) + "quorum omni\n")
    with witness.running(port=port):
        with log.served() as served:
            [first, _] = served.append([b"one", b"two"])
        with log.served() as served:
            [third] = served.append([b"three"])
            checkpoint, note, policy = served.checkpoint, parse_note(served.note), served.says["policy"]
    assert first.receipt is not None
    assert third.receipt is not None
    assert [line.key_id for line in note.signatures if line.name == witness.name] == [vkey.key_id for vkey in witness.vkeys]
    assert [item.vkey for item in checkpoint.cosigned] == [witness.vkeys[1]]
    assert verify_with_command(first.receipt, b"one", policy, tmp_path) == 0
    assert verify_with_command(third.receipt, b"one", policy, tmp_path) == 1


def test_our_log_publishes_what_witnesses_of_two_makes_cosigned(
    witness: Omniwitness, litewitness_program: Path, tmp_path: Path
) -> None:
    log = WitnessedLog(tmp_path, origin="log.example/both")
    (tmp_path / "litewitness").mkdir()
    other = Litewitness(program=litewitness_program, folder=tmp_path / "litewitness")
    for program in (witness, other):
        program.know([log.vkey(KeyType.ED25519)])
    port, other_port = free_port(), free_port()
    lines = _policy_lines(witness, port) + f"witness lite {other.vkeys[0]} http://127.0.0.1:{other_port}\n"
    log.ask_for(lines + "group both all omni lite\nquorum both\n")
    with witness.running(port=port), log.served() as served:
        served.append_only(b"one")
        said = served.await_that(lambda said: said["witnessing"]["witnesses"][0]["cosigned_size"] == 1)
        assert said["published_size"] == 0
        with other.running(port=other_port):
            [two] = served.append([b"two"])
            cosigned = [item.vkey for item in served.checkpoint.cosigned]
    assert two.receipt is not None
    assert cosigned == [witness.vkeys[1], *other.vkeys]


def _policy_lines(witness: Omniwitness, port: int) -> str:
    """Its two keys as one witness `omni`."""
    names = ("omni-ed25519", "omni-mldsa44")
    lines = [f"witness {name} {vkey} http://127.0.0.1:{port}\n" for name, vkey in zip(names, witness.vkeys, strict=True)]
    return "".join(lines) + f"group omni any {' '.join(names)}\n"
