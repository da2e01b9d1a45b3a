"""`translog policy update`: follows what is signed, proven and witnessed, and nothing else; the file is right or as it was."""

import asyncio
import json
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from client.simulator import Simulator, respond
from core.merkle_oracle import Oracle

from cli.harness import Result, require_plain, run
from cli.test_reading import in_the_background
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import sign_note
from translog.core.policy import parse_policy
from translog.core.proof import Receipt, format_receipt
from translog.events.keychain import Action, Role, sign_key_change

NAME = "log.example/chain"
TIME_S = 1_700_000_000
ED, ML = KeyType.ED25519, KeyType.COSIGNATURE_MLDSA44


def skey(number: int, kind: KeyType = ML, name: str = NAME) -> SKey:
    return SKey(name=name, type=kind, seed=bytes([number]) * 32)


M1, M2, M3, E1, E2 = skey(1), skey(2), skey(3), skey(1, ED), skey(2, ED)
THIEF = skey(66)
WITNESSES = [skey(100 + n, KeyType.COSIGNATURE_ED25519, f"w{n}.example/w") for n in range(3)]
REST = (
    "\n# those who watch\n"
    + "".join(f"witness\tw{n}   {witness.vkey} https://w{n}.example/\n" for n, witness in enumerate(WITNESSES))
    + "group q 2 w0 w1 w2\n# two of three\nquorum q"
)


class ChainLog:
    """A log with every signature as a test wants it. What `lists` are the changes it tells of; `kept` are its checkpoints."""

    def __init__(self, simulator: Simulator, url: str, *keys: SKey) -> None:
        self.simulator = simulator
        self.url = url
        self.keys = list(keys)
        self.entries = [b"an entry", b"another"]
        self.lists: list[tuple[int, bytes]] = []
        self.kept: dict[int, bytes] = {}
        self.publish()
        simulator.answers |= {"v1/keys": self._keys, "v1/checkpoints": self._checkpoints, "checkpoint": self._checkpoint}

    @property
    def size(self) -> int:
        return len(self.entries)

    def publish(self, *signers: SKey, cosigners: Sequence[SKey] = WITNESSES[:2]) -> None:
        """Keeps a checkpoint of now, by default signed by all keys and cosigned by two."""
        root = Oracle(self.entries).mth(0, self.size)
        text = format_checkpoint(Checkpoint(origin=NAME, size=self.size, root=root))
        lines = [KeySigner(key) for key in (*(signers or self.keys), *cosigners)]
        self.kept[self.size] = sign_note(text, lines, time_s=TIME_S)

    def change(self, key: SKey, action: Action = Action.ADD, *, signers: Sequence[SKey] = (), number: int | None = None) -> int:
        """Logs and tells of a change, by default signed by all keys; where it is."""
        entry = sign_key_change(
            role=Role.LOG,
            name=key.name,
            vkey=key.vkey,
            action=action,
            number=len(self.lists) + 1 if number is None else number,
            signers=[KeySigner(signer) for signer in signers or self.keys],
            time_s=TIME_S,
        )
        self.entries.append(entry)
        index = self.size - 1
        self.lists.append((index, entry))
        self.simulator.answers[f"v1/receipts/{index}"] = self._receipt
        if action is Action.ADD:
            self.keys.append(key)
        else:
            self.keys.remove(key)
        return index

    def add(self, key: SKey) -> int:
        index = self.change(key)
        self.publish()
        return index

    def retire(self, key: SKey) -> int:
        index = self.change(key, Action.RETIRE)
        self.publish()
        return index

    def receipt(self, index: int, size: int) -> bytes:
        proof = Oracle(self.entries[:size]).path(index, 0, size)
        return format_receipt(Receipt(index=index, proof=tuple(proof), checkpoint=self.kept[size]))

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        start = int(request.query["start"])
        page = [{"index": index, "entry": b64encode(entry).decode()} for index, entry in self.lists[start : start + 2]]
        keys = [str(key.vkey) for key in self.keys]
        return web.json_response({"keys": keys, "count": len(self.lists), "start": start, "changes": page})

    async def _receipt(self, request: web.Request) -> web.StreamResponse:
        index = int(request.path.rpartition("/")[2])
        first = min((size for size in self.kept if size > index), default=0)
        size = int(request.query.get("size", first))
        return web.Response(body=self.receipt(index, size)) if size in self.kept else web.Response(status=404)

    async def _checkpoints(self, request: web.Request) -> web.StreamResponse:
        start = int(request.query["start"])
        kept = [{"size": size, "note": self.kept[size].decode()} for size in sorted(self.kept) if size >= start][:2]
        lines = [json.dumps(one, separators=(",", ":"), ensure_ascii=False) + "\n" for one in kept]
        return web.Response(body="".join(lines).encode())

    async def _checkpoint(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.kept[max(self.kept)])


@pytest.fixture
def served() -> Iterator[tuple[Simulator, str]]:
    with in_the_background(0) as found:
        yield found


@pytest.fixture
def log(served: tuple[Simulator, str]) -> ChainLog:
    return ChainLog(*served, M1, E1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy"


def write(file: Path, *keys: SKey, url: str = " https://log.example/", rest: str = REST) -> bytes:
    file.write_text("# mine\n" + "".join(f"log {key.vkey}{url}\n" for key in keys) + rest)
    return file.read_bytes()


def update(file: Path, log: ChainLog, *options: object) -> Result:
    return run("policy", "update", file, "--log", log.url, *options)


def listed(file: Path) -> list[SKey]:
    known = {key.vkey: key for key in (M1, M2, M3, E1, E2, THIEF)}
    return [known[item.vkey] for item in parse_policy(file.read_bytes()).logs if item.vkey.name == NAME]


def require_refused(file: Path, log: ChainLog, code: int = 1) -> list[str]:
    """The lines on standard error of an update that changes nothing."""
    before = file.read_bytes()
    lines = require_plain(update(file, log), code)
    assert file.read_bytes() == before
    return lines


def test_the_new_key_takes_the_old_ones_place_and_nothing_else_changes(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    log.retire(M1)
    result = update(file, log)
    assert (result.code, result.err) == (0, "")
    assert file.read_text() == f"# mine\nlog {M2.vkey} https://log.example/\n{REST}"
    m1, m2 = (key.vkey.key_id.hex() for key in (M1, M2))
    assert result.out.splitlines()[:4] == [
        f"OK: {NAME}, {file} is new",
        f"  change 1, entry 2: adds {m2} (ML-DSA-44)",
        f"  change 2, entry 3: retires {m1} (ML-DSA-44)",
        f"  keys listed now: {m2} (ML-DSA-44)",
    ]
    assert "cosigned by w0" in result.out


def test_between_the_two_both_keys_are_listed(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    assert update(file, log).code == 0
    assert file.read_text() == f"# mine\nlog {M1.vkey} https://log.example/\nlog {M2.vkey} https://log.example/\n{REST}"
    log.retire(M1)
    assert update(file, log).code == 0
    assert listed(file) == [M2]


def test_a_policy_that_is_up_to_date_is_not_written_again(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    log.retire(M1)
    assert update(file, log).code == 0
    before = (file.read_bytes(), file.stat().st_ino)
    result = update(file, log)
    assert result.code == 0
    assert result.out.startswith(f"OK: {NAME}, nothing to change\n")
    assert (file.read_bytes(), file.stat().st_ino) == before


def test_many_changes_are_followed_from_any_of_them_on(log: ChainLog, file: Path, tmp_path: Path) -> None:
    steps: list[tuple[Callable[[SKey], int], SKey]] = [
        (log.add, E2),
        (log.retire, E2),
        (log.add, M2),
        (log.retire, M1),
        (log.add, M3),
        (log.retire, M2),
    ]
    policies = []
    for number in range(len(steps) + 1):
        path = tmp_path / str(number)
        write(path, *(listed for listed in log.keys if listed.type is ML))
        policies.append(path)
        if number < len(steps):
            step, key = steps[number]
            step(key)
    for path in policies:
        assert update(path, log).code == 0, path
        assert listed(path) == [M3]


def test_a_classic_policy_stays_one(log: ChainLog, file: Path) -> None:
    write(file, E1)
    log.add(M2)
    log.add(E2)
    log.retire(E1)
    log.retire(M1)
    assert update(file, log).code == 0
    assert listed(file) == [E2]


def test_a_post_quantum_policy_takes_up_no_ed25519_key_and_believes_none(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(E2)
    assert update(file, log).code == 0
    assert listed(file) == [M1]
    log.change(M2, signers=[E1, E2])
    log.publish()
    assert "change 2 of the log's keys does not hold: no signature by a known key" in require_refused(file, log)[0]


def test_a_policy_of_both_types_follows_both(log: ChainLog, file: Path) -> None:
    write(file, M1, E1)
    log.add(M2)
    log.add(E2)
    log.retire(M1)
    assert update(file, log).code == 0
    assert listed(file) == [E1, M2, E2]


def test_other_logs_and_every_other_byte_stay(log: ChainLog, file: Path) -> None:
    other = skey(9, name="log.example/other")
    text = f"\n\t# caf\xe9\nlog  {M1.vkey}\nlog {other.vkey} https://other.example/\xfc\n  \t\n{REST}\n\n"
    file.write_bytes(text.encode("latin-1"))
    log.add(M2)
    log.retire(M1)
    assert update(file, log).code == 0
    assert file.read_bytes() == text.replace(f"log  {M1.vkey}", f"log {M2.vkey}").encode("latin-1")


def test_output_goes_elsewhere_and_json_tells_it_all(log: ChainLog, file: Path, tmp_path: Path) -> None:
    before = write(file, M1)
    log.add(M2)
    result = update(file, log, "-o", tmp_path / "new", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert document["ok"] is document["changed"] is True
    assert document["changes"] == [{"number": 1, "index": 2, "action": "add", "vkey": str(M2.vkey)}]
    assert document["vkeys"] == [str(M1.vkey), str(M2.vkey)]
    assert (document["origin"], document["size"], len(document["cosigned"])) == (NAME, 3, 2)
    assert file.read_bytes() == before
    assert listed(tmp_path / "new") == [M1, M2]
    assert json.loads(update(tmp_path / "new", log, "--json").out)["changed"] is False


# What is not followed


def test_without_witnesses_nothing_is_followed(log: ChainLog, file: Path) -> None:
    write(file, M1, rest="quorum none\n")
    log.add(M2)
    detail, hint = require_refused(file, log)
    assert "asks for no witnesses" in detail
    assert "by another way" in hint


@pytest.mark.parametrize("cosigners", [[], WITNESSES[:1]], ids=["nobody", "one"])
def test_a_change_that_too_few_witnesses_saw_is_not_followed(log: ChainLog, file: Path, cosigners: list[SKey]) -> None:
    write(file, M1)
    log.change(M2)
    log.publish(cosigners=cosigners)
    assert "the policy's quorum 'q' is not reached" in require_refused(file, log)[0]


def test_a_later_checkpoint_with_a_quorum_proves_it_too(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.change(M2)
    for _ in range(3):
        log.publish(cosigners=WITNESSES[:1])
        log.entries.append(b"more")
    log.publish()
    assert update(file, log).code == 0
    assert listed(file) == [M1, M2]


def test_a_checkpoint_signed_by_the_new_key_alone_proves_nothing_of_its_addition(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.change(M2)
    log.publish(M2)
    require_refused(file, log)
    log.publish(M2, E1)
    require_refused(file, log)
    log.publish(M2, M1)
    assert update(file, log).code == 0


def test_a_change_without_its_receipt_is_not_followed(log: ChainLog, file: Path) -> None:
    write(file, M1)
    index = log.add(M2)
    log.simulator.answers[f"v1/receipts/{index}"] = respond(404)
    require_refused(file, log, 3)


def test_a_receipt_of_another_entry_proves_nothing(log: ChainLog, file: Path) -> None:
    write(file, M1)
    index = log.add(M2)
    log.simulator.answers[f"v1/receipts/{index}"] = respond(body=log.receipt(0, log.size))
    assert f"asked for the receipt of entry {index}, got that of 0" in require_refused(file, log)[0]


def test_an_entry_that_is_not_in_the_log_is_not_followed(log: ChainLog, file: Path) -> None:
    write(file, M1)
    index = log.add(M2)
    log.change(M3, signers=[M1], number=1)
    log.lists = [(index, log.lists[1][1])]
    log.keys.remove(M2)
    assert "does not hold" in require_refused(file, log)[0]


def test_changes_that_no_listed_key_signed_are_not_followed(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.change(M2, signers=[THIEF])
    log.publish()
    assert "change 1 of the log's keys does not hold: no signature by a known key" in require_refused(file, log)[0]


def test_a_retired_key_signs_no_more_changes(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    log.retire(M1)
    log.change(THIEF, signers=[M1])
    log.publish()
    assert "change 3 of the log's keys does not hold" in require_refused(file, log)[0]


def test_numbers_are_not_left_out(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.change(M2, number=2)
    log.publish()
    assert "change 2 of the keys of 'log.example/chain' does not follow 0" in require_refused(file, log)[0]


def test_changes_come_in_the_order_of_the_log(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    log.change(M3)
    log.publish()
    (first, one), (second, two) = log.lists
    log.lists = [(second, one), (first, two)]
    require_refused(file, log)


def test_a_log_whose_entries_are_in_another_order_than_its_changes_is_not_followed(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.change(M3, signers=[M1], number=2)
    log.change(M2, signers=[M1], number=1)
    log.publish()
    log.lists.reverse()
    assert "in another order" in require_refused(file, log)[0]


def test_a_log_that_has_no_keys_left_that_the_policy_knows_is_not_followed(log: ChainLog, file: Path) -> None:
    write(file, E1)
    log.retire(E1)
    assert "is the last one" in require_refused(file, log)[0]


def test_keys_that_the_log_never_had_end_it(log: ChainLog, file: Path) -> None:
    write(file, M1, THIEF)
    log.add(M2)
    detail, hint = require_refused(file, log)
    assert "never had all the keys" in detail
    assert "by another way" in hint


def test_another_log_than_the_policys_is_not_followed(log: ChainLog, file: Path) -> None:
    write(file, skey(9, name="log.example/other"))
    assert f"the policy lists no log {NAME!r}" in require_refused(file, log)[0]


def test_what_one_log_tells_does_not_stand_for_another_that_the_policy_lists_there(log: ChainLog, file: Path) -> None:
    other = skey(9, name="log.example/other")
    write(file, M1, url="", rest=f"\nlog {other.vkey} {log.url}/\n{REST}")
    log.add(M2)
    detail, hint = require_refused(file, log)
    assert f"the policy lists no log {NAME!r} at this URL" in detail
    assert "--log" in hint
    write(file, M1, url="", rest=f"\nlog {other.vkey} {log.url}/other\n{REST}")
    assert update(file, log).code == 0


def test_what_somebody_else_writes_meanwhile_is_not_lost(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    theirs = b"quorum none\n"

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(file.write_bytes, theirs)
        return await log._checkpoint(request)

    log.simulator.answers["checkpoint"] = answer
    detail, hint = require_plain(update(file, log), 4)
    assert "changed by somebody else" in detail
    assert "again" in hint
    assert file.read_bytes() == theirs


def test_a_policy_may_come_through_a_pipe(log: ChainLog, file: Path, tmp_path: Path) -> None:
    text = write(file, M1)
    log.add(M2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(text), daemon=True)
    writer.start()
    result = update(pipe, log, "-o", file)
    writer.join(5)
    assert (result.code, listed(file)) == (0, [M1, M2])


def test_the_checkpoint_of_today_must_hold_under_the_new_policy(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    log.retire(M1)
    log.entries.append(b"more")
    log.publish(M1)
    assert "signed" in require_refused(file, log)[0]
    log.publish(M2, cosigners=[])
    assert "quorum" in require_refused(file, log)[0]
    log.publish(M2)
    assert update(file, log).code == 0


def test_the_checkpoint_of_today_must_have_the_changes(log: ChainLog, file: Path) -> None:
    write(file, M1)
    log.add(M2)
    log.simulator.answers["checkpoint"] = respond(body=log.kept[2])
    detail, hint = require_refused(file, log)
    assert "does not cover the changes" in detail
    assert "stays as it is" in hint


def test_a_witness_with_the_bytes_of_a_new_key_is_refused(log: ChainLog, file: Path) -> None:
    witness = SKey(name="w3.example/w", type=ML, seed=M2.seed)
    write(file, M1, rest=REST.replace("\n# those", f"\nwitness w3 {witness.vkey}\n# those"))
    log.add(M2)
    assert "cannot witness itself" in require_refused(file, log)[0]


def test_a_retirement_that_the_log_keeps_to_itself_is_not_seen(log: ChainLog, file: Path) -> None:
    """A limit, and documented: who hears of a stolen key looks whether the file still lists it."""
    write(file, M1)
    log.add(M2)
    log.retire(M1)
    log.lists = log.lists[:1]
    log.keys.append(M1)
    assert update(file, log).code == 0
    assert listed(file) == [M1, M2]


def keys_answer(**members: Any) -> bytes:
    return json.dumps({"keys": [str(M1.vkey)], "count": 0, "start": 0, "changes": []} | members).encode()


CHANGE = {"index": 2, "entry": b64encode(b"x").decode()}
ODD = {
    "not JSON": b"{",
    "a list": b"[]",
    "no keys": keys_answer(keys=[]),
    "keys that are none": keys_answer(keys=["x"]),
    "keys of two names": keys_answer(keys=[str(M1.vkey), str(skey(1, name="log.example/other").vkey)]),
    "a count that is none": keys_answer(count="many"),
    "a count without end": keys_answer(count=float("inf")),
    "more changes than there are": keys_answer(count=0, changes=[CHANGE]),
    "fewer changes than there are": keys_answer(count=5),
    "too many to follow": keys_answer(count=10**9),
    "a change that is none": keys_answer(count=1, changes=[CHANGE]),
    "an index that is none": keys_answer(count=1, changes=[{**CHANGE, "index": -1}]),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_end_in_a_sentence(log: ChainLog, file: Path, name: str) -> None:
    write(file, M1)
    log.simulator.answers["v1/keys"] = respond(body=ODD[name])
    require_refused(file, log, 3)


def test_a_file_that_is_no_policy_and_a_log_that_is_not_there_are_named(log: ChainLog, file: Path) -> None:
    file.write_text("log x\n")
    assert "line 1" in require_refused(file, log, 4)[0]
    write(file, M1)
    log.url = "http://127.0.0.1:9"
    require_refused(file, log, 3)
    assert run("policy", "update", file).code == 2
