"""Sequencing trusts the wall clock while it moves with the one that cannot be set."""

import time

import pytest

from log.harness import FakeClock
from translog.errors import PushbackError
from translog.log.clock import ClockGuard, SystemClock

LIMIT_MS = 10_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> ClockGuard:
    return ClockGuard(clock, jump_ms_max=LIMIT_MS, retry_after_ms=7)


def require_paused(guard: ClockGuard) -> PushbackError:
    with pytest.raises(PushbackError) as caught:
        guard.tick()
    assert caught.value.code == "clock-jumped"
    assert caught.value.retry_after_ms == 7
    return caught.value


def test_a_tick_is_the_wall_clock(clock: FakeClock, guard: ClockGuard) -> None:
    assert guard.tick() == clock.wall
    clock.advance(86_400_000)
    assert guard.tick() == clock.wall
    assert guard.jump_ms == 0


@pytest.mark.parametrize("jump_ms", [LIMIT_MS + 1, -LIMIT_MS - 1, 10**12, -(10**12)])
def test_a_jump_pauses_until_the_clocks_agree_again(clock: FakeClock, guard: ClockGuard, jump_ms: int) -> None:
    clock.wall += jump_ms
    for _ in range(3):
        assert f"{jump_ms / 1000:+.1f} s" in require_paused(guard).detail
        assert guard.jump_ms == jump_ms
        clock.advance(60_000)  # waiting does not mend it
    clock.wall -= jump_ms
    assert guard.tick() == clock.wall
    assert guard.jump_ms == 0


@pytest.mark.parametrize("jump_ms", [LIMIT_MS, -LIMIT_MS, 1, -1])
def test_up_to_the_limit_is_fine(clock: FakeClock, guard: ClockGuard, jump_ms: int) -> None:
    clock.wall += jump_ms
    assert guard.tick() == clock.wall


def test_slow_drift_is_fine_however_far_it_goes(clock: FakeClock, guard: ClockGuard) -> None:
    for _ in range(1_000):
        clock.advance(1_000)
        clock.wall += 100
        assert guard.tick() == clock.wall
    assert clock.wall - clock.boot - (FakeClock().wall - FakeClock().boot) == 100_000


def test_a_suspended_machine_is_no_jump(clock: FakeClock, guard: ClockGuard) -> None:
    clock.advance(3_600_000)
    assert guard.tick() == clock.wall


@pytest.mark.parametrize("jump_ms", [50_000, -50_000])
def test_accepting_takes_the_clock_as_it_is(clock: FakeClock, guard: ClockGuard, jump_ms: int) -> None:
    clock.wall += jump_ms
    require_paused(guard)
    assert guard.accept() == jump_ms
    assert guard.tick() == clock.wall
    assert guard.jump_ms == 0
    clock.wall -= jump_ms  # and back is a jump now
    require_paused(guard)


def test_accepting_a_clock_that_is_right_changes_nothing(clock: FakeClock, guard: ClockGuard) -> None:
    assert guard.accept() == 0
    assert guard.tick() == clock.wall


def test_a_jump_between_construction_and_the_first_tick_is_seen(clock: FakeClock, guard: ClockGuard) -> None:
    clock.boot += LIMIT_MS + 1
    require_paused(guard)


def test_the_machines_clocks_are_in_milliseconds() -> None:
    clock = SystemClock()
    before = time.time_ns() // 1_000_000
    assert before <= clock.wall_ms() <= time.time_ns() // 1_000_000
    assert clock.boot_ms() <= clock.boot_ms()
    assert ClockGuard(clock, jump_ms_max=LIMIT_MS, retry_after_ms=1).tick() >= before
