"""Half an hour of load with faults: memory, descriptors, tasks and reservations must come back to where they began.

A real gateway in a process of its own, over simulated upstreams that fail in one call of twenty in every way; clients
read plain answers and streams, and one in ten leaves in the middle.
"""

from __future__ import annotations

import asyncio
import json
import os
import random as randoms
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from keyturn.dispatch import SystemClock
from keyturn.simulator import Simulator
from tests.support.serving import Served, serve, simulate

CLIENTS = 24
PAUSE = 0.15
"""Seconds between two calls of one client: the machine has other things to do."""
WARM_UP = 20.0
QUIET = 8.0
"""Seconds after the load, before what is left is looked at."""
MOST_GROWTH = 0.10
"""The share by which resident memory may be larger at the end than after a quarter of the time."""
FAULTS: tuple[dict[str, Any], ...] = (
    {"share": 0.01, "status": 500},
    # Not in the provider's own words, which would name a limit: that is believed, and holds all calls to it.
    {
        "share": 0.01,
        "status": 429,
        "headers": {"retry-after": "1"},
        "body": '{"error":{"message":"Too many requests"}}',
    },
    {"share": 0.01, "does": "reset"},
    {"share": 0.005, "does": "reset", "at_chunk": 3},
    {"share": 0.005, "does": "end", "at_chunk": 2, "inside": "event"},
    {"share": 0.005, "error": "overloaded"},
    {"share": 0.005, "quirks": ["html"]},
)
POOL = {"GROQ": 6, "MISTRAL": 3, "DEEPSEEK": 3}
MODELS = ("groq/llama-3.1-8b-instant", "mistral/mistral-small-latest", "deepseek/deepseek-chat", "team")
CHAIN = "groq/llama-3.1-8b-instant, mistral/mistral-small-latest, deepseek/deepseek-chat"
ROLES = f"roles:\n  team: {{ model_chain: [{CHAIN}] }}\n"


class Look(NamedTuple):
    """What the gateway holds at a moment."""

    resident: float
    """MB."""
    descriptors: int
    tasks: int
    reservations: int


def soak(size: int, seed: int, environ: dict[str, str] | None = None) -> list[str]:
    """*size* seconds of load; what did not come back. *environ* adds stores: REDIS_URL, DATABASE_URL."""
    simulator = Simulator(SystemClock(), randoms.Random(seed).random, log_limit=1000)
    with tempfile.TemporaryDirectory() as place, simulate(simulator) as upstreams:
        folder = Path(place)
        (folder / "config").mkdir()
        (folder / "config" / "roles.yaml").write_text(ROLES)
        keys = {f"{name}_API_KEY_{n}": f"{name}-key-{n}" for name, count in POOL.items() for n in range(1, count + 1)}
        bases = {f"{name}_API_BASE": f"{upstreams.url}/{name.lower()}/v1" for name in POOL}
        with serve(folder, keys | bases | (environ or {})) as gateway:
            pid = int(json.loads((folder / ".cache" / "gateway.json").read_text())["pid"])
            return asyncio.run(_load(gateway, pid, size, seed, upstreams.script))


async def _load(gateway: Served, pid: int, seconds: int, seed: int, script: Any) -> list[str]:
    seen: Counter[str] = Counter()
    looks: list[Look] = []
    until = time.monotonic() + min(WARM_UP, seconds / 4)
    await _clients(gateway, until, seed, seen)
    await asyncio.sleep(QUIET)
    before = await _look(gateway, pid)
    await asyncio.to_thread(script, *FAULTS)
    started = time.monotonic()
    ends = started + seconds
    load = asyncio.create_task(_clients(gateway, ends, seed + 1, seen))
    while not load.done():
        await asyncio.wait([load], timeout=max(seconds / 60, 1.0))
        looks.append(await _look(gateway, pid))
    await load
    await asyncio.to_thread(script)
    await asyncio.sleep(QUIET)
    after = await _look(gateway, pid)
    quarter = looks[len(looks) // 4]
    print(f"soak: {seconds} s, " + ", ".join(f"{count:,} {what}" for what, count in seen.most_common()))
    print(f"  before {_said(before)}\n  after a quarter {_said(quarter)}\n  after {_said(after)}")
    found = []
    if after.reservations:
        found.append(f"{after.reservations} reservations are open when idle")
    if after.tasks > before.tasks:
        found.append(f"{after.tasks} tasks when idle, {before.tasks} before")
    if after.descriptors > before.descriptors:
        found.append(f"{after.descriptors} descriptors when idle, {before.descriptors} before")
    if after.resident > quarter.resident * (1 + MOST_GROWTH):
        found.append(f"{after.resident:.1f} MB resident, {quarter.resident:.1f} after a quarter of the time")
    if seen["answered"] < 0.9 * sum(seen.values()) - seen["left"]:
        found.append("fewer than nine in ten calls were answered")
    return found


def _said(look: Look) -> str:
    return (
        f"{look.resident:.1f} MB, {look.descriptors} descriptors, {look.tasks} tasks, {look.reservations} reservations"
    )


async def _look(gateway: Served, pid: int) -> Look:
    """The gateway as it stands. Idle connections to upstreams and clients count as descriptors too."""
    return await asyncio.to_thread(_looked, gateway, pid)


def _looked(gateway: Served, pid: int) -> Look:
    status = gateway.admin("GET", "status")
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Look(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, descriptors, int(status["tasks"]), int(status["open"]))


async def _clients(gateway: Served, until: float, seed: int, seen: Counter[str]) -> None:
    headers = {"authorization": f"Bearer {gateway.caller_key}"}
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(*(_client(session, gateway, until, seed * 1000 + n, seen) for n in range(CLIENTS)))


async def _client(session: aiohttp.ClientSession, gateway: Served, until: float, seed: int, seen: Counter[str]) -> None:
    draw = randoms.Random(seed)
    while time.monotonic() < until:
        task = asyncio.create_task(_call(session, gateway, draw))
        if draw.random() < 0.1:
            await asyncio.wait([task], timeout=draw.random() * 0.05)
            task.cancel()
        try:
            seen[await task] += 1
        except asyncio.CancelledError:
            seen["left"] += 1
        except aiohttp.ClientError:
            seen["broken connection"] += 1
        await asyncio.sleep(PAUSE)


async def _call(session: aiohttp.ClientSession, gateway: Served, draw: randoms.Random) -> str:
    stream = draw.random() < 0.5
    body = {
        "model": draw.choice(MODELS),
        "stream": stream,
        "messages": [{"role": "user", "content": "word " * draw.randint(1, 200)}],
    }
    async with session.post(f"{gateway.base_url}/chat/completions", json=body) as answer:
        said = await answer.read()
    if answer.status != 200:
        return f"status {answer.status}"
    if stream and b"data: [DONE]" not in said:
        return "cut and told" if b'"error"' in said else "cut in silence"
    return "answered"
