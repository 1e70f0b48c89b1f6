"""An event loop that is blocked for two seconds: what runs goes on, what can wait is refused for a moment.

The two seconds pass on the clock of the gateway; timers that became due fire together when the loop goes on, as they do
after a real stall.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import Attempt, Call, Secret
from keyturn.dispatch import Gateway, build
from keyturn.server import Access, App, Pages, Server, bind
from keyturn.simulator import Fault, Simulator
from tests.server.fakes import FakeObserver
from tests.server.test_listener import MovedClock
from tests.support import virtual
from tests.support.world import APP, World

KEY = "kt-the-callers-key-0123456789"
MODEL = "groq/llama-3.1-8b-instant"


async def answered(port: int, *headers: str, stream: bool = False) -> tuple[int, str]:
    """Status and body of one call on a connection of its own."""
    body = json.dumps({"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {KEY}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
    told = (await reader.read()).decode()
    writer.close()
    return int(told.split()[1]), told.partition("\r\n\r\n")[2]


@pytest.mark.realtime
def test_row_50_a_loop_that_is_blocked_for_2_s_loses_no_lease_and_sheds_batch(tmp_path: Path) -> None:
    clock = MovedClock()
    world = World({"groq": 2})
    upstream = Simulator(clock, virtual.seeded(0), keys=world.rules, faults=[Fault(stream=True, pace=0.05)])
    gateway: Gateway = build(world.config(), clock=clock, apps={APP: upstream})

    async def block(call_id: str, call: Call, attempt: Attempt) -> None:
        if not call.stream and not blocked:
            blocked.append(call_id)
            time.sleep(0.1)  # noqa: ASYNC251 - the fault itself
            clock.stall(1.9)

    async def main() -> None:
        gateway.before_attempt = block
        sock = bind("127.0.0.1", 0)
        port = sock.getsockname()[1]
        access = Access(bound_host="127.0.0.1", allowed_hosts=(), caller_key=Secret(KEY), admin_key=None)
        pages = Pages(gateway, FakeObserver(), DataFolder(tmp_path))
        server = Server(App(gateway, access, pages), gateway, sock)
        await server.start()
        streamed = asyncio.create_task(answered(port, stream=True))
        while not held():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
        assert (await answered(port))[0] == 200
        assert blocked
        for _ in range(1000):  # the guard measures every 100 ms
            if gateway.strain.level:
                break
            await asyncio.sleep(0.005)
        assert gateway.strain.level == 1
        refused = await answered(port, "x-keyturn-class: batch")
        assert (refused[0], json.loads(refused[1])["error"]["code"]) == (503, "overloaded")
        assert (await answered(port))[0] == 200
        status, told = await streamed
        assert status == 200
        assert "[DONE]" in told
        assert held() == 0
        assert gateway.ready() is None
        await server.stop(0.0)
        await gateway.close()

    def held() -> int:
        return int(gateway.live.standing().open)

    blocked: list[Any] = []
    asyncio.run(main())
    assert gateway.strain.shed == {("batch", "lag"): 1}
