"""`translog serve` of a log of events killed with SIGKILL at random moments, while senders send until they are answered.

By hand, for a long run: TRANSLOG_KILL_ROUNDS=1000 pytest tests/faults/test_kill_events.py -k killed -s. Moments, and what is
sent, are drawn from TRANSLOG_SEED, which is printed.

Rules: as in killing.py. A sender keeps what was not answered, over any number of kills, and sends it again byte for byte, also
while it is still under way; in the last life everything is answered. Each round has a member that the log has never heard of,
whose first data key is made as it sends. After a kill the next life is asked for what was acknowledged before; after some, the
stopped store is held whole against what was sent; at the end `translog fsck` checks it too.
"""

import asyncio
import json
import os
import time
from asyncio.subprocess import Process
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGTERM
from typing import Any, NamedTuple

import aiohttp

from faults.event_observer import EventObserver, Item, Kept, Record, SealedRecord, Told
from faults.killing import MOMENTS, Life, drawn, rounds, wait_for_change
from faults.observer import log_policies, verify_directory
from translog.bootstrap import create_log
from translog.core.proof import Receipt, format_receipt
from translog.core.wire import decode_base64, encode_base64
from translog.events.seal import seal
from translog.log.events import open_event
from translog.log.keyfiles import KEK_FILE, read_secret
from translog.log.vault import FileKeyWrapper, Vault
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile, StreamName

ORIGIN = "log.example/killed"
ROUNDS = rounds(9)
REQUESTS_MAX = 25
"""By one sender in one round: bounds how large the log grows."""
READ_BACK = 100
"""Events that each life is asked for when it begins."""
SETTINGS: dict[str, object] = {"server__intake__blob_bytes_min": 1_024}
VAULT = "vault key"
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}


class Request(NamedTuple):
    """What is sent, and sent again."""

    target: str
    headers: dict[str, str]
    body: bytes
    items: tuple[Item, ...]


class Sender:
    """Makes requests, one after the other; keeps each until all of it was acknowledged."""

    def __init__(self, member: str, stream: str, name: str) -> None:
        self.stream = StreamName(member, stream)
        self.name = name
        self.open: Request | None = None
        self.requests = 0

    def request(self, random: Random) -> Request:
        """The one that was not answered, or a new one."""
        if self.open is None:
            self.requests += 1
            self.open = self.make(random)
        return self.open

    def make(self, random: Random) -> Request:
        raise NotImplementedError

    def acknowledged(self) -> None:
        self.open = None

    @property
    def is_new(self) -> bool:
        """Nothing of it was ever acknowledged."""
        return self.requests == 1 and self.open is not None


class Short(Sender):
    """Posts to /v1/events. Some ids come twice: with the same content, and with other content."""

    def __init__(self, member: str, stream: str, name: str) -> None:
        super().__init__(member, stream, name)
        self.numbers = count()
        self.old: list[Record] = []

    def make(self, random: Random) -> Request:
        records = [self._record(random) for _ in range(random.choice([1, 1, 1, 2, 5, 30]))]
        self.old = [*self.old, *records][-200:]
        raws = [record.raw for record in records]
        if random.random() < 0.5:
            body, headers = "\n".join(raws), NDJSON
        else:
            body, headers = f"[{', '.join(raws)}]", JSON
        return Request("/v1/events", {**headers, "Translog-Stream": self.stream.stream}, body.encode(), tuple(records))

    def _record(self, random: Random) -> Record:
        if self.old and random.random() < 0.05:
            return random.choice(self.old)
        uid = f"{self.name}-{next(self.numbers)}"
        if self.old and random.random() < 0.1:
            uid = random.choice(self.old).uid
        note = "x" * random.choice([0, 10, 3_000]) + str(random.getrandbits(64))
        raw = json.dumps(
            {"id": uid, "actor": self.name, "action": "door.open", "note": note, "größe": 1.50}, ensure_ascii=False
        )
        return Record(self.stream, uid, raw)


class CloudTrail(Sender):
    """Delivers to /v1/sources/cloudtrail."""

    def make(self, random: Random) -> Request:
        records = [self._record(n, random) for n in range(random.choice([1, 3, 40]))]
        body = f'{{"Records":[{",".join(record.raw for record in records)}]}}'
        return Request(f"/v1/sources/cloudtrail/{self.stream.stream}", JSON, body.encode(), tuple(records))

    def _record(self, number: int, random: Random) -> Record:
        uid = f"{self.name}-{self.requests}-{number}"
        record = {
            "eventVersion": "1.08",
            "eventID": uid,
            "eventTime": "2026-01-02T03:04:05Z",
            "eventSource": "s3.amazonaws.com",
            "eventName": random.choice(["GetObject", "PutObject"]),
            "userIdentity": {"type": "IAMUser", "userName": self.name},
            "requestParameters": {"key": "k" * random.choice([1, 2_000])},
        }
        return Record(self.stream, uid, json.dumps(record, separators=(", ", ":")))


class Agent(Sender):
    """Seals and numbers by itself, and posts to /v1/streams; a batch may begin with what was acknowledged before."""

    def __init__(self, member: str, stream: str, name: str) -> None:
        super().__init__(member, stream, name)
        self.all: list[tuple[SealedRecord, dict[str, Any]]] = []

    def make(self, random: Random) -> Request:
        first = max(0, len(self.all) - random.choice([0, 0, 0, 1, 4]))
        self.all += [self._sealed(len(self.all) + n, random) for n in range(random.choice([1, 1, 3, 20]))]
        sent = self.all[first:]
        lines = [{"first_seq": first}, *(line for _, line in sent)]
        body = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        return Request(f"/v1/streams/{self.stream.stream}", NDJSON, body.encode(), tuple(item for item, _ in sent))

    def _sealed(self, seq: int, random: Random) -> tuple[SealedRecord, dict[str, Any]]:
        member, stream = self.stream
        seed = random.randbytes(32)
        event = {"metadata": {"uid": str(seq)}, "time": seq, "message": "größe" * random.choice([1, 500])}
        sealed = seal(event, origin=ORIGIN, member=member, stream=stream, seed=seed)
        line: dict[str, Any] = {"root": encode_base64(sealed.root)}
        match random.choice(["whole", "whole", "record", "bare"]):
            case "whole":
                line |= {"seed": encode_base64(seed), "texts": [text.decode() for text in sealed.texts]}
                return SealedRecord(self.stream, seq, sealed.root, sealed.texts, None), line
            case "record":
                record = b"\x02" + random.randbytes(40)
                line |= {"record": encode_base64(record)}
                return SealedRecord(self.stream, seq, sealed.root, (), record), line
            case _:
                return SealedRecord(self.stream, seq, sealed.root, (), None), line


def senders() -> list[Sender]:
    """Two that share a stream, and others."""
    return [
        Short("acme", "web", "alice"),
        Short("acme", "web", "bob"),
        Short("beta", "web", "carol"),
        CloudTrail("acme", "trail", "dora"),
        CloudTrail("acme", "trail", "emil"),
        Agent("acme", "agent-1", "fred"),
        Agent("acme", "agent-2", "gina"),
        Agent("beta", "agent-1", "hans"),
    ]


def newcomer(number: int) -> Sender:
    """A member that nobody was before."""
    return [Short, CloudTrail, Agent][number % 3](f"new-{number}", "first", f"new-{number}")


def token(member: str) -> str:
    return f"{member}-token"


def create(directory: Path, *, members: Sequence[str]) -> EventObserver:
    """A log that these members may write to; the first of them reads everything."""
    observer = EventObserver(log_policies(create_log(directory, origin=ORIGIN, profile=Profile.EVENTS)), origin=ORIGIN)
    with (directory / "translog.toml").open("a") as file:
        for member in members:
            digest = sha256(token(member).encode()).hexdigest()
            reads = "all" if member == members[0] else "none"
            file.write(f'[[members]]\nname = "{member}"\ntoken_sha256 = "{digest}"\nstreams = ["*"]\nreads = "{reads}"\n')
    return observer


class Round(Life):
    """Everybody sends, and a newcomer first of all."""

    moments: tuple[str, ...] = (*MOMENTS, VAULT)
    observer: EventObserver

    def __init__(self, observer: EventObserver, random: Random, number: int, users: list[Sender]) -> None:
        super().__init__(observer, random, number, users=len(users), settings=SETTINGS)
        self.senders = list(users)
        self.requests_max = REQUESTS_MAX
        if self.moment == VAULT:
            self.wait_s = random.choice([0, random.uniform(0, 0.004)])

    def users(self, session: aiohttp.ClientSession) -> list[Coroutine[Any, Any, None]]:
        writing = [self._write(session, sender, Random(seed)) for sender, seed in zip(self.senders, self.seeds, strict=False)]
        return [self._read_back(session), *writing]

    async def end(self, process: Process, directory: Path) -> None:
        if self.moment == VAULT:
            await asyncio.to_thread(self._kill_at_change, directory / "vault", process.pid)
        await super().end(process, directory)

    def _kill_at_change(self, vault: Path, pid: int) -> None:
        """At once, or very soon: the key is used within milliseconds."""
        wait_for_change(vault)
        time.sleep(self.wait_s)
        os.kill(pid, SIGKILL)

    async def moment_comes(self, directory: Path) -> None:
        if self.moment != VAULT:
            await super().moment_comes(directory)

    async def _read_back(self, session: aiohttp.ClientSession) -> None:
        """What was acknowledged last, before the kill."""
        headers = {"Authorization": f"Bearer {token('acme')}"}
        for index in self.observer.recent(READ_BACK):
            expected = (200,) if index < self.observer.floor else (200, 404)
            with suppress(aiohttp.ClientError):
                async with session.get(f"/v1/events/{index}", headers=headers) as answer:
                    assert answer.status in expected, await answer.text()
                    if answer.status == 200:
                        self.observer.see_event(index, (await answer.json())["event"])

    async def _write(self, session: aiohttp.ClientSession, sender: Sender, random: Random) -> None:
        for _ in range(self.requests_max):
            request = sender.request(random)
            for item in request.items:
                self.observer.send(item)
            posts = [self._post(session, sender, request, random) for _ in range(2 if random.random() < 0.15 else 1)]
            if all(await asyncio.gather(*posts)):
                sender.acknowledged()
                self.happened("acknowledgement")
            else:
                await asyncio.sleep(0.01)

    async def _post(self, session: aiohttp.ClientSession, sender: Sender, request: Request, random: Random) -> bool:
        """Whether all of the request was acknowledged."""
        ack, receipts = random.choice(["durable", "published"]), random.choice(["index", "full"])
        headers = {**request.headers, "Authorization": f"Bearer {token(sender.stream.member)}"}
        target = f"{request.target}?ack={ack}&receipts={receipts}"
        try:
            async with session.post(target, data=request.body, headers=headers) as answer:
                said: Any = await answer.json(content_type=None)
        except aiohttp.ClientError:
            return False
        if answer.status == 503:
            assert said["code"] in ("outcome-unknown", "not-open", "pool-full"), said
            return False
        assert answer.status in (200, 202), said
        self._take(request.items, said, published=answer.status == 200 and ack == "published")
        return True

    def _take(self, items: Sequence[Item], said: dict[str, Any], *, published: bool) -> None:
        assert said["count"] == len(said["results"]) == len(items)
        for item, result in zip(items, said["results"], strict=True):
            assert result["error"] is None, result
            told = Told(**{name: result[name] for name in ("index", "seq", "duplicate", "conflicts_with")})
            self.observer.acknowledge(item, told)
        if published:
            self.observer.published(max(result["index"] for result in said["results"]) + 1)
        if said["checkpoint"] is not None:
            note = said["checkpoint"].encode()
            self.observer.see_checkpoint(note)
            for result in said["results"]:
                if result["proof"] is not None:
                    proof = tuple(map(decode_base64, result["proof"]))
                    receipt = Receipt(index=result["index"], proof=proof, checkpoint=note)
                    self.observer.see_receipt(format_receipt(receipt), index=result["index"])


class LastRound(Round):
    """Ends in peace, once everything was acknowledged."""

    moments = ("never",)

    async def end(self, process: Process, directory: Path) -> None:
        while any(sender.open is not None for sender in self.senders):  # noqa: ASYNC110  senders know nothing of events
            await asyncio.sleep(0.01)
        os.kill(process.pid, SIGTERM)
        assert await process.wait() == 0

    async def _write(self, session: aiohttp.ClientSession, sender: Sender, random: Random) -> None:
        self.requests_max = 1
        while sender.open is not None:
            await super()._write(session, sender, random)


def settle(directory: Path, observer: EventObserver) -> None:
    """Reads the stopped log, all of it, as its own reader of events does, and holds it against what was seen."""
    wrapper = FileKeyWrapper(read_secret(directory / "keys" / KEK_FILE), origin=ORIGIN, random_bytes=os.urandom)
    vault = Vault.open(directory / "vault", wrapper=wrapper, random_bytes=os.urandom, now_ms=lambda: 0)
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            state = store.read_state()
            entries = store.read_entries(start=0, end=state.size)
            observer.settle_all(entries, state)
            observer.settle_events(list(_kept(store, state.size, vault)))
        finally:
            store.close()


def _kept(store: LevelDBStore, size: int, vault: Vault) -> Iterator[Kept]:
    for index in range(size):
        opened = open_event(store, index, origin=ORIGIN, vault=vault)
        texts = tuple(text for text in opened.texts if text is not None)
        (row,) = store.read_payloads([index])
        assert row is not None
        yield Kept(event=opened.event, texts=texts, record=None if texts else row.record)


async def live(directory: Path, observer: EventObserver, random: Random, *, rounds: int) -> None:
    """So many rounds, and a last one."""
    users = senders()
    keys = 0
    for number in range(rounds):
        first = newcomer(number)
        life = Round(observer, random, number, [first, *users])
        print(life)  # noqa: T201
        await life.run(directory)
        if random.random() < 0.3:
            settle(directory, observer)
        keys += first.is_new and f'"member":"{first.stream.member}"' in (directory / "vault" / "keys.json").read_text()
        if first.open is not None:
            users.append(first)
        users = [user for user in users if user.open is not None or not user.name.startswith("new-")]
    await LastRound(observer, random, 0, users).run(directory)
    print(f"{keys} times there was a member's first key, and nothing acknowledged under it")  # noqa: T201


async def test_a_log_of_events_that_is_killed_again_and_again_keeps_every_event_once(tmp_path: Path) -> None:
    random, directory = drawn(), tmp_path / "log"
    members = ["acme", "beta", *(f"new-{number}" for number in range(ROUNDS))]
    observer = create(directory, members=members)
    await live(directory, observer, random, rounds=ROUNDS)
    settle(directory, observer)
    observer.require_complete()
    assert verify_directory(directory) == observer.size
    print(  # noqa: T201
        f"{observer.size} entries, {observer.acknowledgements} acknowledgements, {observer.duplicates} of duplicates, "
        f"{observer.conflicts} of conflicts, {observer.checkpoints} checkpoints, {observer.receipts} receipts"
    )
    assert observer.acknowledgements > 10 * ROUNDS
    assert observer.duplicates
    assert observer.conflicts
    assert observer.checkpoints > ROUNDS
    assert observer.receipts
