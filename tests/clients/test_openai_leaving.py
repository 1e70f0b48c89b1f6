"""A client that leaves: the provider notices within a quarter of a second, whichever way it went."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import openai
import pytest

from tests.support.serving import Served, Upstreams

from .conftest import EACH_WAY, options_of, run, say

pytestmark = [pytest.mark.realtime, EACH_WAY]

QUICKLY = 0.25
ASKED: Any = {"model": "groq/llama-3.1-8b-instant", "messages": say("Hello")}


def assert_let_go(upstreams: Upstreams, left: float) -> None:
    """The gateway closed the one upstream request soon after *left* (monotonic seconds)."""
    upstreams.settled()
    [exchange] = upstreams.seen()
    assert exchange.result == "cancelled"
    assert exchange.ended is not None
    assert exchange.ended - left < QUICKLY


def test_a_stream_is_closed_early(gateway: Served, upstreams: Upstreams) -> None:
    upstreams.script({"does": "hang", "at_chunk": 3})
    with openai.OpenAI(**options_of(gateway)) as client:
        stream: Any = client.chat.completions.create(**ASKED, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        left = time.monotonic()
        stream.close()
        assert_let_go(upstreams, left)
    assert gateway.states()["groq-0"] == "healthy"


def test_an_asynchronous_stream_is_closed_early(gateway: Served, upstreams: Upstreams) -> None:
    upstreams.script({"does": "hang", "at_chunk": 3})

    async def main() -> float:
        async with openai.AsyncOpenAI(**options_of(gateway, asynchronous=True)) as client:
            stream: Any = await client.chat.completions.create(**ASKED, stream=True)
            async for chunk in stream:
                assert chunk.choices[0].delta.role == "assistant"
                break
            left = time.monotonic()
            await stream.close()
            await asyncio.to_thread(assert_let_go, upstreams, left)
            return left

    run(main)
    assert gateway.states()["groq-0"] == "healthy"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_gives_up_before_the_answer(gateway: Served, upstreams: Upstreams, stream: bool) -> None:
    upstreams.script({"does": "hang"})
    with openai.OpenAI(**options_of(gateway), timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**ASKED, stream=stream)
    assert_let_go(upstreams, time.monotonic())
    assert gateway.states()["groq-0"] == "healthy"


@pytest.mark.parametrize("stream", [False, True])
def test_a_task_that_is_cancelled(gateway: Served, upstreams: Upstreams, stream: bool) -> None:
    upstreams.script({"does": "hang"})

    async def main() -> None:
        async with openai.AsyncOpenAI(**options_of(gateway, asynchronous=True)) as client:
            call = asyncio.ensure_future(client.chat.completions.create(**ASKED, stream=stream))
            while not upstreams.seen(model="llama-3.1-8b-instant"):
                await asyncio.to_thread(upstreams.running)
            left = time.monotonic()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(assert_let_go, upstreams, left)

    run(main)
    assert gateway.states()["groq-0"] == "healthy"
