"""Connections to upstreams are kept and used again: the gateway over its real transport and real sockets, counted by
the upstream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import load
from keyturn.core import Secret
from keyturn.dispatch import Gateway, build, new_id, read_call
from keyturn.transport import HttpTransport
from keyturn.transport.connections import KEEPALIVE

from .peers import SECRET, Line, LoopClock, Peer, always, ignore, once, opened, plain, request, run

CHAT = {"model": "groq/m", "messages": [{"role": "user", "content": "Hi"}]}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat", CHAT),
    "stream": ("chat", {**CHAT, "stream": True}),
    "embeddings": ("embeddings", {"model": "groq/m", "input": "Hi"}),
}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
SAID = {
    "chat": {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    "embeddings": {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    },
}


def events() -> bytes:
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": "Hello"}, None), ({}, "stop")]
    parts = [
        json.dumps({**CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": stop}]})
        for delta, stop in deltas
    ]
    data = "".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"]).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


class Upstream:
    """Answers every request on every connection. While it is *held*, none is answered before *held* have arrived."""

    def __init__(self) -> None:
        self.held = 1
        self._arrived = 0
        self._all = asyncio.Event()

    async def script(self, line: Line) -> None:
        while True:
            request = await line.request()
            self._arrived += 1
            if self._arrived >= self.held:
                self._all.set()
            await self._all.wait()
            if b"/embeddings" in request:
                await line.say(plain(json.dumps(SAID["embeddings"]).encode()))
            elif b'"stream":true' in request.replace(b" ", b""):
                await line.say(events())
            else:
                await line.say(plain(json.dumps(SAID["chat"]).encode()))

    def hold(self, requests: int) -> None:
        """Answer the next requests once so many of them are there: they are under way at the same time."""
        self.held, self._arrived = requests, 0
        self._all = asyncio.Event()


@asynccontextmanager
async def gateway(port: int, folder: Path) -> AsyncIterator[Gateway]:
    """One with twenty keys of groq, which is the server at *port*."""
    environ = {f"GROQ_API_KEY_{number}": f"gsk_pool_secret_{number}" for number in range(20)}
    made = build(load({**environ, "GROQ_API_BASE": f"http://127.0.0.1:{port}/v1"}, cwd=folder))
    try:
        yield made
    finally:
        await made.close()


async def ask(made: Gateway, kind: str) -> None:
    """One call from its beginning to its end."""
    door, body = ASKED[kind]
    call = read_call(door, json.dumps(body).encode(), {})
    reply = await made.handle(call, made.config.default_caller, new_id(made.clock.wall()))
    try:
        text = reply.body if reply.stream is None else b"".join([piece async for piece in reply.stream])
    finally:
        reply.close()
    assert reply.status == 200, text
    assert (b"embedding" if kind == "embeddings" else b"Hello") in text


@pytest.mark.parametrize("kind", ASKED)
def test_CAC_01_one_after_the_other_on_one_connection(kind: str, loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with Peer(upstream.script) as peer, gateway(peer.port, tmp_path) as made:
            for _ in range(10):
                await ask(made, kind)
            assert peer.accepted == 1, "twenty keys share it"

    run(loop, main)


def test_CAC_01_as_many_as_are_under_way_and_each_is_used_again(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        upstream = Upstream()
        async with Peer(upstream.script) as peer, gateway(peer.port, tmp_path) as made:
            for kinds in (["chat"], ["stream"], ["embeddings"], ["chat", "stream", "embeddings"]):
                upstream.hold(8)
                await asyncio.gather(*(ask(made, kinds[number % len(kinds)]) for number in range(8)))
                assert peer.accepted == 8, "eight at once, and the same eight for whatever follows"
            upstream.hold(1)
            await ask(made, "chat")
            assert peer.accepted == 8

    run(loop, main)


def test_CAC_01_a_connection_that_the_upstream_closed_is_replaced(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        async def twice(line: Line) -> None:
            for _ in range(2):
                await line.request()
                await line.say(plain(json.dumps(SAID["chat"]).encode()))

        async with Peer(twice) as peer, gateway(peer.port, tmp_path) as made:
            for _ in range(6):
                await ask(made, "chat")
            assert peer.accepted == 3

    run(loop, main)


class AheadClock(LoopClock):
    """The loop's time, which may be moved on: what is due by then is called."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._set: list[tuple[float, Callable[[], object], asyncio.TimerHandle]] = []

    def mono(self) -> float:
        return super().mono() + self._ahead

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        handle = super().call_at(when - self._ahead, callback)
        self._set.append((when, callback, handle))
        return handle

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds
        now = self.mono()
        due = [each for each in self._set if each[0] <= now]
        self._set = [each for each in self._set if each[0] > now]
        for _, callback, handle in due:
            if not handle.cancelled():
                handle.cancel()
                callback()


async def used(http: HttpTransport, peer: Peer, at_once: int) -> None:
    """So many requests at once, each answered in full."""
    answers = await asyncio.gather(*(http.send(request(peer.url), ignore) for _ in range(at_once)))
    assert [await answer.read(100) for answer in answers] == [b"ok"] * at_once


def test_what_is_idle_for_too_long_is_closed_and_what_was_used_meanwhile_is_kept(loop: str) -> None:
    async def main() -> None:
        clock = AheadClock()
        http = HttpTransport(clock)
        async with Peer(always(plain(b"ok"))) as peer:
            await used(http, peer, 3)
            assert (peer.accepted, http.open_connections, http.acquired) == (3, 3, 0)
            clock.pass_by(KEEPALIVE / 2)
            await used(http, peer, 2)
            assert (peer.accepted, http.open_connections) == (3, 3)
            clock.pass_by(KEEPALIVE / 2 + 1)
            assert http.open_connections == 2
            clock.pass_by(KEEPALIVE)
            assert http.open_connections == 0
            await used(http, peer, 1)
            assert peer.accepted == 4
            await http.close()
        assert (http.acquired, http.open_connections) == (0, 0)

    run(loop, main)


def test_one_that_is_past_its_time_is_not_lent_even_before_it_is_swept_away(loop: str) -> None:
    async def main() -> None:
        clock = AheadClock()
        http = HttpTransport(clock)
        async with Peer(always(plain(b"ok"))) as peer:
            await used(http, peer, 2)
            clock.pass_by(KEEPALIVE - 1)
            await used(http, peer, 1)
            clock.pass_by(KEEPALIVE - 1)  # swept once by now: the second one is gone, the first is 59 s old
            assert http.open_connections == 1
            clock.pass_by(2)
            await used(http, peer, 1)
            assert peer.accepted == 3
            await http.close()

    run(loop, main)


def test_an_idle_one_that_the_peer_closed_is_let_go_with_the_rest(loop: str) -> None:
    async def main() -> None:
        clock = AheadClock()
        http = HttpTransport(clock)
        async with Peer(once(plain(b"ok"))) as peer:
            await used(http, peer, 1)
            clock.pass_by(KEEPALIVE + 1)
            assert http.open_connections == 0
            await http.close()

    run(loop, main)


def test_each_key_is_written_with_its_own_requests(loop: str) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def script(line: Line) -> None:
            while True:
                seen.append(await line.request())
                await line.say(plain(b"ok"))

        async with Peer(script) as peer, opened() as http:
            for key in ("first", "second", "first"):
                asked = request(peer.url, auth=("authorization", "Bearer ", Secret(key)))
                assert await (await http.send(asked, ignore)).read(100) == b"ok"
            traced = request(peer.url, trace=(("traceparent", "00-1"),))
            assert await (await http.send(traced, ignore)).read(100) == b"ok"
            assert await (await http.send(request(peer.url), ignore)).read(100) == b"ok"
        heads = [each.partition(b"\r\n\r\n")[0].split(b"\r\n") for each in seen]
        keys = [line for head in heads for line in head if line.startswith(b"authorization:")]
        assert [key.rpartition(b" ")[2].decode() for key in keys] == ["first", "second", "first", SECRET, SECRET]
        assert [b"traceparent: 00-1" in head for head in heads] == [False, False, False, True, False]

    run(loop, main)


@pytest.mark.parametrize("reset", [False, True])
def test_an_answer_that_is_dropped_and_cut_is_not_in_use_for_ever(loop: str, reset: bool) -> None:
    async def main() -> None:
        said = asyncio.Event()

        async def script(line: Line) -> None:
            await line.request()
            await line.say(plain(b"x" * 20)[:-18])
            await said.wait()
            if reset:
                line.reset()

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            assert (answer.status, http.acquired) == (200, 1)
            del answer
            said.set()
            for _ in range(1000):
                if not http.acquired:
                    break
                await asyncio.sleep(0.001)
            assert (http.acquired, http.open_connections) == (0, 0)

    run(loop, main)
