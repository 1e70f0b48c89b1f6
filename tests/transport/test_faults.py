"""HttpTransport when something breaks. Names of tests end in their row of the fault matrix."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .peers import HERE, Line, Names, Peer, always, fault_of, ignore, once, opened, plain, request, run, until

LIMIT = 1 << 20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def trusting(certificate: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=HERE / certificate)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue of new connections is full: further ones get no answer at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in waiting:
            each.close()


# Before a connection stands


@pytest.mark.parametrize(
    ("host", "kind"), [("name.invalid", "dns"), ("hangs.example", "connect_timeout"), ("010.1", "dns")]
)
def test_a_name_that_does_not_resolve_1(loop: str, host: str, kind: str) -> None:
    async def main() -> None:
        async with opened(resolver=Names()) as http:
            sent: list[int] = []
            url = f"https://user:pw-in-url@{host}/v1"
            fault = await fault_of(http.send(request(url, connect_timeout=0.05), lambda: sent.append(1)))
            assert (fault.kind, fault.sent, sent) == (kind, False, [])
            assert host in fault.message
            assert "pw-in-url" not in fault.message
            assert http.acquired == 0

    run(loop, main)


def test_a_name_is_asked_for_once_while_its_answer_is_fresh(loop: str) -> None:
    async def main() -> None:
        names = Names()
        async with Peer(always(plain(b"ok", b"Connection: close"))) as peer, opened(resolver=names) as http:
            for _ in range(3):
                answer = await http.send(request(f"http://localhost:{peer.port}/"), ignore)
                assert await answer.read(LIMIT) == b"ok"
            assert (peer.accepted, names.asked) == (3, 1)

    run(loop, main)


def test_connection_refused_2(loop: str) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
            async with opened() as http:
                fault = await fault_of(http.send(request(url), ignore))
                assert (fault.kind, fault.sent) == ("refused", False)
                assert http.acquired == 0

    run(loop, main)


def test_a_black_hole_ends_at_the_connect_timeout_3(loop: str) -> None:
    async def main() -> None:
        with black_hole() as port:
            async with opened() as http:
                for scheme in ("http", "https"):
                    url = f"{scheme}://127.0.0.1:{port}/"
                    fault = await fault_of(http.send(request(url, connect_timeout=0.05, tls_timeout=30.0), ignore))
                    assert (fault.kind, fault.sent) == ("connect_timeout", False)
                    assert http.acquired == 0

    run(loop, main)


@pytest.mark.parametrize(
    ("certificate", "host", "trusted", "why"),
    [
        ("localhost.pem", "localhost", "", "self-signed certificate"),
        ("expired.pem", "localhost", "expired.pem", "certificate has expired"),
        ("localhost.pem", "127.0.0.1", "localhost.pem", "not valid for '127.0.0.1'"),
    ],
)
def test_a_bad_certificate_never_gets_the_key_4(loop: str, certificate: str, host: str, trusted: str, why: str) -> None:
    async def main() -> None:
        heard: list[bytes] = []

        async def script(line: Line) -> None:
            heard.append(await line.reader.read(100))

        tls = trusting(trusted) if trusted else None
        async with Peer(script, certificate=certificate) as peer, opened(tls=tls, resolver=Names()) as http:
            fault = await fault_of(http.send(request(f"https://{host}:{peer.port}/"), ignore))
            assert (fault.kind, fault.sent) == ("tls", False)
            assert why in fault.message
            assert http.open_connections == 0
        assert not any(heard)

    run(loop, main)


def test_a_handshake_that_stalls_ends_at_the_tls_timeout_4(loop: str) -> None:
    async def main() -> None:
        async with Peer(Line.until_gone) as peer, opened() as http:
            url = f"https://127.0.0.1:{peer.port}/"
            fault = await fault_of(http.send(request(url, connect_timeout=30.0, tls_timeout=0.05), ignore))
            assert (fault.kind, fault.sent) == ("tls", False)
            assert http.open_connections == 0
            await until(lambda: peer.gone == 1)

    run(loop, main)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_peer_that_does_not_speak_tls_4(loop: str, reply: bytes) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.reader.read(1)
            await line.say(reply)

        async with Peer(script) as peer, opened() as http:
            fault = await fault_of(http.send(request(f"https://127.0.0.1:{peer.port}/"), ignore))
            assert (fault.kind, fault.sent) == ("tls", False)

    run(loop, main)


def test_tls_works_and_its_connection_is_used_again(loop: str) -> None:
    async def main() -> None:
        tls = trusting("localhost.pem")
        async with (
            Peer(always(plain(b"secret")), certificate="localhost.pem") as peer,
            opened(tls=tls, resolver=Names()) as http,
        ):
            for size in (10, 300_000):
                sent: list[int] = []
                url = f"https://localhost:{peer.port}/"
                answer = await http.send(request(url, b"x" * size), lambda: sent.append(1))  # noqa: B023
                assert await answer.read(LIMIT) == b"secret"
                assert sent == [1]
            assert peer.accepted == 1

    run(loop, main)


@pytest.mark.parametrize("phase", ["dns", "tcp", "tls"])
def test_a_call_cancelled_while_it_connects_leaves_nothing(loop: str, phase: str) -> None:
    async def main() -> None:
        with black_hole() as hole:
            async with Peer(Line.until_gone) as peer, opened(resolver=Names()) as http:
                url = {
                    "dns": "http://hangs.example/",
                    "tcp": f"http://127.0.0.1:{hole}/",
                    "tls": f"https://127.0.0.1:{peer.port}/",
                }[phase]
                calling = asyncio.create_task(http.send(request(url), ignore))
                await until(lambda: http.acquired == 1 and (phase != "tls" or peer.accepted == 1))
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
                assert (http.acquired, http.open_connections) == (0, 0)
                await until(lambda: peer.gone == peer.accepted)

    run(loop, main)


def test_the_system_says_that_a_name_does_not_exist_1() -> None:
    async def main() -> None:
        async with opened() as http:
            fault = await fault_of(http.send(request("https://name.invalid/v1"), ignore))
            assert (fault.kind, fault.message) == ("dns", "name.invalid:443: Name or service not known")

    run("asyncio", main)  # uvloop asks the network itself, which tests do not have


# Between request and answer


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_reused_connection_that_the_peer_closes_is_stale_5(loop: str, method: str, reset: bool) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            await line.say(plain(b"ok"))
            if line.number == 1:
                await line.request()
                if reset:
                    line.reset()
                return
            await line.request()
            await line.say(plain(b"again"))

        async with Peer(script) as peer, opened() as http:
            again = request(peer.url, b"" if method == "GET" else b"{}", method=method)
            assert await (await http.send(again, ignore)).read(LIMIT) == b"ok"
            fault = await fault_of(http.send(again, ignore))
            assert (fault.kind, fault.sent) == ("stale", True)
            assert (http.acquired, http.open_connections) == (0, 0)
            assert await (await http.send(again, ignore)).read(LIMIT) == b"ok"

    run(loop, main)


def test_a_connection_that_was_closed_while_idle_is_not_used_5(loop: str) -> None:
    async def main() -> None:
        async with Peer(once(plain(b"ok"))) as peer, opened() as http:
            for number in (1, 2, 3):
                assert await (await http.send(request(peer.url), ignore)).read(LIMIT) == b"ok"
                await until(lambda: peer.gone == number)  # noqa: B023
                for _ in range(5):
                    await asyncio.sleep(0)
            assert peer.accepted == 3

    run(loop, main)


@pytest.mark.parametrize("reset", [False, True])
def test_a_fresh_connection_closed_without_an_answer_is_reset_6(loop: str, reset: bool) -> None:
    async def main() -> None:
        async with Peer(once(reset=reset)) as peer, opened() as http:
            sent: list[int] = []
            fault = await fault_of(http.send(request(peer.url), lambda: sent.append(1)))
            assert (fault.kind, fault.sent, sent) == ("reset", True, [1])
            assert peer.accepted == 1

    run(loop, main)


def test_a_connection_lost_while_the_body_is_written_was_not_sent_6(loop: str) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            line.reset()

        async with Peer(script) as peer, opened() as http:
            sent: list[int] = []
            fault = await fault_of(http.send(request(peer.url, b"x" * 40_000_000), lambda: sent.append(1)))
            assert (fault.kind, fault.sent, sent) == ("reset", False, [])

    run(loop, main)


@pytest.mark.parametrize("reused", [False, True])
def test_a_cut_within_the_headers_is_closed(loop: str, reused: bool) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            if reused:
                await line.request()
                await line.say(plain(b"ok"))
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Ty")

        async with Peer(script) as peer, opened() as http:
            if reused:
                await (await http.send(request(peer.url), ignore)).read(LIMIT)
            assert (await fault_of(http.send(request(peer.url), ignore))).kind == "closed"

    run(loop, main)


def test_headers_and_then_silence_end_with_a_cancellation_7(loop: str) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            await line.say(CHUNKED)
            await line.until_gone()

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            reading = asyncio.create_task(anext(answer.chunks()))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert (http.acquired, http.open_connections) == (0, 0)
            await until(lambda: peer.gone == 1)

    run(loop, main)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>hello</html>\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 10_000) for n in range(10)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: br\r\n\r\nxx",
    ],
    ids=["html", "status", "101", "two-lengths", "length", "long-header", "many", "sum", "nul", "br"],
)
def test_an_answer_that_is_no_answer_is_protocol_38(loop: str, raw: bytes) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            line.writer.write(raw)
            await line.until_gone()

        async with Peer(script) as peer, opened() as http:
            fault = await fault_of(http.send(request(peer.url), ignore))
            assert (fault.kind, fault.sent) == ("protocol", True)
            assert (http.acquired, http.open_connections) == (0, 0)
            await until(lambda: peer.gone == 1)

    run(loop, main)


def test_a_bare_line_break_in_a_header_makes_no_header_of_the_previous_value_38(loop: str) -> None:
    async def main() -> None:
        async with (
            Peer(once(b"HTTP/1.1 200 OK\r\nx: a\r\n evil: 1\r\nContent-Length: 0\r\n\r\n")) as peer,
            opened() as http,
        ):
            answer = await http.send(request(peer.url), ignore)
            assert "evil" not in answer.headers
            answer.close()

    run(loop, main)


# Within the answer


@pytest.mark.parametrize(
    ("raw", "reset", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", False, "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", True, "reset"),
        (CHUNKED + b"5\r\nhello\r\n", False, "closed"),
        (CHUNKED + b"5\r\nhello\r\n", True, "reset"),
        (CHUNKED + b"5\r\nhello\r\n9\r\n", False, "closed"),
        (CHUNKED + b"5\r\nhello\r\nZZ\r\nworld", False, "protocol"),
        (CHUNKED + b"5\r\nhelloXX", False, "protocol"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", True, "reset"),
    ],
)
@pytest.mark.parametrize("how", ["read", "chunks", "late"])
def test_a_cut_body_29_31(loop: str, raw: bytes, reset: bool, kind: str, how: str) -> None:
    async def main() -> None:
        seen = asyncio.Event()

        async def script(line: Line) -> None:
            await line.request()
            head, body = raw.split(b"\r\n\r\n", 1)
            await line.say(head + b"\r\n\r\n")
            await seen.wait()
            await line.say(body)
            if reset:  # a reset throws away what the receiver has not read yet, so let it be read
                for _ in range(20):
                    await asyncio.sleep(0)
                line.reset()

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            seen.set()
            if how == "read":
                fault = await fault_of(answer.read(LIMIT))
            else:
                if how == "late":
                    await until(lambda: peer.gone == 1)
                    for _ in range(5):
                        await asyncio.sleep(0)
                chunks = answer.chunks()
                came = await anext(chunks)
                while len(came) < 5:
                    came += await anext(chunks)
                assert came == b"hello"
                fault = await fault_of(anext(chunks))
            assert (fault.kind, fault.sent) == (kind, True)
            assert (http.acquired, http.open_connections) == (0, 0)

    run(loop, main)


def test_a_body_that_ends_with_its_connection_is_complete(loop: str) -> None:
    async def main() -> None:
        async with Peer(once(b"HTTP/1.0 200 OK\r\n\r\n", b"hel", b"lo")) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            assert await answer.read(LIMIT) == b"hello"
            assert http.open_connections == 0

    run(loop, main)


def test_chunks_of_one_byte_in_packets_of_one_byte_35(loop: str) -> None:
    async def main() -> None:
        text = b"data: {}\r\n\r\n"
        framed = CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"
        packets = [framed[at : at + 1] for at in range(len(framed))]
        async with Peer(always(*packets)) as peer, opened() as http:
            for _ in range(2):
                answer = await http.send(request(peer.url), ignore)
                assert b"".join([chunk async for chunk in answer.chunks()]) == text
            assert peer.accepted == 1

    run(loop, main)


def test_ten_megabytes_in_one_event_35(loop: str) -> None:
    async def main() -> None:
        text = b"data: " + b"x" * 10_000_000 + b"\n\n"
        async with Peer(always(CHUNKED + b"%x\r\n" % len(text) + text + b"\r\n0\r\n\r\n")) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            size = 0
            async for chunk in answer.chunks():
                size += len(chunk)
                assert len(chunk) <= 1 << 20
            assert size == len(text)

    run(loop, main)


# What must not come back from the pool


@pytest.mark.parametrize("behind", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b"garbage"])
def test_bytes_behind_an_answer_never_become_the_next_answer_I9(loop: str, behind: bytes) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
            await asyncio.sleep(0)
            await line.say(b"lo" + behind)
            await line.request()
            await line.say(plain(b"good"))

        async with Peer(script) as peer, opened() as http:
            for _ in range(2):
                answer = await http.send(request(peer.url), ignore)
                assert await answer.read(LIMIT) == b"hello"
                for _ in range(5):
                    await asyncio.sleep(0)
            assert peer.accepted == 2

    run(loop, main)


def test_what_a_peer_says_while_idle_never_becomes_an_answer_I9(loop: str) -> None:
    async def main() -> None:
        said = asyncio.Event()

        async def script(line: Line) -> None:
            await line.request()
            await line.say(plain(b"ok"), plain(b"idle for too long", status=b"408 Request Timeout"))
            said.set()
            await line.until_gone()

        async with Peer(script) as peer, opened() as http:
            for _ in range(2):
                said.clear()
                answer = await http.send(request(peer.url), ignore)
                assert (answer.status, await answer.read(LIMIT)) == (200, b"ok")
                await said.wait()
                for _ in range(5):
                    await asyncio.sleep(0)
            assert peer.accepted == 2

    run(loop, main)


def test_connection_close_is_honoured(loop: str) -> None:
    async def main() -> None:
        async with Peer(always(plain(b"ok", b"Connection: close"))) as peer, opened() as http:
            for _ in range(2):
                assert await (await http.send(request(peer.url), ignore)).read(LIMIT) == b"ok"
                assert http.open_connections == 0
            assert peer.accepted == 2

    run(loop, main)
