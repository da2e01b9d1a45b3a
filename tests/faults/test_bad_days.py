"""The bad days of specs/worst-day.md, on real `translog serve` processes; then the whole log verified.

Every answer the log gave is on record (machine.py), and what it acknowledged must be there at the end. The clock is the one
thing a process cannot be given its own of: those tests run the server in this process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import count, pairwise
from pathlib import Path

import pytest
from client.serving import served
from log.harness import FakeClock, until, until_published
from structlog.testing import capture_logs

from faults.machine import (
    READS_FAIL,
    Log,
    Record,
    Server,
    command,
    create,
    environment,
    mounted,
    refusal,
    serving,
    unavailable,
    verify_log,
    wait_for,
)
from translog.bootstrap import LogServer
from translog.config import read_settings
from translog.core.policy import verify_checkpoint
from translog.errors import CorruptionError, PushbackError
from translog.log.lifecycle import LogService, Mode
from translog.storage.leveldb import WRITE_BUFFER_BYTES, LevelDBStore
from translog.storage.lock import DirectoryLock

_numbers = count()
IDLE_SIGN_MS = 1_000
"""The shortest the settings allow."""


def entry(size: int = 0) -> bytes:
    """An entry like no other, of at least `size` bytes, which no compression makes smaller."""
    return b"entry %d " % next(_numbers) + os.urandom(size)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return create(tmp_path / "log")


def grow(server: Server, batches: int, *, size: int = 0) -> None:
    """Appends that must be taken."""
    for _ in range(batches):
        assert server.append(entry(size), entry(size)) == ""
    server.checkpoint()


def finish(server: Server, entries: int | None = None) -> None:
    """The log takes another entry, ends when asked to, and is whole."""
    wait_for(lambda: server.append(entry()) == "", "an append that is taken")
    server.checkpoint()
    assert server.end() == 0
    found = verify_log(server.log)
    assert entries is None or len(found) == entries


@contextmanager
def senders(server: Server, number: int, *, size: int = 0) -> Iterator[Callable[[], int]]:
    """Threads that append one entry after the other until the end of the block. Yields how many appends were answered."""
    stop = threading.Event()
    answered = [0] * number

    def send(n: int) -> None:
        while not stop.is_set():
            code = server.append(entry(size), ack=("durable", "published")[n % 2])
            answered[n] += 1
            if code:
                stop.wait(0.02)  # a sender that is refused does not spin

    threads = [threading.Thread(target=send, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(answered)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def failures_said(server: Server) -> int:
    """How often the log said that it has to be opened anew."""
    return sum("a write failed, opening the log anew" in line for line in list(server.said))


def require_shut_but_visible(server: Server) -> None:
    """A log whose store does not take writes: honest to senders (the record checks that), and its checkpoint is there."""
    assert server.append(entry()) in ("not-open", "outcome-unknown")
    server.checkpoint()
    answer = server.get("/v1/entries?start=0&end=2")
    assert answer.status == 200 or (answer.status == 503 and answer.code in READS_FAIL and answer.retry_after), answer
    assert json.loads(server.get("/readyz", admin=True).body)["status"] in ("open", "reopening")
    assert server.get("/healthz").status == 200


class TestDisk:
    """worst-day.md, "The disk is full", and its relatives."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Log]:
        """A log on 48 MB of its own, 40 of them taken by somebody else: coming up takes as much room as the write-ahead log
        has, so less than half may be the log's."""
        path = tmp_path / "small"
        with mounted(path, "-t", "tmpfs", "-o", "size=48m", "tmpfs"):
            log = create(path)
            (path / "ballast").write_bytes(bytes(40_000_000))
            yield log

    @pytest.fixture
    def block(self, tmp_path: Path) -> Iterator[Log]:
        """A log on an ext4 of its own."""
        image, path = tmp_path / "image", tmp_path / "block"
        image.write_bytes(b"")
        os.truncate(image, 64_000_000)
        if shutil.which("mkfs.ext4") is None:
            unavailable("there is no mkfs.ext4")
        command("mkfs.ext4", "-q", "-F", image)
        with mounted(path, "-o", "loop,errors=remount-ro", image):
            yield create(path / "log")

    def test_that_fills_up_under_load_loses_nothing_and_the_process_goes_on_when_there_is_room(self, small: Log) -> None:
        with serving(small, log__reopen_wait_ms=20, log__retry_after_ms=1) as server:
            grow(server, 3)
            with senders(server, 4, size=50_000):
                wait_for(lambda: failures_said(server) >= 4, "failed attempts to open the log on a full disk")
                for _ in range(5):
                    require_shut_but_visible(server)
                before = server.size()
                (small.directory / "ballast").unlink()
                wait_for(lambda: server.size() > before + 8, "a log that goes on by itself")
            assert small.record.codes >= {"outcome-unknown", "not-open"}
            assert server.metric("translog_failed_writes_total") >= 1
            finish(server)

    def test_full_at_the_end_of_the_process_loses_nothing(self, small: Log) -> None:
        with serving(small, log__reopen_wait_ms=20) as server:
            with senders(server, 2, size=50_000):
                wait_for(lambda: failures_said(server) >= 2, "a full disk")
            assert server.end() == 0
        code, said = refusal(small)
        assert code == 4
        assert "No space left on device" in said
        assert "check the disk: is it full, or read-only?" in said
        (small.directory / "ballast").unlink()
        with serving(small) as server:
            finish(server)

    def test_whose_directory_becomes_read_only_is_waited_for(self, log: Log) -> None:
        """A read-only mount above the log's files: those that are open are still written, no other can be made."""
        with serving(log, log__reopen_wait_ms=20, log__retry_after_ms=1) as server:
            grow(server, 3)
            with mounted(log.directory, "--bind", log.directory):
                command("mount", "-o", "remount,bind,ro", log.directory)
                grow(server, 1)  # the write-ahead log is open
                sent = 0
                while server.append(*(entry(60_000) for _ in range(50))) == "":
                    sent += 50 * 60_000
                    assert sent < 3 * WRITE_BUFFER_BYTES, "the store wrote tables on a read-only disk"
                wait_for(lambda: failures_said(server) >= 3, "failed attempts on a read-only disk")
                assert any("Read-only file system" in line for line in server.said)
                for _ in range(5):
                    require_shut_but_visible(server)
            wait_for(lambda: server.status()[0] == "open", "a log that goes on by itself")
            finish(server)

    def test_that_the_kernel_makes_read_only_loses_nothing(self, block: Log) -> None:
        """As after an I/O error. Such a file system is mended unmounted, so the process has to go."""
        mount = block.directory.parent
        with serving(block, log__reopen_wait_ms=20) as server:
            grow(server, 3)
            # While nothing is written: in the moment of the abort, ext4 says of writes that they are durable and loses them.
            subprocess.run(["mount", "-o", "remount,abort", str(mount)], capture_output=True, check=False)
            with senders(server, 2, size=1_000):
                wait_for(lambda: failures_said(server) >= 2, "failed attempts on a read-only disk")
            for _ in range(5):
                require_shut_but_visible(server)
            assert server.end() == 0
        code, said = refusal(block)
        assert (code, "Read-only file system" in said) == (4, True), said
        command("umount", mount)
        subprocess.run(["e2fsck", "-p", str(mount.parent / "image")], capture_output=True, check=False)
        command("mount", "-o", "loop", mount.parent / "image", mount)
        with serving(block) as server:
            finish(server)

    def test_that_hangs_leaves_reads_and_goes_on(self, block: Log) -> None:
        """Frozen: writes neither succeed nor fail. Senders are told that the outcome is unknown, readers notice nothing."""
        mount = block.directory.parent
        with serving(block, server__commit_deadline_ms=300, server__publish_deadline_ms=300) as server:
            grow(server, 3)
            if shutil.which("fsfreeze") is None:
                unavailable("there is no fsfreeze")
            command("fsfreeze", "-f", mount)
            try:
                for _ in range(3):
                    assert server.append(entry()) == "outcome-unknown"
                    server.checkpoint()
                    assert server.get("/v1/entries?start=0&end=6").status == 200
                    assert server.get("/v1/receipts/5").status == 200
            finally:
                command("fsfreeze", "-u", mount)
            wait_for(lambda: server.append(entry()) == "", "an append that is taken")
            finish(server, entries=6 + 3 + 2)  # those whose outcome was unknown are there: the disk only took its time


class TestClock:
    """worst-day.md, "The clock jumped", with a log on LevelDB and a clock of its own. HTTP is in server/test_ops.py."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
        clock = FakeClock()
        monkeypatch.setattr("translog.bootstrap.SystemClock", lambda: clock)
        for name in [name for name in os.environ if name.upper().startswith("TRANSLOG_")]:
            monkeypatch.delenv(name)
        return clock

    @asynccontextmanager
    async def served(self, log: Log) -> AsyncIterator[LogService]:
        """The log, served in this process."""
        overrides: dict[str, dict[str, object]] = {
            "server": {"listen": "127.0.0.1:0", "admin_listen": ""},
            "log": {"idle_sign_interval_ms": IDLE_SIGN_MS, "retry_after_ms": 1},
        }
        server = LogServer(log.directory, read_settings(log.directory, overrides))
        await server.start()
        try:
            yield server.service
        finally:
            await server.stop()

    async def append(self, log: Log, service: LogService) -> int:
        """Appends an entry, and waits for its checkpoint. Returns when it was received."""
        taken = entry()
        sequenced = await service.append([taken])
        log.record.acknowledged[sequenced.first] = taken
        await until_published(service, sequenced.size)
        return sequenced.received_at_ms

    async def require_paused(self, log: Log, service: LogService) -> None:
        """Nothing is taken, and nothing signed though the idle log would have been, twice."""
        shown = note_of(service)
        with capture_logs() as lines:
            for _ in range(3):
                refused = entry()
                log.record.refused.add(refused)
                with pytest.raises(PushbackError) as caught:
                    await service.append([refused])
                assert caught.value.code == "clock-jumped"
            await until(lambda: sum(line["event"] == "publication waits" for line in lines) >= 2)
        assert note_of(service) == shown

    def time_of(self, log: Log, note: bytes) -> int:
        """The time, in seconds, that a checkpoint's signature states."""
        log.record.checkpoints.add(note)
        (signed,) = verify_checkpoint(note, log.policy).signed
        assert signed.time_s is not None
        return signed.time_s

    @pytest.mark.parametrize("jump_ms", [86_400_000, -86_400_000])
    async def test_a_jump_pauses_until_the_clock_is_right_again(self, log: Log, clock: FakeClock, jump_ms: int) -> None:
        received = []
        async with self.served(log) as service:
            for _ in range(2):
                received.append(await self.append(log, service))
                clock.wall += jump_ms
                await self.require_paused(log, service)
                clock.wall -= jump_ms
                clock.advance(1_500)
            received.append(await self.append(log, service))
            assert self.time_of(log, note_of(service)) == clock.wall // 1_000
        assert [later - earlier for earlier, later in pairwise(received)] == [1_500, 1_500]
        assert received[-1] == clock.wall
        verify_log(log)

    @pytest.mark.parametrize("jump_ms", [86_400_000, -86_400_000])
    async def test_a_clock_that_is_accepted_counts_from_then_on(self, log: Log, clock: FakeClock, jump_ms: int) -> None:
        async with self.served(log) as service:
            first = await self.append(log, service)
            clock.wall += jump_ms
            await self.require_paused(log, service)
            assert service.accept_clock("somebody") == jump_ms
            second = await self.append(log, service)
            assert second == max(first, clock.wall)  # received_at waits for a clock that was set back
            assert self.time_of(log, note_of(service)) == clock.wall // 1_000
            clock.wall -= jump_ms
            await self.require_paused(log, service)  # the guard compares with what was accepted
        verify_log(log)

    async def test_received_at_does_not_go_back_across_restarts_with_a_clock_that_was_ahead(
        self, log: Log, clock: FakeClock
    ) -> None:
        received, right_ms = [], clock.wall
        for offset_ms in (0, 86_400_000, 0, -86_400_000, 0):  # a start takes the clock as it is
            clock.wall = right_ms + offset_ms
            async with self.served(log) as service:
                received.append(await self.append(log, service))
                assert self.time_of(log, note_of(service)) == clock.wall // 1_000
            clock.advance(60_000)
            right_ms += 60_000
        ahead = received[1]
        assert ahead == received[0] + 60_000 + 86_400_000
        assert received[1:] == [ahead] * 4
        clock.wall = ahead + 1  # real time has caught up
        async with self.served(log) as service:
            assert await self.append(log, service) == ahead + 1
        verify_log(log)


def note_of(service: LogService) -> bytes:
    """The checkpoint that is served."""
    assert service.published is not None
    return service.published.note


class TestTwoServers:
    """worst-day.md, "It cannot listen, or the directory is in use"."""

    def test_the_second_is_refused_and_the_first_notices_nothing(self, log: Log) -> None:
        with serving(log) as server:
            grow(server, 2)
            with senders(server, 2) as answered:
                self.require_refused(log, 1)
                self.require_refused(log, 10)
                before = answered()
                wait_for(lambda: answered() > before + 10, "appends after the attempts")
            assert not log.record.codes
            grow(server, 2)
            finish(server)

    def require_refused(self, log: Log, number: int) -> None:
        with ThreadPoolExecutor(number) as pool:
            for code, said in pool.map(lambda _: refusal(log), range(number)):
                assert code == 4
                lines = said.splitlines()
                assert lines[0] == f"translog: {log.directory} is in use by a running log"
                assert lines[1].startswith("  stop that one first")

    def test_without_the_lock_file_leveldb_refuses(self, log: Log) -> None:
        """DIR/lock deleted under a running log ("never"): our own lock is void for other processes, and LevelDB's is the
        second line. What it says is less helpful, but the first log is not harmed."""
        with serving(log) as server:
            grow(server, 2)
            for _ in range(3):
                (log.directory / "lock").unlink()
                code, said = refusal(log)
                assert code == 4
                assert said.startswith(f"translog: cannot open the store {log.directory / 'log'}: ")
                assert "lock" in said
                grow(server, 1, size=1_000)
            finish(server)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Log, dict[str, Path]]:
    """A stopped log, and copies of it: `old` of 8 entries, `new` of 14, as it is."""
    home = tmp_path_factory.mktemp("copies")
    log, found = create(home / "log"), {}
    for name, batches in (("old", 4), ("new", 3)):
        with serving(log) as server:
            grow(server, batches)
            assert server.end() == 0
        found[name] = home / name
        command("cp", "-a", log.directory, found[name])
    return log, found


class TestOldCopies:
    """worst-day.md, "Held: the store is older than the head" and "Head lost, or a copy restored"."""

    @pytest.fixture
    def old(self, copies: tuple[Log, dict[str, Path]]) -> Path:
        return copies[1]["old"]

    @pytest.fixture
    def new(self, copies: tuple[Log, dict[str, Path]]) -> Path:
        return copies[1]["new"]

    @pytest.fixture
    def log(self, copies: tuple[Log, dict[str, Path]], new: Path, tmp_path: Path) -> Log:
        """A log as `new`, that a test may spoil."""
        command("cp", "-a", new, tmp_path / "log")
        seen = copies[0].record
        record = Record(dict(seen.acknowledged))
        record.checkpoints |= seen.checkpoints
        return Log(tmp_path / "log", copies[0].policy, record)

    def put(self, log: Log, copy: Path, *names: str) -> None:
        """Puts parts of a copy into the log's directory."""
        for name in names:
            target = log.directory / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            command("cp", "-a", copy / name, target)

    def require_held(self, log: Log, code: str, *, size: int, note: bytes) -> None:
        """It serves `size` entries, takes none, says why, and does not sign for as long as another log signs twice."""
        held = Log(log.directory, log.policy)  # what it shows now is not added to what was seen before
        with serving(held) as server, self.signing_twice(log.directory.parent / "control"):
            assert any(line.startswith("READ-ONLY: ") for line in server.said)
            assert any('"level": "critical"' in line and f'"code": "{code}"' in line for line in server.said)
            assert server.status() == ("held", code)
            for _ in range(3):
                assert server.append(entry()) == "read-only"
            ready = server.get("/readyz")
            assert (ready.status, ready.retry_after) == (503, "300")
            assert json.loads(server.get("/readyz", admin=True).body)["reason"]
            assert server.size() == size
            assert len(json.loads(server.get("/v1/entries?start=0&end=100").body)["entries"]) == size
            assert server.get(f"/v1/receipts/{size - 1}").status == 200
            wait_for(self.control_signed, "a log that is not held to sign")
            assert server.checkpoint() == note
            assert server.end() == 0
        assert held.record.checkpoints == {note}

    @contextmanager
    def signing_twice(self, directory: Path) -> Iterator[None]:
        """Another log, under the same settings but not held: the measure of how long to look."""
        shutil.rmtree(directory, ignore_errors=True)
        with serving(create(directory), log__idle_sign_interval_ms=IDLE_SIGN_MS) as control:
            self.control = control
            yield

    def control_signed(self) -> bool:
        self.control.checkpoint()
        return len(self.control.log.record.checkpoints) >= 3

    @pytest.mark.parametrize(
        "names", [("log",), ("log", "keys", "translog.toml", "lock")], ids=["the store", "all but the head"]
    )
    def test_an_older_store_is_held_and_the_newest_goes_on(self, log: Log, old: Path, new: Path, names: Sequence[str]) -> None:
        note = note_in(old)
        self.put(log, old, *names)
        self.require_held(log, "store-behind-head", size=8, note=note)
        resume = [sys.executable, "-m", "translog", "resume", str(log.directory), "--nothing-newer-was-signed"]
        done = subprocess.run(resume, check=False, capture_output=True, text=True, env=environment())
        assert done.returncode == 4
        assert "a tree of size 14 may have been signed" in done.stderr
        with serving(Log(log.directory, log.policy)) as server:
            assert server.status() == ("held", "store-behind-head")  # and stays so
        self.put(log, new, *names)
        with serving(log) as server:
            finish(server, entries=15)

    def test_an_older_head_is_held_and_the_newest_goes_on(self, log: Log, old: Path, new: Path) -> None:
        self.put(log, old, "head")
        self.require_held(log, "head-behind", size=14, note=note_in(new))
        self.put(log, new, "head")
        with serving(log) as server:
            finish(server, entries=15)

    def test_a_lost_head_is_held_and_goes_on_on_its_owners_word(self, log: Log, new: Path) -> None:
        (log.directory / "head").unlink()
        self.require_held(log, "head-lost", size=14, note=note_in(new))
        resume = [sys.executable, "-m", "translog", "resume", str(log.directory), "--nothing-newer-was-signed"]
        subprocess.run(resume, check=True, capture_output=True, env=environment())
        with serving(log) as server:
            finish(server, entries=15)

    def test_a_copy_without_its_head_as_the_guide_says_is_held(self, log: Log, old: Path, tmp_path: Path) -> None:
        note = note_in(old)
        command("cp", "-a", old, tmp_path / "restored")
        restored = Log(tmp_path / "restored", log.policy)
        (restored.directory / "head").unlink()
        self.require_held(restored, "head-lost", size=8, note=note)


def note_in(directory: Path) -> bytes:
    """The checkpoint in a stopped log's store."""
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        stored = store.read_checkpoint()
        store.close()
    assert stored is not None
    return stored.note


_HEADER_BYTES, _BLOCK_BYTES = 7, 32_768


def records_of(data: bytes) -> list[tuple[int, int]]:
    """Where the records of a LevelDB log begin, and how long they are with their headers: checksum 4, length 2, type 1."""
    found, at = [], 0
    while at + _HEADER_BYTES <= len(data):
        if _BLOCK_BYTES - at % _BLOCK_BYTES < _HEADER_BYTES:
            at += _BLOCK_BYTES - at % _BLOCK_BYTES
            continue
        length = _HEADER_BYTES + int.from_bytes(data[at + 4 : at + 6], "little")
        found.append((at, length))
        at += length
    return found


class TestDamagedWriteAheadLog:
    """worst-day.md, "The write-ahead log is damaged": one flipped bit after SIGKILL."""

    @pytest.fixture
    def killed(self, log: Log) -> Log:
        """A log of several commits, all of them published and all in the write-ahead log."""
        with serving(log) as server:
            for size in (10, 100, 1_000, 50, 300):
                grow(server, 1, size=size)
            server.end(signal.SIGKILL)
        return log

    def flips(self, data: bytes) -> list[tuple[int, int]]:
        """40 places and bits: lengths, checksums and types of records first and last, and payload all over."""
        records = records_of(data)
        assert sum(length for _, length in records) == len(data) < _BLOCK_BYTES
        starts = [start for start, _ in records]
        chosen = [starts[0], starts[1], starts[len(starts) // 2], starts[-2], starts[-1]]
        places = [(start + 5, 7) for start in chosen]  # longer than what is left, which looks like a tail that was cut
        places += [(start + 4, 0) for start in chosen] + [(start, 3) for start in chosen] + [(start + 6, 0) for start in chosen]
        places += [(position, position % 8) for position in range(_HEADER_BYTES, len(data), len(data) // 20)]
        return places[:40]

    async def test_is_refused_or_held_or_harmless_and_never_an_older_log_that_signs(
        self, killed: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in os.environ if name.upper().startswith("TRANSLOG_")]:
            monkeypatch.delenv(name)
        path = self.file_in(killed)
        flips = self.flips(path.read_bytes())
        outcomes: dict[str, list[Log]] = {"refused": [], "held": [], "whole": []}
        for number, (position, bit) in enumerate(flips):
            flipped = self.flipped(killed, tmp_path / f"flipped{number}", position, bit)
            here = self.flipped(killed, tmp_path / "here", position, bit)
            outcomes[await self.outcome(here)].append(flipped)
            shutil.rmtree(here.directory)
        counted = {outcome: len(logs) for outcome, logs in outcomes.items()}
        assert sum(counted.values()) == 40
        assert counted["refused"] >= 20, counted
        assert counted["held"] >= 1, counted
        assert counted["whole"] >= 1, counted  # the last record is a publication, which need not be durable
        for flipped in (outcomes["refused"][0], outcomes["refused"][-1]):
            self.require_program_refuses(flipped)
        with serving(outcomes["held"][0]) as server:
            assert server.status() == ("held", "store-behind-head")
            assert server.append(entry()) == "read-only"
        for flipped in (outcomes["whole"][0], killed):  # the damage made all that, not the kill
            with serving(flipped) as server:
                finish(server, entries=11)

    def file_in(self, log: Log) -> Path:
        (path,) = [path for path in (log.directory / "log").glob("*.log") if path.stat().st_size]
        return path

    def flipped(self, killed: Log, directory: Path, position: int, bit: int) -> Log:
        """A copy of the log in which one bit is another, with a record of its own."""
        copy = Log(directory, killed.policy, Record(dict(killed.record.acknowledged)))
        copy.record.checkpoints |= killed.record.checkpoints
        shutil.copytree(killed.directory, copy.directory)
        path = self.file_in(copy)
        data = bytearray(path.read_bytes())
        data[position] ^= 1 << bit
        path.write_bytes(data)
        return copy

    async def outcome(self, log: Log) -> str:
        """What becomes of a start, in this process. What it may not be is an assertion that fails."""
        before = {path.name: path.read_bytes() for path in (log.directory / "log").glob("*.log")}
        try:
            async with served(log.directory) as server:
                service = server.service
                if service.mode is Mode.HELD:
                    assert service.held is not None
                    assert service.held.code == "store-behind-head"
                    return "held"
                assert service.mode is Mode.OPEN
                last = entry()
                log.record.acknowledged[(await service.append([last])).first] = last
                log.record.checkpoints.add(note_of(service))
        except CorruptionError as error:
            refused = str(error)
        else:
            assert len(verify_log(log)) == 11
            return "whole"
        assert "LevelDB finds it damaged" in refused
        for name, content in before.items():
            assert (log.directory / "log" / name).read_bytes() == content, "a refusal that changed what it refused"
        return "refused"

    def require_program_refuses(self, log: Log) -> None:
        code, said = refusal(log)
        assert code == 4
        lines = said.splitlines()
        assert lines[0].startswith(f"translog: cannot open the store {log.directory / 'log'}: LevelDB finds it damaged: ")
        assert lines[1:] == ["  nothing was changed; restore a backup, or bring the files back, and start again"]


class TestSignals:
    def test_sigterm_under_load_loses_nothing(self, log: Log) -> None:
        for _ in range(3):
            with serving(log) as server, senders(server, 8) as answered:
                wait_for(lambda: answered() > 100, "load")
                assert server.end() == 0
                assert "stopping: finishing what is under way" in server.said
                assert not any("Traceback" in line for line in server.said)
        assert len(log.record.acknowledged) > 250
        entries = verify_log(log)
        assert len(entries) == len(log.record.acknowledged), "an ordered stop leaves nobody without an answer"

    def test_a_process_that_is_stopped_for_a_while_goes_on(self, log: Log) -> None:
        with serving(log) as server:
            grow(server, 1)
            with senders(server, 4) as answered:
                wait_for(lambda: answered() > 20, "load")
                server.send_signal(signal.SIGSTOP)
                wait_for(lambda: self.state(server) == "T", "a stopped process")
                before = answered()
                threading.Event().wait(3)
                assert answered() - before <= 4  # what was on its way
                server.send_signal(signal.SIGCONT)
                wait_for(lambda: answered() > before + 20, "a process that goes on")
            assert not log.record.codes  # nobody was refused: neither clock had jumped
            assert not log.record.unknown
            finish(server)

    def state(self, server: Server) -> str:
        return Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(") ")[2][:1]
