"""What a call through the library costs, beside a bare aiohttp call to the same upstream: CPU time in one process.

python -m tools.bench.calling UPSTREAM_PORT ROUNDS CALLS
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import uvloop

from keyturn import AsyncClient

TOGETHER = 32
"""Calls under way at once."""
MESSAGES = [{"role": "user", "content": "How many keys does it take?"}]
KEY = "bench-upstream-key"


async def spent(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """CPU µs of each of so many calls."""

    async def some(count: int) -> None:
        for _ in range(count):
            await call()

    before = time.process_time()
    await asyncio.gather(*(some(calls // TOGETHER) for _ in range(TOGETHER)))
    return (time.process_time() - before) / (calls // TOGETHER * TOGETHER) * 1e6


async def measure(port: int, rounds: int, calls: int, folder: Path) -> list[tuple[float, float]]:
    """The library's call and the bare one, round by round, in turn."""
    base = f"http://127.0.0.1:{port}/v1"
    (folder / ".env").write_text(f"BENCH_API_BASE={base}\n")
    headers = {"authorization": f"Bearer {KEY}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        AsyncClient(
            api_keys={"bench": KEY}, env_file=folder / ".env", data_dir=folder / "data", configure_logging=False
        ) as client,
        aiohttp.ClientSession(connector=connector) as session,
    ):

        async def ours() -> object:
            reply = await client.acompletion(model="bench/m", messages=MESSAGES, temperature=0.3)
            return reply.choices[0].message.content

        async def bare() -> object:
            body = {"model": "m", "messages": MESSAGES, "temperature": 0.3}
            async with session.post(f"{base}/chat/completions", data=json.dumps(body), headers=headers) as answer:
                return json.loads(await answer.read())["choices"][0]["message"]["content"]

        assert await ours() == await bare()
        for call in (ours, bare):
            await spent(call, calls // 4)
        return [(await spent(ours, calls), await spent(bare, calls)) for _ in range(rounds)]


def main(port: int, rounds: int, calls: int) -> None:
    with tempfile.TemporaryDirectory(prefix="keyturn-bench-") as folder:
        print(json.dumps(uvloop.run(measure(port, rounds, calls, Path(folder)))))


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:4]))
