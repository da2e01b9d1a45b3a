"""Token buckets."""

import pytest

from translog.errors import RateLimitedError
from translog.witness.limits import BURST_MIN, Buckets

DAY_MS = 86_400_000


def taken(buckets: Buckets, key: str, *, per_day: int, now_ms: int, most: int = 10_000) -> int:
    for number in range(most):
        try:
            buckets.take(key, per_day=per_day, now_ms=now_ms)
        except RateLimitedError:
            return number
    return most


def test_an_hours_worth_comes_at_once_and_a_few_in_any_case() -> None:
    buckets = Buckets()
    assert taken(buckets, "log", per_day=2_400, now_ms=0) == 100
    assert taken(buckets, "rare", per_day=1, now_ms=0) == BURST_MIN


@pytest.mark.parametrize("per_day", [1, 24, 1_000, 86_400])
def test_no_more_than_is_allowed_comes_through_in_a_day(per_day: int) -> None:
    buckets = Buckets()
    burst = taken(buckets, "log", per_day=per_day, now_ms=0)
    rest = sum(taken(buckets, "log", per_day=per_day, now_ms=DAY_MS * step // 5_000) for step in range(1, 5_001))
    assert per_day - 1 <= rest <= per_day
    assert burst == max(BURST_MIN, per_day // 24)


def test_after_the_time_told_there_is_one_and_before_it_is_not() -> None:
    buckets = Buckets()
    taken(buckets, "log", per_day=7, now_ms=0)
    with pytest.raises(RateLimitedError) as raised:
        buckets.require("log", per_day=7, now_ms=0)
    wait_ms = raised.value.retry_after_ms
    assert taken(buckets, "log", per_day=7, now_ms=wait_ms - 1) == 0
    assert taken(buckets, "log", per_day=7, now_ms=wait_ms) == 1


def test_asking_takes_nothing_and_charging_never_fails() -> None:
    buckets = Buckets()
    for _ in range(100):
        buckets.require("log", per_day=24, now_ms=0)
    for _ in range(100):
        buckets.charge("log", per_day=24, now_ms=0)
    with pytest.raises(RateLimitedError) as raised:
        buckets.require("log", per_day=24, now_ms=0)
    assert raised.value.retry_after_ms == DAY_MS // 24


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    buckets = Buckets()
    taken(buckets, "log", per_day=24, now_ms=DAY_MS)
    assert taken(buckets, "log", per_day=24, now_ms=0) == 0
    assert taken(buckets, "log", per_day=24, now_ms=DAY_MS // 24) == 0
    buckets.take("other", per_day=24, now_ms=DAY_MS)
    assert taken(buckets, "other", per_day=24, now_ms=0) == BURST_MIN - 1


def test_there_are_no_more_buckets_than_allowed_and_those_in_use_stay() -> None:
    buckets = Buckets(buckets_max=3)
    taken(buckets, "log", per_day=24, now_ms=0)
    for number in range(100):
        buckets.charge(f"other {number}", per_day=24, now_ms=0)
        buckets.charge("log", per_day=24, now_ms=0)
    assert len(buckets._buckets) == 3
    assert taken(buckets, "log", per_day=24, now_ms=0) == 0
