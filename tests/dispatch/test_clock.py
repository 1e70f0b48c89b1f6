"""Ids that sort by time, and the one kind of timeout."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from keyturn.dispatch import Watch, new_id
from keyturn.errors import TransportError
from tests.support import virtual


def test_ids_are_version_7_and_sort_by_time() -> None:
    first, second = new_id(1_700_000_000.0), new_id(1_700_000_000.001)
    parsed = uuid.UUID(first)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == 1_700_000_000_000
    assert first < second
    assert uuid.UUID(new_id(-1.0)).version == uuid.UUID(new_id(2.0**60)).version == 7  # however wrong the clock is
    assert len({new_id(1.0) for _ in range(10_000)}) == 10_000


def test_a_watch_ends_what_takes_too_long() -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        began = clock.mono()
        watch = Watch(clock, began + 5.0, "first_token")
        with pytest.raises(TransportError, match="first_token"), watch:
            await clock.sleep_until(began + 60.0)
        assert clock.mono() == began + 5.0
        assert watch.expired
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    virtual.run(main)


def test_a_watch_whose_deadline_moves_lets_go_on() -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        began = clock.mono()
        watch = Watch(clock, began + 5.0, "silence")
        with watch:
            for second in range(1, 20):
                await clock.sleep_until(began + second)
                watch.deadline = clock.mono() + 5.0
        watch.close()
        assert not watch.expired

    virtual.run(main)


def test_a_cancellation_from_outside_stays_one() -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        seen: list[str] = []

        async def work() -> None:
            watch = Watch(clock, clock.mono() + 5.0, "silence")
            try:
                with watch:
                    await clock.sleep_until(clock.mono() + 60.0)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            finally:
                watch.close()

        task = asyncio.create_task(work())
        await virtual.idle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert seen == ["cancelled"]

    virtual.run(main)


def test_both_at_the_same_instant_is_a_cancellation() -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        until = clock.mono() + 5.0

        async def work() -> None:
            with Watch(clock, until, "silence"):
                await clock.sleep_until(until + 60.0)

        task = asyncio.create_task(work())
        await virtual.idle()
        clock.call_at(until, task.cancel)
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    virtual.run(main)
