"""What a review with real sockets found: each of these failed once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from keyturn.core import Call
from keyturn.dispatch import Gateway, Reply
from keyturn.server import Server, bind
from keyturn.server.listener import KEEP_ALIVE, READ_PATIENCE

from .fakes import CHAT, KEY, FakeGateway, Handle, Pieces, hello, make_app
from .test_listener import MovedClock, post, run

pytestmark = pytest.mark.realtime

STREAM = [(b"content-type", b"text/event-stream")]


async def streaming(call: Call) -> Reply:
    return Reply(200, STREAM, stream=Pieces(b"data: 1\n\n", b"data: [DONE]\n\n"))


async def hanging(call: Call) -> Reply:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await asyncio.wait_for(peer._reader.read(), 1)
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\ndata: 1\n\ndata: [DONE]\n\n")

    run(test, streaming)


def test_garbage_behind_a_request_never_lands_within_its_answer() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(CHAT))
        await peer._reader.readuntil(b"data: 1\n\n\r\n")
        await peer.send(b"garbage garbage\r\n\r\n")
        try:
            rest = await asyncio.wait_for(peer._reader.read(), 1)
        except ConnectionError:
            rest = b""
        assert rest == b""

    async def begun(call: Call) -> Reply:
        never = asyncio.get_running_loop().create_future()
        return Reply(200, STREAM, stream=Pieces(b"data: 1\n\n", never))

    run(test, begun)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_request_that_offers_another_protocol_is_served_as_if_it_did_not(parts: int) -> None:
    """Java's HttpClient offers h2c with every request."""

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ")
        head, _, body = post(CHAT, *offer).partition(b"\r\n\r\n")
        for part in [head + b"\r\n\r\n" + body] if parts == 1 else [head + b"\r\n\r\n", body]:
            await peer.send(part)
        assert await asyncio.wait_for(peer.answer(), 1) == (200, b'{"hello": true}')
        await peer.send(post(CHAT))
        assert (await asyncio.wait_for(peer.answer(), 1))[0] == 200

    run(test, hello)


def test_a_client_that_leaves_is_noticed_when_it_sent_its_next_request_meanwhile() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        peer = await connect()
        await peer.send(post(CHAT))
        await asyncio.sleep(0.1)  # by now a watcher waits
        await peer.send(post(CHAT))
        peer.close()
        for _ in range(500):
            if gateway.cancelled:
                break
            await asyncio.sleep(0.01)
        assert gateway.cancelled == 1

    run(test, hanging)


@pytest.mark.parametrize("header", [b"connection: close", b"x-nothing: 1"])
def test_a_client_that_leaves_the_end_of_its_answer_unread_is_cut(header: bytes) -> None:
    """Less than what pauses writing is left, so nothing but the end of the connection could tell."""

    async def big(call: Call) -> Reply:
        return Reply(200, [(b"content-type", b"application/json")], b"x" * 60_000)

    async def main() -> None:
        clock = MovedClock()
        gateway = FakeGateway(cast(Handle, big), clock)
        sock = bind("127.0.0.1", 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server = Server(make_app(gateway), cast(Gateway, gateway), sock)
        await server.start()
        client = socket.socket()
        try:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(sock.getsockname()[:2])
            client.sendall(post(CHAT, header))
            for _ in range(500):
                await asyncio.sleep(0.01)
                if any(each.transport.get_write_buffer_size() for each in server._state.connections):
                    break
            (connection,) = server._state.connections
            assert 0 < connection.transport.get_write_buffer_size() <= 64 * 1024
            await asyncio.sleep(0.05)
            for _ in range(2):
                clock.forward(max(READ_PATIENCE, KEEP_ALIVE) + 1)
                await asyncio.sleep(0.05)
            for _ in range(500):
                if not server._state.connections:
                    break
                await asyncio.sleep(0.01)
            assert not server._state.connections
        finally:
            client.close()
            await server.stop(0.0)

    asyncio.run(main())


SERVE = """
import sys
import keyturn.telemetry.batches as batches
batches.CLOSE_PATIENCE = 0.2
from keyturn.cli import main
sys.argv = ["keyturn", "serve", "--port", "0", "--data", sys.argv[1]]
main()
"""


def test_a_log_that_nobody_reads_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    own = os.open(f"/proc/self/fd/{writes}", os.O_WRONLY | os.O_NONBLOCK)
    environ = {"PATH": os.environ["PATH"], "GROQ_API_KEY": "gsk_planted_secret_of_groq_1", "PROXY_API_KEY": KEY}
    command = [sys.executable, "-c", SERVE, str(tmp_path / "data")]
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL, stderr=writes)
    os.close(writes)
    try:
        said = b""
        while b"keyturn listens on" not in said:
            said += os.read(reads, 4096)
        with suppress(BlockingIOError):
            while True:
                os.write(own, b"x" * 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20.0) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reads)
        os.close(own)
