"""litewitness, a witness by other people, cosigns a log of ours. It answers as tlog-witness says, but for what is listed here.

What is listed is the program as it is: a line less is an improvement. It knows logs by Ed25519 keys only.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from translog.client.witness import RemoteWitness
from translog.core.keys import KeyType
from translog.core.policy import parse_policy
from translog.errors import OldSizeError, RemoteError

from .witness_programs import Answer, Asker, Litewitness, free_port
from .witness_situations import SITUATIONS, OfferedLog, ask_all, forged_line, known_keys, lines_of
from .witnessed_log import WitnessedLog, verify_with_command

TEXT = "text/plain; charset=utf-8"
COSIGNED = Answer(200, TEXT, b"Ed25519")
MORE = OfferedLog("log.example/more")
USUAL = {
    200: COSIGNED,
    400: Answer(400, TEXT, b"invalid input\n"),
    403: Answer(403, TEXT, b"invalid signature\n"),
    404: Answer(404, TEXT, b"unknown log\n"),
    422: Answer(422, TEXT, b"bad consistency proof\n"),
}
TOO_LARGE = Answer(500, TEXT, b"http: request body too large\n")
SIZES = {"old 0 when it has 3": 3, "old 5 when it has 3": 3, "old 3 when it has none": 0, "old 3 to 5 when it has 7": 7}
DEVIATIONS = {
    "only ML-DSA-44": USUAL[403],  # it cannot have been told of the key
    "12 kB": TOO_LARGE,
    "19 kB": TOO_LARGE,
    "a proof from 0": COSIGNED,
    "a proof from 0 after an empty tree": COSIGNED,
    "an empty tree with a root": COSIGNED,
    "a leading zero": COSIGNED,
    "a sign": COSIGNED,
    "no signatures": Answer(500, TEXT, b"malformed note\n"),
    "a checkpoint of two lines": Answer(500, TEXT, b"malformed checkpoint\n"),
    "a size with a leading zero": Answer(500, TEXT, b"malformed checkpoint\n"),
}


@pytest.fixture
def witness(litewitness_program: Path, tmp_path: Path) -> Litewitness:
    folder = tmp_path / "litewitness"
    folder.mkdir()
    return Litewitness(program=litewitness_program, folder=folder)


@pytest.fixture(scope="module")
def url(litewitness_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that is running, and knows the logs of all situations and one more."""
    witness = Litewitness(program=litewitness_program, folder=tmp_path_factory.mktemp("litewitness"))
    witness.know([*known_keys(KeyType.ED25519), MORE.skeys[0].vkey])
    with witness.running() as url:
        yield url


def test_its_answers_are_the_known_ones(witness: Litewitness, url: str) -> None:
    conflicts = {name: Answer(409, "text/x.tlog.size", b"%d\n" % size) for name, size in SIZES.items()}
    usual = {name: USUAL[situation.status] for name, situation in SITUATIONS.items() if situation.status != 409}
    assert ask_all(url, witness.vkeys) == usual | conflicts | DEVIATIONS


def test_it_serves_no_checkpoints(url: str) -> None:
    with closing(Asker(url)) as asker:
        assert asker.ask("GET", f"{'0' * 64}/checkpoint") == Answer(404, TEXT, b"404 page not found\n")
        assert asker.ask("GET", "add-checkpoint") == Answer(405, TEXT, b"Method Not Allowed\n")


def test_a_line_forged_in_its_name_changes_nothing(witness: Litewitness, url: str) -> None:
    with closing(Asker(url)) as asker:
        for old, size in ((0, 3), (3, 7)):
            body = MORE.request(old, size, note=MORE.note(size) + forged_line(witness.vkeys[0]))
            assert lines_of(asker.add_checkpoint(body).body, MORE.note(size), witness.vkeys) == b"Ed25519"


async def test_our_client_follows_it_to_the_size_it_has(witness: Litewitness) -> None:
    log = OfferedLog("log.example/client")
    witness.know([log.skeys[0].vkey])
    port = free_port()
    with witness.running(port=port) as url:
        async with RemoteWitness(url, timeout_ms=5_000) as remote:
            [line] = await remote.add_checkpoint(old=0, proof=(), note=log.note(3))
    with witness.running(port=port) as url:
        async with RemoteWitness(url, timeout_ms=5_000) as remote:
            with pytest.raises(OldSizeError) as caught:
                await remote.add_checkpoint(old=0, proof=(), note=log.note(7))
            assert caught.value.size == 3
            [again] = await remote.add_checkpoint(old=3, proof=log.proof(3, 7), note=log.note(7))
            assert await remote.latest(log.origin) is None
    assert line.key_id == again.key_id == witness.vkeys[0].key_id


async def test_our_client_tells_whose_turn_it_is(url: str) -> None:
    codes = {}
    async with RemoteWitness(url, timeout_ms=5_000) as remote:
        unknown = OfferedLog("unknown.example")
        other = MORE.note(3, skeys=[MORE.skey(KeyType.ED25519, 1)])
        large = MORE.note(3) + 80 * forged_line(unknown.skeys[0].vkey)
        for name, note in (("log", unknown.note(3)), ("key", other), ("size", large)):
            with pytest.raises(RemoteError) as caught:
                await remote.add_checkpoint(old=0, proof=(), note=note)
            codes[name] = caught.value.code
    assert codes == {"log": "witness-unknown-log", "key": "witness-refused", "size": "witness-failed"}


def test_our_log_publishes_what_it_cosigned(witness: Litewitness, tmp_path: Path) -> None:
    """Nothing is published while it is away; once it is back it is behind what the log, started anew, takes it for."""
    log = WitnessedLog(tmp_path, origin="log.example/lite")
    witness.know([log.vkey(KeyType.ED25519)])
    port = free_port()
    [vkey] = witness.vkeys
    log.ask_for(f"witness lite {vkey} http://127.0.0.1:{port}\nquorum lite\n")
    with log.served() as served:
        with witness.running(port=port):
            [first, _] = served.append([b"one", b"two"])
            assert [item.vkey for item in served.checkpoint.cosigned] == [vkey]
            policy = served.says["policy"]
            assert {found.vkey for found in parse_policy(policy.encode()).witnesses.values()} == {vkey}
        served.append_only(b"three")
        said = served.await_that(lambda said: said["witnessing"]["unwitnessed_since_ms"] is not None)
        assert (said["published_size"], said["integrated_size"]) == (2, 3)
    with log.served() as served:
        assert served.says["published_size"] == 2
        with witness.running(port=port):
            served.await_that(lambda said: said["published_size"] == 3)
            assert [item.vkey for item in served.checkpoint.cosigned] == [vkey]
            [fourth] = served.append([b"four"])
    assert first.receipt is not None
    assert fourth.receipt is not None
    assert verify_with_command(first.receipt, b"one", policy, tmp_path) == 0
    assert verify_with_command(fourth.receipt, b"four", policy, tmp_path) == 0
    assert verify_with_command(fourth.receipt, b"five", policy, tmp_path) == 1


def test_an_older_copy_of_our_log_is_found_out(witness: Litewitness, tmp_path: Path) -> None:
    log = WitnessedLog(tmp_path, origin="log.example/lite")
    witness.know([log.vkey(KeyType.ED25519)])
    port = free_port()
    log.ask_for(f"witness lite {witness.vkeys[0]} http://127.0.0.1:{port}\nquorum lite\n")
    with witness.running(port=port):
        with log.served() as served:
            served.append([b"one"])
        shutil.copytree(log.directory, tmp_path / "older")
        with log.served() as served:
            served.append([b"two", b"three"])
        shutil.rmtree(log.directory)
        shutil.copytree(tmp_path / "older", log.directory)
        with log.served() as served:
            said = served.await_that(lambda said: said["witnessing"]["witnesses"][0]["ahead"] is not None)
    assert said["witnessing"]["witnesses"][0]["ahead"] == 3
    assert said["published_size"] == 1
