"""The pool is bounded, first in first out, and loses nothing in silence."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.harness import World
from translog.errors import PushbackError, StorageError, TooLargeError
from translog.log.lifecycle import Mode
from translog.log.pool import Pool, Sequenced, Submission
from translog.log.waiters import SizeWaiters

ALL = 10**9


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def make_pool(*, entries_max: int = 10, entry_bytes_max: int = 100) -> Pool[bytes]:
    return Pool(entries_max=entries_max, entry_bytes_max=entry_bytes_max, retry_after_ms=7)


def take(pool: Pool[bytes], *, entries_max: int = ALL, entry_bytes_max: int = ALL) -> list[list[bytes]]:
    return [list(taken.items) for taken in pool.take(entries_max=entries_max, entry_bytes_max=entry_bytes_max)]


async def test_first_in_first_out() -> None:
    pool = make_pool()
    for name in (b"a", b"b", b"c"):
        pool.add([name, name])
    assert (pool.entries, pool.entry_bytes) == (6, 6)
    assert take(pool) == [[b"a", b"a"], [b"b", b"b"], [b"c", b"c"]]
    assert (pool.entries, pool.entry_bytes) == (0, 0)
    assert take(pool) == []


@pytest.mark.parametrize(
    ("entries_max", "entry_bytes_max", "sizes"),
    [
        (3, ALL, [1, 1]),
        (2, ALL, [1, 1]),
        (1, ALL, [1]),
        (ALL, 29, [1]),
        (ALL, 30, [1, 1]),
        (ALL, 59, [1, 1]),
        (6, 60, [1, 1, 3]),
    ],
)
async def test_takes_what_fits_and_never_part_of_a_submission(entries_max: int, entry_bytes_max: int, sizes: list[int]) -> None:
    pool = make_pool()
    for count in (1, 1, 3):
        pool.add([b"x" * (10 if count == 3 else 15)] * count)
    taken = take(pool, entries_max=entries_max, entry_bytes_max=entry_bytes_max)
    assert [len(entries) for entries in taken] == sizes
    assert pool.entries == 5 - sum(sizes)
    assert len(take(pool)) == 3 - len(sizes)


async def test_a_submission_over_the_batch_limit_goes_alone() -> None:
    pool = make_pool()
    pool.add([b"x"] * 5)
    pool.add([b"y"])
    assert take(pool, entries_max=2, entry_bytes_max=2) == [[b"x"] * 5]
    assert take(pool, entries_max=2) == [[b"y"]]


@pytest.mark.parametrize(("waiting", "more"), [([b"x"] * 10, [b""]), ([b"x" * 100], [b"y"]), ([b"x"] * 6, [b"y"] * 5)])
async def test_full_is_pushed_back_at_once_and_nothing_is_dropped(waiting: list[bytes], more: list[bytes]) -> None:
    pool = make_pool()
    pool.add(waiting)
    before = (pool.entries, pool.entry_bytes)
    for _ in range(3):
        with pytest.raises(PushbackError) as caught:
            pool.add(more)
        assert (caught.value.code, caught.value.retry_after_ms) == ("pool-full", 7)
    assert (pool.entries, pool.entry_bytes) == before
    assert take(pool) == [waiting]
    pool.add(more)
    assert take(pool) == [more]


@pytest.mark.parametrize("entries", [[b""] * 11, [b"x" * 101], [b"x" * 51] * 2])
async def test_what_can_never_fit_is_refused_for_good(entries: list[bytes]) -> None:
    pool = make_pool()
    with pytest.raises(TooLargeError):
        pool.add(entries)
    assert take(pool) == []


async def test_exactly_full_fits() -> None:
    pool = make_pool()
    pool.add([b"x" * 10] * 10)
    assert (pool.entries, pool.entry_bytes) == (10, 100)


async def test_waiting_ends_with_the_first_submission_and_starts_anew_when_empty() -> None:
    pool = make_pool()
    waiter = asyncio.create_task(pool.wait())
    await asyncio.sleep(0)
    assert not waiter.done()
    pool.add([b"a"])
    await waiter
    pool.add([b"b"])
    take(pool, entries_max=1)
    await pool.wait()  # b is still there
    take(pool)
    waiter = asyncio.create_task(pool.wait())
    await asyncio.sleep(0)
    assert not waiter.done()
    waiter.cancel()


async def test_failing_all_tells_everyone_and_empties_the_pool() -> None:
    pool = make_pool()
    submissions = [pool.add([b"a"]), pool.add([b"b"] * 9)]
    submissions[0].done.cancel()  # whoever waited has gone
    pool.fail_all(StorageError("gone", code="outcome-unknown"))
    assert submissions[0].done.cancelled()
    with pytest.raises(StorageError, match="gone"):
        await submissions[1].done
    assert (pool.entries, pool.entry_bytes) == (0, 0)
    assert take(pool) == []


async def test_failing_what_is_settled_changes_nothing() -> None:
    done: asyncio.Future[Sequenced] = asyncio.get_running_loop().create_future()
    submission = Submission([b"a"], 1, done)
    result = Sequenced(first=0, count=1, size=1, received_at_ms=1)
    done.set_result(result)
    submission.fail(StorageError("late"))
    assert await done == result


# --- what became of it, in time -----------------------------------------------------------------------------------------


RESULT = Sequenced(first=0, count=1, size=1, received_at_ms=1)


def timers() -> int:
    """Timers that have neither run nor been cancelled."""
    loop: Any = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)


@pytest.mark.parametrize("timeout_ms", [None, 10_000])
async def test_an_outcome_in_time_is_told_and_leaves_no_timer(timeout_ms: int | None) -> None:
    pool = make_pool()
    submission = pool.add([b"a"])
    before = timers()
    waiting = asyncio.create_task(submission.outcome(timeout_ms=timeout_ms))
    await asyncio.sleep(0)
    assert timers() == before + (timeout_ms is not None)
    submission.done.set_result(RESULT)
    assert await waiting == RESULT
    assert timers() == before


@pytest.mark.parametrize("timeout_ms", [None, 10_000])
async def test_a_failure_in_time_is_told_as_it_is(timeout_ms: int | None) -> None:
    pool = make_pool()
    submission = pool.add([b"a"])
    pool.fail_all(PushbackError("not now", code="not-open", retry_after_ms=1))
    with pytest.raises(PushbackError, match="not now"):
        await submission.outcome(timeout_ms=timeout_ms)


@pytest.mark.parametrize("timeout_ms", [0, 1])
async def test_without_an_outcome_in_time_it_is_unknown_and_the_entry_goes_on_its_way(timeout_ms: int) -> None:
    pool = make_pool()
    submission = pool.add([b"a"])
    with pytest.raises(StorageError) as caught:
        await submission.outcome(timeout_ms=timeout_ms)
    assert caught.value.code == "outcome-unknown"
    assert f"{timeout_ms} ms" in caught.value.detail
    assert (pool.entries, pool.entry_bytes) == (1, 1)
    assert pool.take(entries_max=1, entry_bytes_max=1) == [submission]
    submission.fail(StorageError("later"))  # nobody waits for it
    assert submission.done.done()


async def test_one_who_goes_leaves_no_timer_and_what_comes_later_harms_nobody() -> None:
    pool = make_pool()
    submission, other = pool.add([b"a"]), pool.add([b"b"])
    before = timers()
    waiting = asyncio.create_task(submission.outcome(timeout_ms=10_000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert timers() == before
    pool.fail_all(StorageError("gone"))
    with pytest.raises(StorageError, match="gone"):
        await other.outcome(timeout_ms=10_000)


@pytest.mark.parametrize("times", [1, 3])
async def test_an_entry_committed_after_its_time_is_in_the_log_and_others_go_on(world: World, times: int) -> None:
    async with world.running() as service:
        gate = world.gate("commit")
        late = [asyncio.create_task(service.append([b"late"], timeout_ms=1))]
        await gate.reached()
        late += [asyncio.create_task(service.append([b"late"], timeout_ms=1)) for _ in range(times - 1)]
        for task in late:
            with pytest.raises(StorageError) as caught:
                await task
            assert caught.value.code == "outcome-unknown"
        assert service.integrated.size == 0
        gate.open()
        assert (await service.append([b"next"], timeout_ms=10_000)).first == times
        assert await service.read_integrated(start=0, end=times + 1) == [b"late"] * times + [b"next"]
        assert service.mode is Mode.OPEN
        assert await service.wait_published(times + 1, timeout_ms=10_000)


# --- waiting for a size -------------------------------------------------------------------------------------------------


async def test_waiting_for_a_size_leaves_no_timer_however_it_ends() -> None:
    waiters = SizeWaiters()
    before = timers()
    tasks = {size: asyncio.create_task(waiters.wait(size, timeout_ms=10_000)) for size in (1, 2, 3)}
    await asyncio.sleep(0)
    assert timers() == before + 3
    tasks[3].cancel()
    waiters.reached(2)
    assert (await tasks[1], await tasks[2]) == (True, True)
    assert not await waiters.wait(3, timeout_ms=0)
    assert timers() == before


async def test_those_who_gave_up_are_forgotten_and_those_who_wait_are_not() -> None:
    waiters = SizeWaiters()
    patient = [asyncio.create_task(waiters.wait(size, timeout_ms=10_000)) for size in (7, 5, 6)]
    gone = [waiters.wait(size % 10 + 1, timeout_ms=1) for size in range(100)]
    assert await asyncio.gather(*gone) == [False] * 100
    assert len(waiters._waiting) <= 2 * len(patient)
    waiters.reached(6)
    assert (await patient[1], await patient[2]) == (True, True)
    assert not patient[0].done()
    waiters.reached(7)
    assert await patient[0]


async def test_who_gives_up_as_the_size_is_reached_hears_one_of_the_two() -> None:
    waiters = SizeWaiters()
    tasks = [asyncio.create_task(waiters.wait(1, timeout_ms=0)) for _ in range(5)]
    await asyncio.sleep(0)
    waiters.reached(1)
    assert await asyncio.gather(*tasks) == [True] * 5
    assert await waiters.wait(1, timeout_ms=0)


@given(steps=st.lists(st.one_of(st.lists(st.binary(max_size=8), min_size=1, max_size=6), st.integers(1, 8)), max_size=40))
def test_whatever_is_added_comes_out_once_in_order_and_whole(steps: list[list[bytes] | int]) -> None:
    async def run() -> None:
        pool = make_pool(entries_max=12, entry_bytes_max=40)
        added: list[list[bytes]] = []
        out: list[list[bytes]] = []
        for step in steps:
            if isinstance(step, int):
                out += take(pool, entries_max=step, entry_bytes_max=4 * step)
            else:
                try:
                    pool.add(step)
                except PushbackError:
                    assert pool.entries + len(step) > 12 or pool.entry_bytes + sum(map(len, step)) > 40
                except TooLargeError:
                    assert sum(map(len, step)) > 40
                else:
                    added.append(step)
            waiting = added[len(out) :]
            assert pool.entries == sum(map(len, waiting)) <= 12
            assert pool.entry_bytes == sum(len(entry) for entries in waiting for entry in entries) <= 40
        assert out + take(pool) == added

    asyncio.run(run())
