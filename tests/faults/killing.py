"""`translog serve` as a process that is used and killed: one life of it, and its moments to die.

Rules: half of the lives run the program as it is, half with a write buffer of 64 kB, so that LevelDB writes and merges tables
under load as well. The moments are drawn from a seed; what the machine does until then is not in the seed's power. Whoever uses
the log meanwhile is of the class below: checkpoints and receipts are always asked for.
"""

import asyncio
import os
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGTERM
from typing import Any

import aiohttp

from faults.observer import TreeObserver

TESTS = Path(__file__).resolve().parent.parent
PROGRAM = ("-m", "translog", "serve")
SMALL_BUFFER = ("-m", "faults.driver", "serve", "65536")
MOMENTS = ("start-up", "after a time", "acknowledgement", "checkpoint", "stop")
PATIENCE_S = 30


def rounds(usual: int) -> int:
    """TRANSLOG_KILL_ROUNDS, or as many as usual."""
    return int(os.environ.get("TRANSLOG_KILL_ROUNDS") or usual)


def drawn() -> Random:
    """What the moments are drawn from: TRANSLOG_SEED, or another seed each time; printed."""
    seed = int(os.environ.get("TRANSLOG_SEED") or Random().getrandbits(32))
    print(f"TRANSLOG_SEED={seed}")  # noqa: T201
    return Random(seed)


def environment(**settings: object) -> dict[str, str]:
    """This process's, with these settings of the log and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("TRANSLOG_")}
    given = {f"TRANSLOG_{name.upper()}": str(value) for name, value in settings.items()}
    return {**kept, **given, "PYTHONPATH": os.pathsep.join((str(TESTS), kept.get("PYTHONPATH", "")))}


class Life:
    """One life of the program, from its start to the kill, and those who use it meanwhile."""

    moments: tuple[str, ...] = MOMENTS

    def __init__(self, observer: TreeObserver, random: Random, number: int, *, users: int, settings: dict[str, object]) -> None:
        """`users` is how many seeds are drawn for those who use it."""
        self.observer = observer
        self.number = number
        self.settings = settings
        self.seeds = [random.getrandbits(64) for _ in range(users + 1)]
        self.moment = self.moments[number] if number < len(self.moments) else random.choice(self.moments)
        self.program = random.choice([PROGRAM, SMALL_BUFFER])
        self.wait_s = random.uniform(0, 0.08 if self.moment == "start-up" else 0.3)
        self.stopping_s = random.uniform(0, 0.05)
        self.countdown = random.randrange(1, 60 if self.moment == "acknowledgement" else 20)
        self.url = ""
        self.now = asyncio.Event()
        self.served = asyncio.Event()

    def __str__(self) -> str:
        return f"round {self.number}: {self.moment}, {self.wait_s:.3f} s, countdown {self.countdown}, {' '.join(self.program)}"

    def users(self, session: aiohttp.ClientSession) -> list[Coroutine[Any, Any, None]]:
        """Those who use the log, until they are cancelled."""
        raise NotImplementedError

    def happened(self, what: str) -> None:
        """Counts down to the moment of the kill."""
        if what == self.moment:
            self.countdown -= 1
            if self.countdown <= 0:
                self.now.set()

    async def run(self, directory: Path) -> None:
        """Starts the program, uses it, kills it."""
        arguments = (*self.program, str(directory), "--listen", "127.0.0.1:0", "--admin-listen", "")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stderr=PIPE, env=environment(**self.settings)
        )
        try:
            async with asyncio.TaskGroup() as group:
                users = group.create_task(self._use())
                said = group.create_task(self._listen(process))
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await self.end(process, directory)
                finally:
                    users.cancel()
                    said.cancel()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def end(self, process: Process, directory: Path) -> None:
        """Kills the program when its moment has come."""
        await self.moment_comes(directory)
        if self.moment == "stop":
            os.kill(process.pid, SIGTERM)
            await asyncio.sleep(self.stopping_s)
        with suppress(ProcessLookupError):
            os.kill(process.pid, SIGKILL)  # `send_signal` would reap one that has just ended, and its code be lost
        code = await process.wait()
        assert code == -SIGKILL or (code == 0 and self.moment == "stop"), f"ended by itself: {code}"

    async def moment_comes(self, directory: Path) -> None:
        """Returns at the moment of the kill."""
        if self.moment == "start-up":
            await asyncio.to_thread(wait_for_change, directory / "log" / "LOG")
        else:
            await self.served.wait()
        if self.moment in ("acknowledgement", "checkpoint"):
            await self.now.wait()
        else:
            await asyncio.sleep(self.wait_s)  # the random moment

    async def _listen(self, process: Process) -> None:
        """Reads what the program says, so that it can go on, and learns where it is served."""
        assert process.stderr is not None
        async for line in process.stderr:
            if found := re.match(rb"serving \S+ on (http://\S+)", line):
                self.url = found[1].decode()
                self.served.set()
            assert not re.search(rb"READ-ONLY|Traceback|critical", line), line

    async def _use(self) -> None:
        await self.served.wait()
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(self.url, timeout=timeout) as session, asyncio.TaskGroup() as group:
            group.create_task(self._poll(session))
            group.create_task(self._collect(session, Random(self.seeds[-1])))
            for user in self.users(session):
                group.create_task(user)

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        last = -1
        while True:
            floor = self.observer.floor
            with suppress(aiohttp.ClientError):
                async with session.get("/checkpoint") as answer:
                    assert answer.status == 200, answer.status
                    size = self.observer.see_checkpoint(await answer.read(), floor=floor)
                if size != last:
                    self.happened("checkpoint")
                last = size
            await asyncio.sleep(0)

    async def _collect(self, session: aiohttp.ClientSession, random: Random) -> None:
        """Fetches receipts of entries that were acknowledged at any time."""
        while True:
            indexes = self.observer.recent(50) if random.random() < 0.5 else self.observer.recent(5_000)
            if indexes:
                index = random.choice(indexes)
                expected = (200,) if index < self.observer.floor else (200, 404)  # what is only durable has none yet
                with suppress(aiohttp.ClientError):
                    async with session.get(f"/v1/receipts/{index}") as answer:
                        assert answer.status in expected, answer.status
                        if answer.status == 200:
                            self.observer.see_receipt(await answer.read(), index=index)
            await asyncio.sleep(0.01)


def wait_for_change(file: Path) -> None:
    """Returns as soon as the file is written, made or replaced: LevelDB writes its LOG as it opens."""

    def written() -> int:
        return file.stat().st_mtime_ns if file.exists() else 0

    before, end = written(), time.monotonic() + PATIENCE_S
    while written() in (before, 0) and time.monotonic() < end:
        time.sleep(0.0005)
