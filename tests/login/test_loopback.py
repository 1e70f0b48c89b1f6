"""The browser's answer on 127.0.0.1: one is taken, by its nonce; the device flow keeps to RFC 8628."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from keyturn.core import Secret
from keyturn.dispatch import SystemClock
from keyturn.errors import KeyturnError
from keyturn.login import Callback, at_address, await_device, begin_device, who_is
from keyturn.providers import CATALOG, DeviceCode
from tests.support import virtual
from tests.support.authorities import Authority, Routed

HUGGINGFACE = CATALOG["huggingface"]


async def get(url: str, path: str | None = None, method: str = "GET") -> bytes:
    """What a browser gets. It goes to the address, not to the name, which may mean another one here."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection("127.0.0.1", parts.port)
    target = path if path is not None else f"{parts.path}?{parts.query}"
    writer.write(f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


def on_loopback(story: Callable[[Callback], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with Callback(SystemClock(), "nonce", 0) as callback:
            await story(callback)
            url = callback.url
        with pytest.raises(OSError, match=r"refused|Connect"):
            await get(url)

    asyncio.run(main())


def test_OAU_01_one_answer_is_taken_and_nothing_else() -> None:
    async def story(callback: Callback) -> None:
        waiting = asyncio.ensure_future(callback.code(20))
        idle = socket.create_connection(("127.0.0.1", urlsplit(callback.url).port or 0))
        for path in ("/favicon.ico", "/callback/other?code=evil", "/callback/", "/"):
            assert b"404" in await get(callback.url, path)
        assert b"404" in await get(f"{callback.url}?code=c", method="POST")
        assert not waiting.done()
        assert b"200 OK" in await get(f"{callback.url}?code=planted-code")
        assert await waiting == Secret("planted-code")
        assert b"404" in await get(f"{callback.url}?code=another"), "the second is not taken"
        idle.close()

    on_loopback(story)


def test_OAU_01_a_refusal_ends_the_wait() -> None:
    async def story(callback: Callback) -> None:
        await get(f"{callback.url}?error=access_denied")
        with pytest.raises(KeyturnError, match="you did not allow it"):
            await callback.code(20)

    on_loopback(story)


def test_OAU_01_an_answer_may_be_pasted_and_a_wrong_one_is_told() -> None:
    async def story(callback: Callback) -> None:
        many = "&".join(f"{each}=x" for each in range(60))
        for wrong in ("http://localhost:3000/callback/wrong?code=c", "http://[", "\udc80", f"{callback.url}?{many}"):
            assert not callback.take(wrong)
        assert callback.take(f"{callback.url}?code=c\n")
        assert await callback.code(20) == Secret("c")

    on_loopback(story)


@pytest.mark.realtime
def test_OAU_01_nobody_comes() -> None:
    async def story(callback: Callback) -> None:
        with pytest.raises(KeyturnError, match=r"nothing came back from the browser within 0.01 s"):
            await callback.code(0.01)

    on_loopback(story)


def test_OAU_01_a_port_that_is_taken() -> None:
    async def main() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(KeyturnError, match="--port 0 takes a free one"),
        ):
            async with Callback(SystemClock(), "nonce", taken.getsockname()[1]):
                pass

    asyncio.run(main())


# --- by device ------------------------------------------------------------------------------------------------------


def by_device(pending: list[str], **authority: Any) -> tuple[Authority, list[float], str]:
    """The authority after a login that it puts off as *pending* says; the pauses between polls, and the token."""
    clock = virtual.VirtualClock()
    asked_at: list[float] = []
    play = Authority(clock)
    play.pending, play.interval = list(pending), 5
    for name, value in authority.items():
        setattr(play, name, value)

    async def main() -> str:
        transport = Routed(play)
        device = await begin_device(transport, clock, HUGGINGFACE, "app")
        asked_at.append(clock.mono())
        grant = play._grant

        def watched(*args: Any) -> Any:
            asked_at.append(clock.mono())
            return grant(*args)

        play._grant = watched  # type: ignore[method-assign, assignment]
        granted = await await_device(transport, clock, HUGGINGFACE, "app", device)
        assert granted.refresh is not None
        assert await who_is(transport, clock, HUGGINGFACE, granted.token) == "ada"
        return granted.token.reveal()

    token = virtual.run(main)
    return play, [after - before for before, after in pairwise(asked_at)], token


def test_OAU_01_slow_down_adds_five_seconds_for_good() -> None:
    play, pauses, token = by_device(["authorization_pending", "slow_down", "authorization_pending"])
    assert pauses == [5, 5, 10, 10]
    assert token == "access-1"
    assert play.asked[-1]["device_code"] == "planted-device-code"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["access_denied"], "you did not allow it"),
        (["authorization_pending", "expired_token"], "the code has expired"),
        (["authorization_pending"] * 500, "the code has expired"),
        (["invalid_client"], "refused the login: invalid_client"),
    ],
    ids=["denied", "expired", "never typed", "no such app"],
)
def test_OAU_01_a_device_that_is_not_let_in(answers: list[str], said: str) -> None:
    with pytest.raises(KeyturnError, match=said):
        by_device(answers)


def test_OAU_01_a_server_that_cannot_be_reached_is_asked_again() -> None:
    clock = virtual.VirtualClock()
    play = Authority(clock)
    device = DeviceCode(Secret("d"), "u", "https://x", "", 900, 5)

    async def main() -> None:
        play.unreachable = True
        waiting = asyncio.create_task(await_device(Routed(play), clock, HUGGINGFACE, "app", device))
        await clock.sleep_until(clock.mono() + 12)
        play.unreachable = False
        assert (await waiting).token.reveal() == "access-1"

    virtual.run(main)


def test_the_authorisation_server_may_stand_elsewhere() -> None:
    moved = at_address(HUGGINGFACE, "http://127.0.0.1:9/")
    assert moved.signs_in["token"] == "http://127.0.0.1:9/oauth/token"
    assert moved.signs_in["device"] == "http://127.0.0.1:9/oauth/device"
