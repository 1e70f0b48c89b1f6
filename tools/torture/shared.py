"""Many gateways on one Redis against one true limit: the upstream judges, and Redis may be killed in the middle.

Each gateway is a small process that asks for as much as it can get through the real dispatch. The upstream keeps a
rolling log of its own and refuses what is above the limit; what an exact log would have admitted is what was to be had.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from keyturn.simulator.limiters import RollingLog
from tests.support.redis_process import RedisProcess

LEAST_USE = 0.97
"""Of what an exact log would have admitted."""
CALLERS = 6
"""Calls that one gateway has under way or waiting at any time."""
DOWN_FOR = 5.0
"""Seconds from Redis's death until it is started again, empty."""
PATIENCE = 60.0
"""Seconds that all gateways may take to start."""
BODY = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"llama-3.1-8b-instant","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}'
)
REFUSED = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'


class Judge:
    """An upstream with one limit for all, which keeps a log of what it admitted and counts what it refused."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.admitted: list[float] = []
        self.refused: list[float] = []
        self._log = RollingLog(limit, window)

    async def __aenter__(self) -> Judge:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/openai/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                rows = head.lower().split(b"\r\n")
                length = next((int(row[15:]) for row in rows if row.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                writer.write(self._answer())
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _answer(self) -> bytes:
        now = time.monotonic()
        if self._log.wait(now, 1):
            self.refused.append(now)
            return _http(b"429 Too Many Requests", REFUSED)
        self._log.take(now, 1)
        self.admitted.append(now)
        return _http(b"200 OK", BODY)


def _http(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    return head + body


def shared(
    processes: int,
    seconds: float,
    window: float,
    limit: int,
    kill_redis_at: float | None = None,
    pause: float = 0.0,
    least_use: float = LEAST_USE,
) -> tuple[list[str], str]:
    """What was wrong, and the figures in a line. *least_use*: the share of an exact log's admissions that is enough.

    *limit* requests in *window* seconds for all *processes* together, which try for *seconds*, each caller with a
    *pause* between two calls. With *kill_redis_at* Redis is killed after so many seconds, and is back, empty, 5 s
    later.
    """
    least = 0.0 if kill_redis_at is not None else least_use
    return asyncio.run(_shared(processes, seconds, window, limit, kill_redis_at, pause, least))


async def _shared(
    processes: int, seconds: float, window: float, limit: int, kill_redis_at: float | None, pause: float, least: float
) -> tuple[list[str], str]:
    with tempfile.TemporaryDirectory() as place, RedisProcess(Path(place)) as redis:
        folder = Path(place)
        (folder / "config").mkdir()
        (folder / "config" / "limits.yaml").write_text(f"providers: {{ groq: {{ default: {{ rpm: {limit} }} }} }}\n")
        async with Judge(limit, window) as judge, contextlib.AsyncExitStack() as ends:
            gateways = await _start(processes, folder, redis.url, judge.url, window, seconds, pause)
            ends.callback(_end, gateways)
            async with asyncio.timeout(PATIENCE):
                for _ in range(processes):
                    await _line(gateways)
            began = time.monotonic()
            assert gateways.stdin is not None
            gateways.stdin.write(b"!" * processes)
            if kill_redis_at is not None:
                await asyncio.sleep(kill_redis_at)
                await asyncio.to_thread(redis.kill)
                await asyncio.sleep(DOWN_FOR)
                await asyncio.to_thread(redis.start)
            async with asyncio.timeout(seconds + PATIENCE):
                told = [json.loads(await _line(gateways)) for _ in range(processes)]
                await gateways.wait()
            return _verdict(judge, told, began, seconds, window, least)


def shared_limit(size: int, seed: int) -> list[str]:
    """Eight gateways at 600 requests a minute for *size* seconds."""
    found, said = shared(8, float(size), 60.0, 600)
    print(f"shared: {said}")
    return found


def shared_limit_killed(size: int, seed: int) -> list[str]:
    """A little more than the limit is asked for; Redis is killed in the middle, and comes back empty."""
    found, said = shared(8, float(size), 60.0, 600, kill_redis_at=size / 2 + 10, pause=4.0)
    print(f"shared, Redis killed: {said}")
    return found


def _verdict(
    judge: Judge, told: list[dict[str, int]], began: float, seconds: float, window: float, least: float
) -> tuple[list[str], str]:
    exact = judge.limit * (int(seconds / window) + 1)
    admitted = sum(at < began + seconds for at in judge.admitted)
    ends: Counter[str] = Counter()
    for each in told:
        ends.update(each)
    said = (
        f"{len(told)} gateways, {judge.limit} in {window:g} s for {seconds:g} s: {admitted} admitted, "
        f"{100 * admitted / exact:.1f} % of an exact log's {exact}, {len(judge.refused)} refused upstream; "
        + ", ".join(f"{count} {what}" for what, count in sorted(ends.items()))
    )
    found = []
    if judge.refused:
        at = ", ".join(f"{moment - began:.2f} s" for moment in judge.refused[:5])
        found.append(f"{len(judge.refused)} calls were above the limit (at {at}): {said}")
    if admitted < least * exact:
        found.append(f"too little was used: {said}")
    if wrong := {end: count for end, count in ends.items() if end.startswith("5")}:
        found.append(f"calls failed: {wrong}: {said}")
    return found, said


async def _start(
    processes: int, folder: Path, redis: str, upstream: str, window: float, seconds: float, pause: float
) -> asyncio.subprocess.Process:
    root = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.torture.shared", redis, upstream, str(window), str(seconds), str(folder),
        str(processes), str(pause), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}:{root}"}, start_new_session=True,
    )  # fmt: skip


async def _line(gateways: asyncio.subprocess.Process) -> bytes:
    assert gateways.stdout is not None
    line = await gateways.stdout.readline()
    assert line, "a gateway ended before its time"
    return line


def _end(gateways: asyncio.subprocess.Process) -> None:
    if gateways.returncode is None:
        os.killpg(gateways.pid, signal.SIGKILL)


# --- a gateway ------------------------------------------------------------------------------------------------------


def main() -> None:
    """So many gateways that ask for as much as they can get, each in a process of its own.

    Each says `ready`, waits for a byte, and says in the end what became of its calls. What they need is loaded before
    they part, so that all of them start in a second.
    """
    import keyturn.dispatch.declared as declared
    import keyturn.stores.redis_link
    import keyturn.stores.redis_state
    import keyturn.transport.http  # noqa: F401

    parser = argparse.ArgumentParser()
    for name in ("redis", "upstream", "window", "seconds", "folder", "processes", "pause"):
        parser.add_argument(name)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    declared.SECONDS["minute"] = float(options.window)  # the files know no such window
    children = []
    for _ in range(int(options.processes)):
        child = os.fork()
        if child == 0:
            os.nice(10)  # Redis and the upstream run elsewhere in real life: here they come first on the processors
            asyncio.run(_gateway(options))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


async def _gateway(options: argparse.Namespace) -> None:
    from keyturn.config import Options, load
    from keyturn.dispatch import build

    environ = {"GROQ_API_KEY": "one-key", "GROQ_API_BASE": options.upstream, "REDIS_URL": options.redis}
    folder = Path(options.folder)
    random.seed()  # they parted with one and the same
    gateway = build(load(environ, cwd=folder, options=Options(data=folder / f"data-{os.getpid()}")))
    await gateway.open()
    os.write(1, b"ready\n")
    await asyncio.to_thread(os.read, 0, 1)
    ends: Counter[str] = Counter()
    _count_alone(gateway.live, ends)
    until = time.monotonic() + float(options.seconds)
    callers = [asyncio.create_task(_caller(gateway, until, float(options.pause), ends)) for _ in range(CALLERS)]
    await asyncio.wait(callers, timeout=float(options.seconds))
    for caller in callers:
        caller.cancel()
    for end in await asyncio.gather(*callers, return_exceptions=True):
        if isinstance(end, Exception):
            ends[f"500 {type(end).__name__}"] += 1
    ends["left open"] = gateway.live.standing().open
    await gateway.close()
    os.write(1, json.dumps(ends).encode() + b"\n")  # a line is short enough to arrive whole


def _count_alone(live: Any, ends: Counter[str]) -> None:
    """Count the reservations that Redis did not answer in time."""
    kind = type(live)
    original = kind.unanswered

    def unanswered(state: Any, asked: Any) -> Any:
        ends["not answered by Redis in time"] += 1
        return original(state, asked)

    kind.unanswered = unanswered


async def _caller(gateway: Any, until: float, pause: float, ends: Counter[str]) -> None:
    from keyturn.dispatch import new_id, read_call

    body = json.dumps({"model": "groq/llama-3.1-8b-instant", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    while time.monotonic() < until:
        call = read_call("chat", body, {}, "", "")
        reply = await gateway.handle(call, gateway.config.default_caller, new_id(time.time()))
        reply.close()
        ends[str(reply.status)] += 1
        if pause or reply.status != 200:
            await asyncio.sleep((pause or 0.1) * (0.5 + random.random()))


if __name__ == "__main__":
    main()
