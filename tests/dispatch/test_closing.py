"""The end of a gateway: in order, each part in its time, none in the way of another."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from keyturn.dispatch.closing import Group, close_all
from keyturn.errors import StoreError
from tests.support import virtual
from tests.support.world import World


def test_groups_close_in_order_and_their_parts_together(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def part(name: str, seconds: float = 0.0) -> None:
        seen.append(f"{name} begins")
        await asyncio.sleep(seconds)
        seen.append(f"{name} ends")

    async def main() -> None:
        await close_all(
            virtual.VirtualClock(),
            [
                Group(1.0, [("a", lambda: part("a", 0.5)), ("b", lambda: part("b"))]),
                Group(1.0, []),
                Group(1.0, [("c", lambda: part("c"))]),
            ],
        )

    virtual.run(main)
    assert seen == ["a begins", "b begins", "b ends", "a ends", "c begins", "c ends"]
    assert not caplog.records


def test_a_part_that_hangs_or_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []
    clock_ran: list[float] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(100.0)
            raise

    async def fail() -> None:
        raise StoreError("the disk is full")

    async def fine() -> None:
        closed.append("fine")

    async def main() -> None:
        clock = virtual.VirtualClock()
        began = clock.mono()
        await close_all(
            clock,
            [
                Group(0.3, [("the first", hang), ("the second", stubborn)]),
                Group(2.0, [("the third", fail), ("the fourth", fine)]),
            ],
        )
        clock_ran.append(clock.mono() - began)
        await clock.sleep_until(clock.mono() + 200.0)

    with caplog.at_level(logging.WARNING):
        virtual.run(main)
    assert closed == ["fine"]
    assert clock_ran == [pytest.approx(0.3)]
    first, second = (record.getMessage() for record in caplog.records)
    assert "the first" in first
    assert "the second" in first
    assert second == "the third could not be closed: the disk is full"


def test_a_part_whose_own_work_was_cancelled_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def fine() -> None:
        closed.append("fine")

    async def main() -> None:
        await close_all(
            virtual.VirtualClock(), [Group(1.0, [("the first", cancelled)]), Group(1.0, [("the second", fine)])]
        )

    virtual.run(main)
    assert closed == ["fine"]
    assert "the first could not be closed" in caplog.text


def test_a_mistake_of_our_own_is_raised_once_all_is_closed() -> None:
    closed: list[str] = []

    async def wrong() -> None:
        raise ZeroDivisionError

    async def fine() -> None:
        closed.append("fine")

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await close_all(virtual.VirtualClock(), [Group(1.0, [("a", wrong)]), Group(1.0, [("b", fine)])])

    virtual.run(main)
    assert closed == ["fine"]


def test_a_gateway_ends_although_both_stores_hang(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with World({"groq": 1}) as world:
            assert (await world.chat("groq/llama-3.1-8b-instant")).status == 200
            gateway, live, ledger = world.gateway, world.gateway.live, world.gateway.ledger
            gateway.live = gateway.ledger = SimpleNamespace(close=hang)
            began = world.clock.mono()
            await gateway.close()
            assert world.clock.mono() - began <= 4.1
            gateway.live, gateway.ledger = live, ledger

    with caplog.at_level(logging.WARNING):
        virtual.run(main)
    assert "the live state" in caplog.text
    assert "the ledger" in caplog.text
