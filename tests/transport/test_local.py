"""LocalTransport: an ASGI application in this process, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from keyturn.core import HttpRequest, LocalRequest, Secret
from keyturn.transport import ASGIApp, LocalTransport
from tests.support import virtual

from .peers import fault_of, ignore, request

LIMIT = 1 << 20
OK = {"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"text/plain"), (b"x-a", b"1")]}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def local(**more: Any) -> LocalRequest:
    return LocalRequest("app", request("https://user:pw@demo.local:8443/v1/a%2Fb%20c?x=1", b'{"a":1}', **more))


@asynccontextmanager
async def opened(app: ASGIApp) -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"app": app})
    try:
        yield transport
    finally:
        await transport.close()
    assert transport.acquired == 0


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In virtual time, where a task left over or an error nobody saw fails the test."""
    virtual.run(main)


def test_the_application_sees_the_request_as_a_server_would_hand_it_over() -> None:
    scopes: list[Any] = []
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        messages.append(await receive())
        await send(OK)
        await send(body(b"hel", more=True))
        await send(body(b"lo"))
        messages.append(await receive())

    async def main() -> None:
        async with opened(app) as transport:
            sent: list[int] = []
            answer = await transport.send(local(auth=("x-api-key", "", Secret("k"))), lambda: sent.append(1))
            assert (answer.status, answer.headers, sent) == (200, {"content-type": "text/plain", "x-a": "1"}, [1])
            assert await answer.read(LIMIT) == b"hello"
            await virtual.idle()
            assert transport.acquired == 0
            answer.close()

    run(main)
    assert messages == [
        {"type": "http.request", "body": b'{"a":1}', "more_body": False},
        {"type": "http.disconnect"},
    ]
    scope = scopes[0]
    assert (scope["type"], scope["method"], scope["scheme"]) == ("http", "POST", "https")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/v1/a/b c", b"/v1/a%2Fb%20c", b"x=1")
    assert scope["server"] == ("demo.local", 8443)
    assert scope["headers"] == [
        (b"host", b"demo.local:8443"),
        (b"content-type", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"keyturn/0"),
        (b"x-api-key", b"k"),
        (b"content-length", b"7"),
    ]


def test_an_application_may_answer_without_reading_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**OK, "status": 401})
        await send(body(b"no"))

    async def main() -> None:
        async with opened(app) as transport:
            sent: list[int] = []
            answer = await transport.send(local(), lambda: sent.append(1))
            assert (answer.status, await answer.read(LIMIT), sent) == (401, b"no", [1])

    run(main)


def test_chunks_come_as_they_are_sent_and_waiting_ones_are_joined() -> None:
    clock = virtual.VirtualClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(OK)
        await clock.sleep_until(clock.mono() + 5)
        await send(body(b"one", more=True))
        await clock.sleep_until(clock.mono() + 5)
        for part in (b"two", b"", b"three"):
            await send(body(part, more=True))
        await send(body(b""))

    async def main() -> None:
        async with opened(app) as transport:
            answer = await transport.send(local(), ignore)
            assert [chunk async for chunk in answer.chunks()] == [b"one", b"twothree"]

    run(main)


def test_an_answer_nobody_reads_holds_the_application_back() -> None:
    written = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal written
        await send(OK)
        for number in range(100):
            await send(body(b"x" * 10_000, more=number < 99))
            written += 10_000

    async def main() -> None:
        async with opened(app) as transport:
            answer = await transport.send(local(), ignore)
            await virtual.idle()
            assert 200_000 < written < 300_000
            assert len(await answer.read(LIMIT)) == 1_000_000
            assert written == 1_000_000

    run(main)


def test_a_read_above_its_limit_lets_go() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(OK)
        while True:
            await send(body(b"x" * 1000, more=True))

    async def main() -> None:
        async with opened(app) as transport:
            answer = await transport.send(local(), ignore)
            assert (await fault_of(answer.read(500_000))).kind == "too_large"
            await virtual.idle()
            assert transport.acquired == 0

    run(main)


def test_close_disconnects_an_application_that_listens_and_cancels_one_that_does_not() -> None:
    ends: list[str] = []

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(OK)
        ends.append((await receive())["type"])

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send(OK)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def main() -> None:
        for app in (listening, deaf):
            async with opened(app) as transport:
                answer = await transport.send(local(), ignore)
                answer.close()
                answer.close()
                await virtual.idle()
                assert transport.acquired == 0
                assert (await fault_of(answer.read(LIMIT))).kind == "closed"

    run(main)
    assert ends == ["http.disconnect", "cancelled"]


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("double", [False, True])
def test_a_call_cancelled_at_any_turn_leaves_no_application_behind(turns: int, double: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0)
        await send(OK)
        for _ in range(3):
            await asyncio.sleep(0)
            await send(body(b"x", more=True))
        await asyncio.Event().wait()

    async def main() -> None:
        async with opened(app) as transport:

            async def call() -> bytes:
                return await (await transport.send(local(), ignore)).read(LIMIT)

            task = asyncio.create_task(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            if double:
                await asyncio.sleep(0)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await virtual.idle()
            assert transport.acquired == 0

    run(main)


@pytest.mark.parametrize("how", ["raises", "returns"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_application_that_breaks_off(how: str, when: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if when == "after":
            await send(OK)
            await send(body(b"part", more=True))
        if how == "raises":
            raise KeyError("secret detail")

    async def main() -> None:
        async with opened(app) as transport:
            if when == "before":
                fault = await fault_of(transport.send(local(), ignore))
                assert (fault.kind, fault.sent) == ("reset", True)
                assert isinstance(fault.__cause__, KeyError) == (how == "raises")
            else:
                answer = await transport.send(local(), ignore)
                chunks = answer.chunks()
                assert await anext(chunks) == b"part"
                fault = await fault_of(anext(chunks))
                assert (fault.kind, fault.sent) == ("closed", True)
            assert "secret detail" not in fault.message

    run(main)


def test_an_error_behind_a_complete_answer_is_reported_to_the_loop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(OK)
        await send(body(b"done"))
        raise KeyError("late")

    async def main() -> None:
        async with opened(app) as transport:
            assert await (await transport.send(local(), ignore)).read(LIMIT) == b"done"

    with pytest.raises(virtual.Unhandled, match="a local app failed"):
        run(main)


def test_close_of_the_transport_ends_waiting_calls() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with opened(app) as transport:
            waiting = asyncio.create_task(fault_of(transport.send(local(), ignore)))
            await virtual.idle()
            await transport.close()
            assert (await waiting).kind == "reset"

    run(main)


def test_an_unknown_application_is_refused_and_other_requests_are_not_taken() -> None:
    async def main() -> None:
        transport = LocalTransport({})
        assert (await fault_of(transport.send(local(), ignore))).kind == "refused"
        with pytest.raises(TypeError, match="HttpRequest"):
            await transport.send(HttpRequest("GET", "http://localhost/", ()), ignore)

    run(main)


def test_a_control_character_in_a_header_is_refused_here_too() -> None:
    async def main() -> None:
        transport = LocalTransport({"app": never})
        fault = await fault_of(transport.send(local(auth=("authorization", "Bearer ", Secret("a\r\nb"))), ignore))
        assert (fault.kind, transport.acquired) == ("protocol", 0)

    run(main)


async def never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not to be called")
