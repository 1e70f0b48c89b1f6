"""Transports: the kind of the request picks the transport, and what is not needed is not loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import LocalRequest
from keyturn.transport import Transports
from tests.support.tools import Tools

from .peers import LoopClock, Peer, always, ignore, plain, request, run

LIMIT = 1 << 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"from the app"})


def test_each_kind_of_request_finds_its_transport(loop: str, tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    tools.add("tool", "cat")

    async def main() -> None:
        transports = Transports(LoopClock(), {"demo": app})
        async with Peer(always(plain(b"from the peer"))) as peer:
            answer = await transports.send(LocalRequest("demo", request(peer.url)), ignore)
            assert await answer.read(LIMIT) == b"from the app"
            assert transports.open_connections == 0
            answer = await transports.send(request(peer.url), ignore)
            assert await answer.read(LIMIT) == b"from the peer"
            assert (transports.acquired, transports.open_connections) == (0, 1)
            answer = await transports.send(tools.request("tool", stdin=b"from the tool"), ignore)
            assert await answer.read(LIMIT) == b"from the tool"
            with pytest.raises(TypeError, match="str"):
                await transports.send("a word", ignore)  # type: ignore[arg-type]
            await transports.close()
            assert transports.open_connections == 0

    run(loop, main)


def test_a_process_that_asks_no_upstream_loads_no_http_client() -> None:
    script = """
import asyncio, sys
from keyturn.core import HttpRequest, LocalRequest
from keyturn.transport import Transports
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"demo"})
async def main():
    transports = Transports(None, {"demo": app})
    answer = await transports.send(LocalRequest("demo", HttpRequest("GET", "http://demo/", ())), lambda: None)
    print((await answer.read(100)).decode(), "aiohttp" in sys.modules)
    await transports.close()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "demo False\n"


def test_the_package_names_its_parts_lazily() -> None:
    import keyturn.transport

    assert keyturn.transport.HttpTransport.__name__ == "HttpTransport"
    with pytest.raises(AttributeError, match="Httpx"):
        keyturn.transport.Httpx  # noqa: B018
