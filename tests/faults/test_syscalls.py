"""Every system call on the log's files fails once: EIO, ENOSPC, ENOSPC from there on, or the process dies at it.

`driver.py` runs under strace, which fails the N-th call of one kind on one file. strace counts calls per thread, so `when=N`
alone could hit several threads in one run, and others never; here each run names one file, which one thread uses as a rule
(LevelDB's log the writer, DIR/head the signing thread, tables the writer or LevelDB's own thread), and N goes up to the most
calls that any one thread makes. A first run without faults says which calls there are. An injection that did not show in
strace's output makes its run void, and a void run fails the test.

After each run the log is started again without faults: it must open, take a batch and publish it; then it is verified whole,
and against everything the first run said. A run may end by a TranslogError while it starts up, or where the fault lasts; a
running log must get over one fault by itself, with at most one batch of unknown outcome. None may hang, or die otherwise.

Two scenarios: `plain`, and `tables`, where LevelDB has a write buffer so small that it writes and merges tables meanwhile.
TRANSLOG_SYSCALLS=all runs the whole table, which takes many minutes. Without it, what a running log writes and syncs is run in
full for `plain`, where every batch goes through the same few calls; of all else (start-up, reading, closing, tables: many
calls that LevelDB's own code handles alike) a sample, drawn from TRANSLOG_SEED, which is printed.

What this cannot show: pages of a table that cannot be read (they are mapped, no call fails), and what a power cut takes.
"""

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from log.harness import World, until

from faults.conftest import unavailable
from faults.driver import Line, drive, make_batch
from faults.observer import Observer, log_policies, verify_directory
from translog.bootstrap import create_log
from translog.core.policy import Policy
from translog.log.lifecycle import Mode
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile

ALL = os.environ.get("TRANSLOG_SYSCALLS") == "all"
SAMPLE = 30
"""Runs of each scenario beside those that are always made."""
ORIGIN = "log.example/syscalls"
TESTS = Path(__file__).resolve().parent.parent
SYSCALLS = (
    "openat,open,creat,close,read,pread64,write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "ftruncate,mmap,stat,newfstatat,fstat,access,getdents64,flock,fcntl,mkdir,lseek"
)
WRITES = frozenset({"write", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "ftruncate"})
PATIENCE_S = 60
STARTING = threading.Lock()
"""Held while a process is started, and while this process has a log open: until it runs its program, a child has this
process's descriptors, and with them its locks."""
FILE_NUMBERS = range(1, 80)
"""Of LevelDB's files, as far as a run may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What the driver is asked to do."""

    name: str
    batches: int
    entry_bytes: int
    write_buffer_bytes: int


PLAIN = Scenario(name="plain", batches=3, entry_bytes=30, write_buffer_bytes=32 * 1024 * 1024)
TABLES = Scenario(name="tables", batches=6, entry_bytes=9_000, write_buffer_bytes=64 * 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The N-th call of a kind on one file (below the log's directory) by a thread, and its `overall`-th on all files
    together; `running` if not while starting up."""

    syscall: str
    file: str
    number: int
    overall: int
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What goes wrong in one run. `fault` is what strace is told of it; if `lasting`, then for all files from there on."""

    call: Call
    fault: str
    lasting: bool = False

    @property
    def kills(self) -> bool:
        return self.fault.startswith("signal")

    def __str__(self) -> str:
        call = self.call
        return f"{call.syscall} {call.file or '.'} #{call.number}{'+' if self.lasting else ''} {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    code: int
    lines: list[Line]
    trace: str
    errors: str


class Template:
    """A log with some entries, which every run gets a copy of, and what it said while it was made."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        vkeys = create_log(directory, origin=ORIGIN, profile=Profile.OPAQUE)
        self.policies: tuple[Policy, Policy] = log_policies(vkeys)
        self.lives: list[list[Line]] = [[], []]
        for number, lines in enumerate(self.lives):
            asyncio.run(drive(directory, lines.append, prefix=f"template{number}", batches=1, entry_bytes=30))

    def observer(self) -> Observer:
        """One who has seen how it was made."""
        observer = Observer(self.policies, origin=ORIGIN)
        for number, lines in enumerate(self.lives):
            hear(observer, lines, f"template{number}", 30)
        return observer


def hear(observer: Observer, lines: Sequence[Line], prefix: str, entry_bytes: int) -> None:
    """Tells the observer what a driver said."""
    for line in lines:
        batch = make_batch(prefix, line.get("batch", 0), entry_bytes=entry_bytes)
        match line["what"]:
            case "sent":
                observer.send(batch)
            case "refused":
                observer.refuse(batch)
            case "acknowledged":
                observer.acknowledge(batch, first=line["first"], published=False)
            case "checkpoint":
                observer.see_checkpoint(line["note"].encode(), floor=observer.floor)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("syscalls") / "template")


@pytest.fixture(scope="module")
def strace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, seen to work here."""
    found = shutil.which("strace")
    if found is None:
        unavailable("there is no strace on PATH")
    tried = subprocess.run([found, "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        unavailable(f"strace does not work here: {tried.stderr}")
    return found


def run_traced(strace: str, scenario: Scenario, directory: Path, files: Sequence[str], options: Sequence[str]) -> Ended:
    """The driver under strace, which looks at calls on `files` only."""
    trace = directory.with_name(directory.name + ".trace")
    paths = [option for file in files for option in ("-P", str(directory / file))]
    tracer = [strace, "-f", "-y", "-qq", "-s", "0", "-o", str(trace), *paths, *options]
    driver = [sys.executable, "-m", "faults.driver", str(directory), "run", str(scenario.batches), str(scenario.entry_bytes)]
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith("TRANSLOG_")}
    with STARTING:
        process = subprocess.Popen(
            [*tracer, *driver, str(scenario.write_buffer_bytes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**env, "PYTHONPATH": os.pathsep.join((str(TESTS), env.get("PYTHONPATH", "")))},
            start_new_session=True,
        )
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the driver hung: {out}{err}") from None
    lines = [json.loads(line) for line in out.splitlines()]
    return Ended(code=process.returncode, lines=lines, trace=trace.read_text(), errors=err)


def every_file(directory: Path) -> list[str]:
    """All names that the log's files may come to have, and their directories."""
    numbered = [f"log/{number:06}.{kind}" for number in FILE_NUMBERS for kind in ("log", "ldb", "dbtmp")]
    manifests = [f"log/MANIFEST-{number:06}" for number in FILE_NUMBERS]
    keys = [f"keys/{key.name}" for key in (directory / "keys").iterdir()]
    return ["", "lock", "head", "log", "log/LOCK", "log/LOG", "log/LOG.old", "log/CURRENT", *keys, *numbered, *manifests]


def find_calls(trace: str, directory: Path) -> list[Call]:
    """The calls of a run without faults."""
    seen: Counter[tuple[str, str, str]] = Counter()
    overall: Counter[tuple[str, str]] = Counter()
    running = False
    calls: dict[tuple[str, str, int], Call] = {}
    for line in trace.splitlines():
        found = re.match(rf'(\d+) +(\w+)\(.*?{re.escape(str(directory))}(?:/([^">]*))?[">]', line)
        if not found:
            continue
        thread, syscall, file = found[1], found[2], found[3] or ""
        running = running or (file, syscall) == ("head", "pwrite64")
        seen[thread, syscall, file] += 1
        overall[thread, syscall] += 1
        call = Call(
            syscall=syscall,
            file=file,
            number=seen[thread, syscall, file],
            overall=overall[thread, syscall],
            running=running,
        )
        calls.setdefault((syscall, file, call.number), call)
    return list(calls.values())


def make_cases(calls: Sequence[Call]) -> Iterator[Case]:
    """Everything that may go wrong at these calls."""
    for call in calls:
        yield Case(call=call, fault="error=EIO")
        yield Case(call=call, fault="signal=SIGKILL")
        if call.syscall in WRITES or call.syscall in ("openat", "mmap"):
            yield Case(call=call, fault="error=ENOSPC")
        if call.syscall in WRITES:
            yield Case(call=call, fault="error=ENOSPC", lasting=True)


def choose(cases: Sequence[Case], scenario: Scenario) -> list[Case]:
    """All of them, or those that always run and a sample of the others."""
    if ALL:
        return list(cases)
    seed = int(os.environ.get("TRANSLOG_SEED") or Random().getrandbits(32))
    print(f"TRANSLOG_SEED={seed}")  # noqa: T201
    always = [case for case in cases if scenario is PLAIN and case.call.running and case.call.syscall in WRITES]
    always = [case for case in always if case.call.file != "log/LOG" and (case.lasting or "ENOSPC" not in case.fault)]
    others = [case for case in cases if case not in set(always)]
    return always + Random(seed).sample(others, min(SAMPLE, len(others)))


def run_case(strace: str, template: Template, scenario: Scenario, case: Case, directory: Path) -> str:
    """One run, the restart after it, and the check of everything. Returns how the run ended."""
    shutil.copytree(template.directory, directory)
    when = f"{case.call.overall}+" if case.lasting else str(case.call.number)
    files = every_file(directory) if case.lasting else [case.call.file]
    options = ["-e", f"trace={case.call.syscall}", "-e", f"inject={case.call.syscall}:{case.fault}:when={when}"]
    if not case.kills:  # with it, strace does not deliver the signal
        options.append("--seccomp-bpf")
    ended = run_traced(strace, scenario, directory, files, options)
    fired = ended.code == -signal.SIGKILL if case.kills else "(INJECTED)" in ended.trace
    if not fired:
        return "void"
    said = Counter(line["what"] for line in ended.lines)
    context = f"{ended.code} {dict(said)}\n{ended.trace}\n{ended.errors[-3000:]}"
    assert ended.code in (0, 4) or case.kills, context
    assert ended.code or said["end"], context
    if said["open"] and not case.kills and not case.lasting:  # the log must open itself anew, and go on
        assert (ended.code, said["held"]) == (0, 0), context
        assert said["acknowledged"] + said["unknown"] == scenario.batches, context
        assert said["unknown"] <= 1, context
    with STARTING:
        check_after(template, scenario, ended, directory)
    shutil.rmtree(directory)
    if case.kills:
        return "killed"
    codes = [line["code"] for line in ended.lines if line["what"] in ("failed", "held")]
    return ", ".join(codes) or ("went on, unknown outcome" if said["unknown"] else "went on")


def check_after(template: Template, scenario: Scenario, ended: Ended, directory: Path) -> None:
    """Starts the log again, appends, and verifies all of it."""
    observer = template.observer()
    hear(observer, ended.lines, "run", scenario.entry_bytes)
    after: list[Line] = []
    asyncio.run(drive(directory, after.append, prefix="after", batches=1, entry_bytes=30))
    assert [line["what"] for line in after] == ["open", "checkpoint", "sent", "acknowledged", "checkpoint", "end"], after
    hear(observer, after, "after", 30)
    assert verify_directory(directory) >= 9, "the template has six entries"
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        state = store.read_state()
        observer.settle_all(store.read_entries(start=0, end=state.size), state)
        store.close()


@pytest.mark.parametrize("scenario", [PLAIN, TABLES], ids=lambda scenario: scenario.name)
def test_every_system_call_may_fail(template: Template, strace: str, tmp_path: Path, scenario: Scenario) -> None:
    shutil.copytree(template.directory, tmp_path / "counted")
    files = every_file(tmp_path / "counted")
    counted = run_traced(strace, scenario, tmp_path / "counted", files, ["-e", f"trace={SYSCALLS}"])
    assert counted.code == 0, counted.errors
    assert sum(line["what"] == "acknowledged" for line in counted.lines) == scenario.batches
    calls = find_calls(counted.trace, tmp_path / "counted")
    cases = choose(list(make_cases(calls)), scenario)

    def run(numbered: tuple[int, Case]) -> tuple[Case, str]:
        number, case = numbered
        try:
            for attempt in range(10):  # LevelDB's own thread is not always at the same point
                outcome = run_case(strace, template, scenario, case, tmp_path / f"{number}-{attempt}")
                if outcome != "void":
                    break
        except Exception as error:
            return case, f"FAILED: {error!r}"
        return case, outcome

    with ThreadPoolExecutor(2) as executor:
        results = list(executor.map(run, enumerate(cases)))
    print("\n".join(f"{case}: {outcome}" for case, outcome in results))  # noqa: T201
    print(f"{len(calls)} calls, {len(results)} cases:", Counter(outcome[:40] for _, outcome in results))  # noqa: T201
    failed = [f"{case}: {outcome}" for case, outcome in results if outcome == "void" or outcome.startswith("FAILED")]
    assert not failed, "\n".join(failed)
    assert len(results) >= SAMPLE


@pytest.mark.parametrize(
    "call",
    [
        ("newfstatat", "keys/log-mldsa44.skey", 1),
        ("newfstatat", "keys/log-ed25519.skey", 1),
        ("close", "head", 1),
        ("close", "lock", 1),
    ],
    ids=str,
)
def test_calls_that_once_ended_badly(template: Template, strace: str, tmp_path: Path, call: tuple[str, str, int]) -> None:
    syscall, file, number = call
    case = Case(call=Call(syscall=syscall, file=file, number=number, overall=0, running=False), fault="error=EIO")
    assert run_case(strace, template, PLAIN, case, tmp_path / "log") != "void"


async def test_a_head_that_cannot_be_closed_does_not_end_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    service = world.service()
    await service.start()
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "log"]
    with monkeypatch.context() as patch:

        def close(descriptor: int) -> None:
            patch.undo()
            os.close(descriptor)
            raise OSError(errno.EIO, "close failed")

        patch.setattr("translog.log.head.os.close", close)
        world.head_faults = ["refused"]
        await service.append([b"committed, and then the head cannot be written"])
        await until(lambda: tasks[0].done() or service.mode is Mode.REOPENING)
        await until(lambda: tasks[0].done() or service.mode is not Mode.REOPENING)
    mode = service.mode
    await service.stop(drain_ms=0)
    assert mode is Mode.OPEN, "nobody will ever open it again"
