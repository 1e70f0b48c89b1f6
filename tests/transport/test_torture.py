"""Calls cancelled at random moments, once and twice: nothing may be left, and the next calls succeed."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from .peers import Line, Peer, ignore, opened, plain, request, run, until

CALLS = int(os.environ.get("TORTURE_CALLS", "400"))
"""Not KEYTURN_…: tests/conftest.py takes those out of the environment."""
AT_ONCE = 40


async def slow_stream(line: Line) -> None:
    """Every other answer is a stream; all of them take their time."""
    while True:
        head = await line.request()
        if b"stream" not in head:
            await asyncio.sleep(0.002)
            await line.say(plain(b"whole"))
            continue
        await asyncio.sleep(0.001)
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.001)
            await line.say(b"5\r\nwhole\r\n")
        await line.say(b"0\r\n\r\n")


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
def test_cancellation_leaves_nothing(loop: str, double: bool) -> None:
    draw = random.Random(7)
    outcomes = {"done": 0, "cancelled": 0}

    async def main() -> None:
        async with Peer(slow_stream) as peer, opened() as http:

            async def call(number: int) -> bytes:
                body = (b'{"stream":%d}' if number % 2 else b'{"n":%d}') % number + b" " * (number % 3 * 100_000)
                answer = await http.send(request(peer.url, body), ignore)
                try:
                    if number % 2:
                        return b"".join([chunk async for chunk in answer.chunks()])[:5]
                    return await answer.read(1 << 20)
                finally:
                    if number % 5:  # also without the caller's close
                        answer.close()

            async def cancelled_call(number: int) -> None:
                task = asyncio.create_task(call(number))
                if number % 8:  # the eighth of them runs to its end
                    await asyncio.sleep(draw.uniform(0, 0.02))
                    task.cancel()
                    if double:
                        await asyncio.sleep(0)
                        task.cancel()
                try:
                    assert await task == b"whole"
                    outcomes["done"] += 1
                except asyncio.CancelledError:
                    outcomes["cancelled"] += 1

            async def worker(first: int) -> None:
                for number in range(first, CALLS, AT_ONCE):
                    await cancelled_call(number)

            await asyncio.gather(*(worker(first) for first in range(AT_ONCE)))
            assert http.acquired == 0
            await until(lambda: peer.accepted - peer.gone <= http.open_connections)
            fresh = await asyncio.gather(*(call(number) for number in range(10)))
            assert fresh == [b"whole"] * 10
            assert http.acquired == 0
        await until(lambda: peer.gone == peer.accepted)

    run(loop, main, seconds=20 + CALLS / 100)
    assert sum(outcomes.values()) == CALLS
    assert outcomes["done"] >= CALLS // 8
    assert outcomes["cancelled"]


async def turn_by_turn(streamed: bool) -> int:
    """Cancel one call at its first, second, third … turn of the loop until it ends by itself; how many it took."""
    async with Peer(slow_stream) as peer, opened() as http:

        async def call() -> bytes:
            answer = await http.send(request(peer.url, b'{"stream":1}' if streamed else b"{}"), ignore)
            return b"".join([chunk async for chunk in answer.chunks()])

        turns = 0
        while True:
            task = asyncio.create_task(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.done():
                assert task.result().startswith(b"whole")
                return turns
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert http.acquired == 0
            turns += 1 + turns // 4
    raise AssertionError


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_every_turn_of_a_call_can_be_its_last(loop: str, streamed: bool) -> None:
    async def main() -> None:
        assert await turn_by_turn(streamed) > 5

    run(loop, main)
