"""HttpTransport when all goes well: what is written, what is read, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyturn.core import LocalRequest, Secret
from keyturn.errors import TransportError
from keyturn.transport import HttpTransport

from .peers import SECRET, Line, Peer, always, fault_of, ignore, opened, plain, request, run, until

LIMIT = 1 << 20


def test_a_request_is_written_as_given_and_no_header_is_added(loop: str) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def script(line: Line) -> None:
            seen.append(await line.request())
            await line.say(plain(b"{}"))

        async with Peer(script) as peer, opened() as http:
            url = f"http://127.0.0.1:{peer.port}/v1/a%2Fb/%7Ec?x=%20y&z=a+b"
            answer = await http.send(request(url, b'{"a":1}'), ignore)
            assert await answer.read(LIMIT) == b"{}"
        head, _, body = seen[0].partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"POST /v1/a%2Fb/%7Ec?x=%20y&z=a+b HTTP/1.1",
            b"Host: 127.0.0.1:%d" % peer.port,
            b"content-type: application/json",
            b"accept-encoding: identity",
            b"user-agent: keyturn/0",
            b"authorization: Bearer " + SECRET.encode(),
            b"Content-Length: 7",
        ]
        assert body == b'{"a":1}'

    run(loop, main)


def test_a_get_has_no_body_and_is_sent_once_even_when_it_fails(loop: str) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def script(line: Line) -> None:
            seen.append(await line.request())

        async with Peer(script) as peer, opened() as http:
            fault = await fault_of(http.send(request(peer.url, b"", method="GET"), ignore))
            assert fault.kind == "reset"
        assert len(seen) == 1
        assert b"ontent-" not in seen[0].replace(b"content-type: application/json", b"")

    run(loop, main)


@pytest.mark.parametrize("size", [0, 1, 2_000, 70_000, 5_000_000])
def test_on_sent_comes_once_for_bodies_of_all_sizes(loop: str, size: int) -> None:
    async def main() -> None:
        async with Peer(always(plain(b"ok"))) as peer, opened() as http:
            for _ in range(2):  # on a fresh connection and on a reused one
                sent: list[int] = []
                answer = await http.send(request(peer.url, b"x" * size), lambda: sent.append(1))  # noqa: B023
                assert await answer.read(LIMIT) == b"ok"
                assert sent == [1]
            assert (peer.accepted, http.open_connections, http.acquired) == (1, 1, 0)

    run(loop, main)


def test_on_sent_waits_until_the_peer_has_taken_the_body(loop: str) -> None:
    async def main() -> None:
        reads = asyncio.Event()
        begun = asyncio.Event()

        async def script(line: Line) -> None:
            begun.set()
            await reads.wait()
            await line.request()
            await line.say(plain(b"ok"))

        async with Peer(script) as peer, opened() as http:
            sent: list[int] = []
            big = b"x" * 15_000_000
            sending = asyncio.create_task(http.send(request(peer.url, big), lambda: sent.append(1)))
            await begun.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            assert not sent
            reads.set()
            assert await (await sending).read(LIMIT) == b"ok"
            assert sent == [1]

    run(loop, main)


def test_an_answer_before_the_whole_request_was_read_costs_the_connection(loop: str) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.reader.readuntil(b"\r\n\r\n")
            await line.say(plain(b"too big", status=b"413 Too Large"))
            await asyncio.Event().wait()

        async with Peer(script) as peer, opened() as http:
            sent: list[int] = []
            answer = await http.send(request(peer.url, b"x" * 40_000_000), lambda: sent.append(1))
            assert answer.status == 413
            assert await answer.read(LIMIT) == b"too big"
            answer.close()
            await until(lambda: http.acquired == 0)
            assert http.open_connections == 0
            assert not sent

    run(loop, main)


def test_headers_are_a_plain_dict_with_lower_case_names(loop: str) -> None:
    async def main() -> None:
        raw = plain(
            b"", b"X-RateLimit-Limit: 30", b"Set-Cookie: a=1", b"set-cookie: b=2", "X-Näme: ü".encode("latin-1")
        )
        raw = raw.replace("X-Näme".encode("latin-1"), b"X-Name")
        async with Peer(always(raw)) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            assert answer.headers == {
                "content-type": "application/json",
                "content-length": "0",
                "x-ratelimit-limit": "30",
                "set-cookie": "a=1, b=2",
                "x-name": "ü",
            }
            assert await answer.read(LIMIT) == b""
            again = await http.send(request(peer.url), ignore)
            assert await again.read(LIMIT) == b""

    run(loop, main)


def test_chunks_come_as_they_arrive_and_the_connection_goes_back_with_the_last(loop: str) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(line: Line) -> None:
            for _ in range(2):
                await line.request()
                await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n")
                await go.wait()
                go.clear()
                await line.say(b"3\r\na\n\n\r\n3\r\nb\n\n\r\n", b"0\r\n\r\n")

        async with Peer(script) as peer, opened() as http:
            for _ in range(2):
                answer = await http.send(request(peer.url), ignore)
                chunks = answer.chunks()
                assert await anext(chunks) == b"data: "
                assert http.acquired == 1
                go.set()
                assert b"".join([chunk async for chunk in chunks]) == b"a\n\nb\n\n"
                assert (http.acquired, http.open_connections) == (0, 1)
                answer.close()
                assert (http.acquired, http.open_connections) == (0, 1)
            assert peer.accepted == 1

    run(loop, main)


def test_waiting_chunks_are_joined(loop: str) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def script(line: Line) -> None:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"one", b"two", b"six")
            done.set()

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            await done.wait()
            await until(lambda: http.acquired == 0)
            assert [chunk async for chunk in answer.chunks()] == [b"onetwosix"]

    run(loop, main)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_read_stops_at_its_limit(loop: str, framing: str) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            if framing == "length":
                await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
                await line.until_gone()
                return
            await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await line.say(b"64\r\n" + b"x" * 100 + b"\r\n")

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            fault = await fault_of(answer.read(1000))
            assert fault.kind == "too_large"
            assert (http.acquired, http.open_connections) == (0, 0)
            await until(lambda: peer.gone == 1)

    run(loop, main)


def test_close_ends_an_unfinished_exchange_at_once(loop: str) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await line.until_gone()

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            assert await anext(answer.chunks()) == b"hello"
            answer.close()
            answer.close()
            assert (http.acquired, http.open_connections) == (0, 0)
            assert (await fault_of(answer.read(LIMIT))).kind == "closed"
            await until(lambda: peer.gone == 1)

    run(loop, main)


def test_close_of_the_transport_ends_running_exchanges(loop: str) -> None:
    async def main() -> None:
        async def script(line: Line) -> None:
            await line.request()
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            await line.until_gone()

        async with Peer(script) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            read = await http.send(request(peer.url), ignore)
            assert await anext(read.chunks()) == b"hello"
            reading = asyncio.create_task(fault_of(read.read(LIMIT)))
            await asyncio.sleep(0)
            await http.close()
            await until(lambda: peer.gone == 2)
            assert (await asyncio.wait_for(reading, 5)).kind == "closed", "who waits for more is told"
            assert b"".join([await anext(answer.chunks())]) == b"hello"
            assert (await fault_of(answer.read(LIMIT))).kind == "closed"
            assert (await fault_of(http.send(request(peer.url), ignore))).kind == "refused"

    run(loop, main)


def test_close_of_the_transport_while_a_call_connects(loop: str) -> None:
    async def main() -> None:
        async with Peer(Line.until_gone) as peer, opened() as http:
            calling = asyncio.create_task(fault_of(http.send(request(peer.url), ignore)))
            await until(lambda: http.acquired == 1)
            await http.close()
            assert (await calling).kind in ("closed", "reset")
            await until(lambda: peer.gone == peer.accepted)

    run(loop, main)


def test_a_redirect_is_returned_as_it_came_26(loop: str) -> None:
    async def main() -> None:
        async with Peer(always(plain(b"canary"))) as canary:
            location = b"Location: " + canary.url.encode()
            async with Peer(always(plain(b"", location, status=b"302 Found"))) as peer, opened() as http:
                answer = await http.send(request(peer.url), ignore)
                assert (answer.status, answer.headers["location"]) == (302, canary.url)
                assert await answer.read(LIMIT) == b""
            assert canary.accepted == 0

    run(loop, main)


def test_cookies_are_not_kept_and_proxies_not_taken_from_the_environment(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def main() -> None:
        seen: list[bytes] = []

        async def script(line: Line) -> None:
            while True:
                seen.append(await line.request())
                await line.say(plain(b"", b"Set-Cookie: session=1; Path=/"))

        async with Peer(script) as peer, opened() as http:
            for _ in range(2):
                await (await http.send(request(peer.url), ignore)).read(LIMIT)
        assert len(seen) == 2
        assert b"ookie" not in seen[1]

    run(loop, main)


@pytest.mark.parametrize("auth", [("authorization", "Bearer ", Secret(SECRET)), None])
def test_user_and_password_of_the_url_count_only_where_there_is_no_key(loop: str, auth: object) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def script(line: Line) -> None:
            seen.append(await line.request())
            await line.say(plain(b""))

        async with Peer(script) as peer, opened() as http:
            url = peer.url.replace("http://", "http://ada:lace@")
            await (await http.send(request(url, auth=auth), ignore)).read(LIMIT)
        wanted = b"Bearer " + SECRET.encode() if auth else b"Basic YWRhOmxhY2U="
        assert [line for line in seen[0].split(b"\r\n") if b"uthorization" in line] == [
            (b"authorization: " if auth else b"Authorization: ") + wanted
        ]

    run(loop, main)


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "a\rb", "\x7f"])
@pytest.mark.parametrize("place", ["secret", "header", "name"])
def test_control_characters_never_leave_in_a_header(value: str, place: str) -> None:
    async def main() -> None:
        async with Peer(always(plain(b""))) as peer, opened() as http:
            places: dict[str, dict[str, Any]] = {
                "secret": {"auth": ("authorization", "Bearer ", Secret(value))},
                "header": {"headers": (("x-title", value),)},
                "name": {"headers": ((value, "x"),)},
            }
            more = places[place]
            fault = await fault_of(http.send(request(peer.url, **more), ignore))
            assert (fault.kind, fault.sent) == ("protocol", False)
            assert value not in fault.message
            assert peer.accepted == 0

    run("asyncio", main)


@pytest.mark.parametrize("url", ["ftp://localhost/x", "/v1/chat", "http:///x", "http://localhost:99999/", ""])
def test_an_address_that_cannot_be_used_is_a_protocol_fault(url: str) -> None:
    async def main() -> None:
        async with opened() as http:
            assert (await fault_of(http.send(request(url), ignore))).kind == "protocol"
        await http.close()

    run("asyncio", main)


def test_a_line_break_in_a_path_is_refused(loop: str) -> None:
    async def main() -> None:
        async with Peer(always(plain(b""))) as peer, opened() as http:
            url = f"http://127.0.0.1:{peer.port}/v1/x y\x0b"
            fault = await fault_of(http.send(request(url), ignore))
            assert (fault.kind, fault.sent) == ("protocol", False)
            assert http.open_connections == 0

    run(loop, main)


def test_only_http_requests_are_taken() -> None:
    async def main() -> None:
        http = HttpTransport(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="LocalRequest"):
            await http.send(LocalRequest("demo", request("http://localhost/")), ignore)

    run("asyncio", main)


def test_transport_errors_tell_whether_the_request_was_sent() -> None:
    assert TransportError("reset", "x").sent is False
