"""A client that leaves: the provider notices within a quarter of a second, whichever way it went."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import openai
import pytest

from tests.support.serving import Served, Upstreams

from .conftest import EACH_WAY, assert_let_go, options_of, run, say

pytestmark = [pytest.mark.realtime, EACH_WAY]

ASKED: Any = {"model": "groq/llama-3.1-8b-instant", "messages": say("Hello")}


def test_a_stream_is_closed_early(gateway: Served, upstreams: Upstreams) -> None:
    upstreams.script({"does": "hang", "at_chunk": 3})

    def leave() -> float:
        with openai.OpenAI(**options_of(gateway)) as client:
            stream: Any = client.chat.completions.create(**ASKED, stream=True)
            assert next(stream).choices[0].delta.role == "assistant"
            left = time.monotonic()
            stream.close()
            upstreams.settled()
            return left

    assert_let_go(upstreams, leave)
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
            await asyncio.to_thread(upstreams.settled)
            return left

    assert_let_go(upstreams, lambda: run(main))
    assert gateway.states()["groq-0"] == "healthy"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_gives_up_before_the_answer(gateway: Served, upstreams: Upstreams, stream: bool) -> None:
    upstreams.script({"does": "hang"})

    def leave() -> float:
        for seconds in (0.3, 1.0, 4.0):  # on a busy machine the call may not have come upstream yet
            with openai.OpenAI(**options_of(gateway), timeout=seconds) as client, pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(**ASKED, stream=stream)
            left = time.monotonic()
            upstreams.settled()
            if upstreams.seen():
                break
        return left

    assert_let_go(upstreams, leave)
    assert gateway.states()["groq-0"] == "healthy"


@pytest.mark.parametrize("stream", [False, True])
def test_a_task_that_is_cancelled(gateway: Served, upstreams: Upstreams, stream: bool) -> None:
    upstreams.script({"does": "hang"})

    async def main() -> float:
        async with openai.AsyncOpenAI(**options_of(gateway, asynchronous=True)) as client:
            call = asyncio.ensure_future(client.chat.completions.create(**ASKED, stream=stream))
            while not upstreams.seen(model="llama-3.1-8b-instant"):
                await asyncio.to_thread(upstreams.running)
            left = time.monotonic()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(upstreams.settled)
            return left

    assert_let_go(upstreams, lambda: run(main))
    assert gateway.states()["groq-0"] == "healthy"
