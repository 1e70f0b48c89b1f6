"""Virtual time: exact, deterministic, and loud about deadlocks, endless runs and tasks left over."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import virtual

if TYPE_CHECKING:
    from keyturn.core.model import Clock


def test_a_day_passes_at_once_and_exactly() -> None:
    async def main() -> tuple[float, float]:
        clock: Clock = virtual.VirtualClock()
        mono, wall = clock.mono(), clock.wall()
        await clock.sleep_until(mono + 86_400.1)
        return clock.mono() - mono, clock.wall() - wall

    passed_mono, passed_wall = virtual.run(main, start_wall=1000.0)
    assert passed_mono == pytest.approx(86_400.1)
    assert passed_wall == pytest.approx(86_400.1)


def test_timers_fire_in_order_and_at_their_own_time() -> None:
    async def main() -> list[tuple[str, float]]:
        clock = virtual.VirtualClock()
        start, seen = clock.mono(), []
        clock.call_at(start + 2, lambda: seen.append(("second", clock.mono() - start)))
        clock.call_at(start + 1, lambda: seen.append(("first", clock.mono() - start)))
        clock.call_at(start + 1.5, lambda: seen.append(("never", 0.0))).cancel()
        await asyncio.sleep(3)
        return seen

    assert virtual.run(main) == [("first", 1.0), ("second", 2.0)]


def test_asyncio_timeout_uses_virtual_time() -> None:
    async def main() -> float:
        clock = virtual.VirtualClock()
        start = clock.mono()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return clock.mono() - start

    assert virtual.run(main) == 60.0


def test_the_wall_clock_can_be_corrected_without_moving_the_other() -> None:
    async def main() -> tuple[float, float]:
        clock = virtual.VirtualClock()
        clock.wall_shift = -3600
        return clock.mono(), clock.wall()

    assert virtual.run(main, start_wall=10_000.0) == (virtual.START_MONO, 6_400.0)


def test_a_sleep_in_the_past_lets_others_run() -> None:
    async def main() -> list[str]:
        clock, seen = virtual.VirtualClock(), list[str]()
        clock_now = clock.mono()
        asyncio.get_running_loop().call_soon(seen.append, "other")
        await clock.sleep_until(clock_now - 1)
        return seen

    assert virtual.run(main) == ["other"]


def test_idle_waits_for_everything_that_can_happen_now() -> None:
    async def main() -> list[int]:
        seen = list[int]()

        async def ten_steps() -> None:
            for step in range(10):
                await asyncio.sleep(0)
                seen.append(step)

        task = asyncio.create_task(ten_steps())
        await virtual.idle()
        assert task.done()
        return seen

    assert virtual.run(main) == list(range(10))


def test_a_deadlock_is_an_error_that_names_the_task() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(virtual.Deadlock, match="waits_for_ever"):
        virtual.run(waits_for_ever)


def test_a_loop_that_never_sleeps_is_stopped() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - the fault under test
            await asyncio.sleep(0)

    with pytest.raises(virtual.Runaway, match="1000 turns"):
        virtual.run(spin, max_turns=1000)


def test_a_run_past_its_horizon_is_stopped() -> None:
    async def tick() -> None:
        while True:  # noqa: ASYNC110 - the fault under test
            await asyncio.sleep(60)

    with pytest.raises(virtual.Runaway, match="600 virtual seconds"):
        virtual.run(tick, horizon=600)


def test_tasks_left_over_fail_the_run_and_are_named() -> None:
    async def forgotten() -> None:
        await asyncio.sleep(1e4)

    async def main() -> None:
        main.task = asyncio.create_task(forgotten())  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(virtual.LeftOver, match="forgotten"):
        virtual.run(main)


def test_tasks_that_end_without_time_passing_are_not_left_over() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(1e4))
        await asyncio.sleep(1)
        task.cancel()

    virtual.run(main)


def test_an_error_that_nobody_saw_fails_the_run() -> None:
    def broken() -> None:
        raise ValueError("in a callback")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(broken)
        await asyncio.sleep(1)

    with pytest.raises(virtual.Unhandled, match="in a callback"):
        virtual.run(main)


def test_the_error_of_main_comes_out() -> None:
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        virtual.run(main)


def test_functions_for_an_executor_run_at_once() -> None:
    async def main() -> int:
        return await asyncio.to_thread(sum, [1, 2])

    assert virtual.run(main) == 3


def test_sockets_are_refused() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(RuntimeError, match="virtual time"):
        virtual.run(main)


def test_two_runs_with_one_seed_are_alike() -> None:
    async def main() -> list[float]:
        clock, draw, times = virtual.VirtualClock(), virtual.seeded(7), list[float]()

        async def walker() -> None:
            for _ in range(20):
                await clock.sleep_until(clock.mono() + draw())
                times.append(clock.mono())

        await asyncio.gather(*(walker() for _ in range(5)))
        return times

    assert virtual.run(main) == virtual.run(main)


def test_each_thread_has_a_time_of_its_own() -> None:
    clock, passed = virtual.VirtualClock(), dict[float, float]()
    met = threading.Barrier(2)

    def pass_time(seconds: float) -> None:
        async def main() -> None:
            began = clock.mono()
            met.wait(20.0)  # both runs are under way
            for _ in range(3):
                await clock.sleep_until(clock.mono() + seconds)
            met.wait(20.0)
            passed[seconds] = clock.mono() - began

        virtual.run(main)

    threads = [threading.Thread(target=pass_time, args=(seconds,)) for seconds in (1.0, 10.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert passed == {1.0: 3.0, 10.0: 30.0}


def test_outside_of_a_run_there_is_no_time() -> None:
    clock = virtual.VirtualClock()
    for asked in (clock.mono, clock.wall, lambda: clock.call_at(1.0, print)):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asked()
