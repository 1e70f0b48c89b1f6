"""The bounds of one connection, on real sockets; deadlines pass on a clock that the test moves."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from keyturn.core import Call
from keyturn.dispatch import Gateway, Reply, SystemClock
from keyturn.errors import KeyturnError
from keyturn.server import Server, bind
from keyturn.server.cycle import Cycle
from keyturn.server.listener import KEEP_ALIVE, Listener
from keyturn.server.watch import TICK, DisconnectWatch

from .fakes import CHAT, KEY, FakeGateway, Handle, Pieces, hello, make_app

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n".encode()


class MovedClock(SystemClock):
    """The system's clock, ahead by what the test has moved it; timers that became due then fire."""

    __slots__ = ("_ahead", "_timers")

    def __init__(self) -> None:
        self._ahead = 0.0
        self._timers: list[tuple[float, Callable[[], object], list[bool]]] = []

    def mono(self) -> float:
        return super().mono() + self._ahead

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(when - self.mono())

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        over = [False]

        class Handle:
            def cancel(self) -> None:
                over[0] = True

        self._timers.append((when, callback, over))
        asyncio.get_running_loop().call_later(max(0.0, when - self.mono()), self._fire)
        return Handle()

    def _fire(self) -> None:
        for when, callback, over in self._timers[:]:
            if when <= self.mono() and not over[0]:
                over[0] = True
                callback()
        self._timers = [timer for timer in self._timers if not timer[2][0]]

    def forward(self, seconds: float) -> None:
        self._ahead += seconds
        self._fire()

    def stall(self, seconds: float) -> None:
        """So long nothing ran: what became due fires when the loop goes on."""
        self._ahead += seconds
        asyncio.get_running_loop().call_soon(self._fire)

    def pending(self) -> int:
        return sum(not over[0] for _, _, over in self._timers)


class Peer:
    """A client at the level of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0.01)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        return int(lines[0].split()[1]), await self._reader.readexactly(length)

    async def is_closed(self) -> bool:
        """Whether the server closes the connection, now or within a moment."""
        try:
            return await asyncio.wait_for(self._reader.read(1), 0.15) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def serving(gateway: FakeGateway) -> Any:
    """Serves *gateway*; gives a function that connects to it."""
    sock = bind("127.0.0.1", 0)
    server = Server(make_app(gateway), cast(Gateway, gateway), sock)
    await server.start()
    peers: list[Peer] = []

    async def connect(**options: Any) -> Peer:
        peers.append(Peer(*await asyncio.open_connection(*sock.getsockname()[:2], **options)))
        return peers[-1]

    try:
        yield connect
    finally:
        for peer in peers:
            peer.close()
        await server.stop(0.0)


def run(
    test: Callable[[Any, FakeGateway, MovedClock], Awaitable[None]], handle: Handle = hello, **settings: Any
) -> None:
    async def main() -> None:
        clock = MovedClock()
        gateway = FakeGateway(handle, clock, **settings)
        async with serving(gateway) as connect:
            await test(connect, gateway, clock)

    asyncio.run(main())


def post(body: bytes, *headers: bytes) -> bytes:
    return HEAD + b"".join(header + b"\r\n" for header in headers) + b"content-length: %d\r\n\r\n" % len(body) + body


pytestmark = pytest.mark.realtime


def test_several_requests_use_one_connection() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        for _ in range(3):
            await peer.send(post(CHAT))
            assert await peer.answer() == (200, b'{"hello": true}')

    run(test)


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/cha", HEAD, HEAD + b"content-length: 70\r\n\r\n", post(CHAT)[:-1], b"\r\n"]
)
def test_a_request_that_does_not_arrive_is_given_up_after_30_seconds(sent: bytes) -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(sent)
        clock.forward(28.0)
        assert not await peer.is_closed()
        clock.forward(3.0)
        assert await peer.is_closed()
        assert gateway.calls == []

    run(test)


def test_the_second_request_of_a_connection_is_bounded_like_the_first() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        clock.forward(20.0)
        await peer.send(post(CHAT))
        await peer.answer()
        clock.forward(20.0)
        await peer.send(HEAD)
        clock.forward(20.0)
        assert not await peer.is_closed()
        clock.forward(11.0)
        assert await peer.is_closed()

    run(test)


def test_a_slow_upload_at_the_least_rate_is_let_finish() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        body = CHAT.ljust(400_000)
        peer = await connect()
        await peer.send(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 50_000):
            await peer.send(body[start : start + 50_000])
            clock.forward(6.0)
        assert (await peer.answer())[0] == 200

    run(test)


def test_a_connection_without_a_request_under_way_has_no_deadline_of_ours() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(CHAT))
        await peer.answer()
        clock.forward(60.0)
        assert not await peer.is_closed()
        await peer.send(b"\r\n")  # no longer idle, so the bound for a request's arrival must stand in
        clock.forward(31.0)
        assert await peer.is_closed()

    run(test)


def test_a_connection_is_closed_when_it_has_been_idle_since_its_last_use() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        for _ in range(3):
            await peer.send(post(CHAT))
            await peer.answer()
            clock.forward(KEEP_ALIVE - 5.0)
        assert not await peer.is_closed()
        clock.forward(5.0)
        assert await peer.is_closed()

    run(test)


def test_a_head_without_end_is_refused_with_431() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(HEAD)
        for _ in range(5):
            await peer.send(b"x-filler: " + b"x" * 10_000 + b"\r\n")
        status, body = await peer.answer()
        assert status == 431
        assert b"headers_too_large" in body
        clock.forward(40.0)
        assert await peer.is_closed()

    run(test)


def test_a_head_that_comes_whole_but_large_is_refused_with_431() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(CHAT, b"x-filler: " + b"x" * 33_000))
        assert (await peer.answer())[0] == 431
        await peer.send(post(CHAT))
        assert (await peer.answer())[0] == 200

    run(test)


def test_a_large_body_after_a_refusal_is_skipped_and_the_connection_lives() -> None:
    """A client that sends everything before it reads sees 413, not a reset."""

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(b"x" * 300_000))
        status, body = await peer.answer()
        assert (status, b"too_large" in body) == (413, True)
        await peer.send(post(CHAT))
        assert (await peer.answer())[0] == 200

    run(test, max_body=100_000)


def test_an_upload_without_end_is_cut() -> None:
    async def upload(peer: Peer) -> None:
        for _ in range(100):
            await peer.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            await upload(peer)

    run(test, max_body=50_000)


def test_garbage_closes_its_connection_and_nothing_else() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/9.9\r\n\r\n",
            b"CONNECT a:443 HTTP/1.1\r\n\r\n",
            b"\xff" * 50,
        ):
            peer = await connect()
            await peer.send(garbage)
            assert (await peer.answer())[0] == 400
            assert await peer.is_closed()
        peer = await connect()
        await peer.send(post(CHAT))
        assert (await peer.answer())[0] == 200

    run(test)


def test_a_pipelining_client_that_leaves_cancels_the_request_that_is_served() -> None:
    started = asyncio.Event()

    async def never(call: Call) -> Reply:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(CHAT) + post(CHAT) + HEAD)
        await started.wait()
        peer.close()
        for _ in range(25):
            await asyncio.sleep(0.01)
        assert (len(gateway.calls), gateway.cancelled) == (1, 1)

    run(test, never)


def test_a_client_that_does_not_read_its_stream_is_cut_after_a_minute() -> None:
    class Endless(Pieces):
        async def __anext__(self) -> bytes:
            return b"data: " + b"x" * 60_000 + b"\n\n"

    endless = Endless()

    async def stream(call: Call) -> Reply:
        return Reply(200, [], stream=endless)

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect(limit=1024)
        await peer.send(post(CHAT))
        await asyncio.sleep(0.3)
        clock.forward(55.0)
        await asyncio.sleep(0.05)
        assert endless.closed == 0
        for _ in range(500):  # it may have got stuck later than that, on a busy machine
            if endless.closed:
                break
            clock.forward(10.0)
            await asyncio.sleep(0.02)
        assert endless.closed

    run(test, stream)


def test_a_request_that_came_in_one_piece_leaves_no_timer_of_its_own() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        for _ in range(5):
            await peer.send(post(CHAT))
            await peer.answer()
            clock.forward(0.1)
        clock.forward(0.1)
        assert clock.pending() == 3  # those of the Date header and of the guard, and that of the idle connection

    run(test)


@pytest.mark.parametrize("leaves", [False, True], ids=["at its end", "within a call"])
def test_a_connection_leaves_nothing_for_the_collector_of_garbage(leaves: bool) -> None:
    """A process collects rarely: whatever points at itself would add up to megabytes, connection by connection."""
    answered = asyncio.Event()

    async def lasting(call: Call) -> Reply:
        await answered.wait()
        return await hello(call)

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        gc.collect()
        gc.disable()
        try:
            peer = await connect()
            await peer.send(post(CHAT))
            for _ in range(2):  # the call lasts: somebody watches whether its client leaves
                clock.forward(TICK)
            await asyncio.sleep(0)
            assert any(isinstance(each, DisconnectWatch) for each in gc.get_objects())
            if not leaves:
                answered.set()
                await peer.answer()
            peer.close()
            await asyncio.sleep(0.05)
            clock.forward(0.0)
            await asyncio.sleep(0)
            left = [type(each) for each in gc.get_objects() if isinstance(each, (Listener, Cycle, DisconnectWatch))]
        finally:
            gc.enable()
        assert left == []

    run(test, lasting)


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(KeyturnError, match="in use by another program"),
    ):
        bind("127.0.0.1", taken.getsockname()[1])
