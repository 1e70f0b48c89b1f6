"""What holding calls of tools back costs: when a client sees what, in virtual time, and what looking at an event takes.

.venv/bin/python -m tools.holding
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from keyturn.dispatch import build, new_id, read_call
from keyturn.wire import Told, watched
from tests.support import virtual
from tests.support.world import APP, World

PACE = 0.02
"""Seconds between two events: 50 tokens a second."""
TEXT = "I will look at the file first, then change what is wrong in it."
LENGTHS = (10, 100, 400)
"""Words of the arguments, about an event each."""
EVENTS = 2000


class Upstream:
    """A model that says TEXT, then calls a tool with *words* words, an event each."""

    def __init__(self, clock: virtual.VirtualClock, words: int) -> None:
        self._clock = clock
        self._words = words

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for delta, finish in self._deltas():
            await self._clock.sleep_until(self._clock.mono() + PACE)
            await send({"type": "http.response.body", "body": chunk(delta, finish), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _deltas(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        for word in TEXT.split():
            yield {"content": f"{word} "}, None
        function: dict[str, str] = {"name": "write", "arguments": '{"text": "'}
        yield {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}, None
        for _ in range(self._words):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": "word "}}]}, None
        yield {"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]}, None
        yield {}, "tool_calls"


class Pool(World):
    """A gateway over that model."""

    def __init__(self, words: int, environ: dict[str, str]) -> None:
        super().__init__({"groq": 1}, environ=environ)
        self._words = words

    async def __aenter__(self) -> Pool:
        app: Any = Upstream(self.clock, self._words)
        self.gateway = build(self.config(), clock=self.clock, apps={APP: app})
        await self.gateway.open()
        return self


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """An event as an OpenAI Chat server streams it."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    row = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(row, separators=(",", ":")).encode() + b"\n\n"


def seen(words: int, *, held: bool) -> tuple[float, float, float, float]:
    """Seconds to the first text, to the first byte of the call, to the end; and the longest time without a byte."""
    tool = {"type": "function", "function": {"name": "write", "parameters": {"type": "object"}}}
    messages = [{"role": "user", "content": "Write it."}]
    body = {"model": "groq/llama-3.1-8b-instant", "messages": messages, "tools": [tool], "stream": True}

    async def main() -> tuple[float, float, float, float]:
        async with Pool(words, {"STREAM_HOLD_TOOLS": "*"} if held else {}) as world:
            began = world.clock.mono()
            call = read_call("chat", json.dumps(body).encode(), {})
            reply = await world.gateway.handle(call, world.gateway.config.default_caller, new_id(0))
            assert reply.stream is not None
            text = first = last = longest = 0.0
            async for piece in reply.stream:
                now = world.clock.mono() - began
                longest, last = max(longest, now - last), now
                text = text or (now if b'"content"' in piece else 0.0)
                first = first or (now if b"tool_calls" in piece else 0.0)
            reply.close()
            return text, first, last, longest

    return virtual.run(main)


def events() -> Iterator[bytes]:
    """A long text."""
    for number in range(EVENTS):
        yield chunk({"content": f" word{number}"})


def per_event(*, looked_at: bool) -> float:
    """Microseconds of one relayed event."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    call = read_call("chat", json.dumps(body).encode(), {})
    best = float("inf")
    for _ in range(5):
        stream, told, rows = watched(call, "openai_chat"), Told(call, 1 << 20), list(events())
        began = time.perf_counter()
        for row in rows:
            piece = stream.feed(row)
            if looked_at:
                for event in told.pieces(piece):
                    told.look(event)
                    told.took(event)
        best = min(best, time.perf_counter() - began)
    return best / EVENTS * 1e6


def main() -> None:
    print("| words of arguments | held back | first text | first byte of the call | end | longest gap |")
    print("|---|---|---|---|---|---|")
    for words in LENGTHS:
        for held in (False, True):
            figures = " | ".join(f"{seconds:.2f} s" for seconds in seen(words, held=held))
            print(f"| {words} | {'yes' if held else 'no'} | {figures} |")
    print(f"\nan event that is passed on: {per_event(looked_at=False):.2f} µs, and looked at: ", end="")
    print(f"{per_event(looked_at=True):.2f} µs")


if __name__ == "__main__":
    main()
