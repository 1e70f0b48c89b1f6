"""What a review with real sockets found: each of these failed once."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from .peers import HERE, Line, Peer, fault_of, ignore, opened, plain, request, run

pytestmark = pytest.mark.realtime


@pytest.mark.parametrize("size", [270_000, 300_000])
def test_a_whole_answer_over_tls_survives_a_slow_reader_and_a_peer_that_closes(loop: str, size: int) -> None:
    """TLS reads on while its reader pauses; what waits in the parser then is not lost when the connection ends."""
    body = b"0123456789" * (size // 10)

    async def script(line: Line) -> None:
        await line.request()
        chunks = b"".join(b"3e8\r\n%b\r\n" % body[start : start + 1000] for start in range(0, size, 1000))
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    async def main() -> None:
        trust = ssl.create_default_context(cafile=str(HERE / "localhost.pem"))
        async with Peer(script, certificate="localhost.pem") as peer, opened(tls=trust) as http:
            answer = await http.send(request(peer.url.replace("127.0.0.1", "localhost")), ignore)
            await asyncio.sleep(0.05)
            assert await answer.read(1 << 20) == body

    run(loop, main)


def test_one_stale_connection_gives_up_all_idle_ones_to_the_same_place(loop: str) -> None:
    """After a sleep or a change of networks all of them are dead: the call is sent again once, and that must do."""
    gone = False

    async def script(line: Line) -> None:
        while True:
            fresh = gone
            await line.request()
            if gone and not fresh and line.number <= 4:
                line.reset()
                return
            await asyncio.sleep(0.02)
            await line.say(plain(b"1"))

    async def main() -> None:
        nonlocal gone
        async with Peer(script) as peer, opened() as http:

            async def call() -> bytes:
                return await (await http.send(request(peer.url), ignore)).read(99)

            await asyncio.gather(*(call() for _ in range(4)))
            gone = True
            assert (await fault_of(call())).kind == "stale"
            assert await call() == b"1"

    run(loop, main)


def test_a_peer_that_dies_long_after_it_took_the_request_is_not_stale(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has most likely worked on it: sent again at once, the work would be done and paid twice."""
    monkeypatch.setattr("keyturn.transport.http.STALE_WITHIN", 0.1)

    async def script(line: Line) -> None:
        await line.request()
        await line.say(plain(b"1"))
        await line.request()
        await asyncio.sleep(0.2)

    async def main() -> None:
        async with Peer(script) as peer, opened() as http:
            await (await http.send(request(peer.url), ignore)).read(99)
            assert (await fault_of(http.send(request(peer.url), ignore))).kind == "reset"

    if loop == "uvloop":
        run(loop, main)
