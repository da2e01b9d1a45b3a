"""The made-up time: jumps, order, and the runs that cannot end."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import monotonic

import pytest

from simulation.network import Network, Weather
from simulation.virtual import SimulationError, run_virtual


def test_a_day_passes_in_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(80_000)
        return asyncio.get_running_loop().time()

    begun_s = monotonic()
    assert run_virtual(main, random=Random(1)) >= 80_000
    assert monotonic() - begun_s < 5


def test_timers_fire_in_their_order() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def wait(number: int, seconds: float) -> None:
            await asyncio.sleep(seconds)
            order.append(number)

        await asyncio.gather(wait(3, 0.3), wait(1, 0.1), wait(2, 0.2), wait(0, 0))
        return order

    assert run_virtual(main, random=Random(1)) == [0, 1, 2, 3]


def test_executors_work_in_order_without_threads() -> None:
    async def main() -> list[int]:
        done: list[int] = []
        executor = ThreadPoolExecutor(1)
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, done.append, number) for number in range(20)))
        await asyncio.to_thread(executor.shutdown)
        with pytest.raises(RuntimeError):
            loop.run_in_executor(executor, done.append, 20)
        return done

    assert run_virtual(main, random=Random(2)) == list(range(20))


def test_an_executor_raises_what_its_work_raised() -> None:
    async def main() -> None:
        with pytest.raises(ValueError):
            await asyncio.get_running_loop().run_in_executor(None, int, "nothing")

    run_virtual(main, random=Random(1))


def test_a_run_that_waits_for_nothing_fails() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):  # the limit is a timer too
        run_virtual(main, random=Random(1), limit_s=10)


def test_a_run_in_which_time_stands_still_fails() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  nothing to wait for is the point
            await asyncio.sleep(0)

    with pytest.raises(SimulationError, match="stands still"):
        run_virtual(main, random=Random(1))


def test_a_run_with_an_unheard_error_fails() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(int, "nothing")
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="nothing"):
        run_virtual(main, random=Random(1))


def _talk(weather: Weather, *, cut: bool = False, asked: int = 50) -> tuple[int, int]:
    """How many requests were served, and how many answers were heard."""

    async def main() -> tuple[int, int]:
        network: Network[bytes] = Network(Random(3))
        served: list[bytes] = []

        def serve(source: str, request: bytes, answer: object) -> None:
            served.append(request)
            assert callable(answer)
            answer(request)

        network.serve("server", serve)
        network.weather = weather
        if cut:
            network.cut("server", "client")
        answers = [await network.ask("client", "server", b"%d" % n, timeout_ms=1_000) for n in range(asked)]
        return len(served), sum(answer is not None for answer in answers)

    return run_virtual(main, random=Random(1))


def test_a_calm_network_delivers_everything() -> None:
    assert _talk(Weather()) == (50, 50)


def test_a_cut_is_of_one_direction() -> None:
    assert _talk(Weather(), cut=True) == (50, 0)


def test_bad_weather_loses_doubles_and_delays() -> None:
    served, heard = _talk(Weather(loss=0.3))
    assert 20 < served < 50
    assert heard < served
    assert _talk(Weather(doubling=0.5))[0] > 60
    served, heard = _talk(Weather(lateness=0.5))
    assert heard < served
