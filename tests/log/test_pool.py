"""The pool is bounded, first in first out, and loses nothing in silence."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.errors import PushbackError, StorageError, TooLargeError
from translog.log.pool import Pool, Sequenced, Submission

ALL = 10**9


def make_pool(*, entries_max: int = 10, entry_bytes_max: int = 100) -> Pool:
    return Pool(entries_max=entries_max, entry_bytes_max=entry_bytes_max, retry_after_ms=7)


def take(pool: Pool, *, entries_max: int = ALL, entry_bytes_max: int = ALL) -> list[list[bytes]]:
    return [list(taken.entries) for taken in pool.take(entries_max=entries_max, entry_bytes_max=entry_bytes_max)]


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
