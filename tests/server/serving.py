"""A server process over a fake gateway, for tests of signals: `python -m tests.server.serving DATA SECONDS [GRACE]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from keyturn.config import DataFolder
from keyturn.core import Call
from keyturn.dispatch import Gateway, Reply, SystemClock
from keyturn.errors import Draining, KeyturnError
from keyturn.server import run
from keyturn.wire import error_body

from .fakes import JSON, FakeGateway, FakeObserver


class Printed(FakeObserver):
    def say(self, text: str) -> None:
        print(text, flush=True)


def main(data: Path, seconds: float, grace: float = 0.0) -> int:
    """Answers each call after *seconds*; with `stream` in its model, an event now and one then."""

    class Later:
        def __init__(self) -> None:
            self._pieces = [b"data: 1\n\n", b"data: [DONE]\n\n"]

        def __aiter__(self) -> Later:
            return self

        async def __anext__(self) -> bytes:
            if not self._pieces:
                raise StopAsyncIteration
            if len(self._pieces) == 1:
                await asyncio.sleep(seconds)
            return self._pieces.pop(0)

        def close(self) -> None:
            gateway.inflight -= 1
            gateway.idle.set()

    async def answer(call: Call) -> Reply:
        if gateway.draining:
            error: KeyturnError = Draining("the gateway is shutting down")
            return Reply(503, [JSON], error_body(error, "", ()))
        if call.model == "stream":
            gateway.inflight += 1
            return Reply(200, [(b"content-type", b"text/event-stream")], stream=Later())
        await asyncio.sleep(seconds)
        return Reply(200, [JSON], b'{"late": true}')

    gateway = FakeGateway(answer, SystemClock(), port=0, drain_seconds=5.0, grace_seconds=grace)
    folder = DataFolder(data)
    folder.lock()
    try:
        return run(
            cast(Gateway, gateway),
            folder=folder,
            observer=Printed(),
            on_ready=lambda url: print(f"ready {url}", flush=True),
        )
    finally:
        folder.release()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(float, sys.argv[2:])))
