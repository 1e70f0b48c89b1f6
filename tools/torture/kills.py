"""A gateway is killed under load, again and again: whatever a client got an answer to must be in the ledger.

A real gateway in a process of its own over simulated upstreams; its clients ask for plain answers and streams. It gets
SIGKILL at a random moment and is started anew on the same data folder. At the end the ledger is read.
"""

from __future__ import annotations

import asyncio
import json
import random as randoms
import tempfile
from collections.abc import Callable
from pathlib import Path

import aiohttp

from keyturn.core import Secret
from keyturn.dispatch import SystemClock
from keyturn.simulator import Simulator
from keyturn.stores import PostgresSink, Sink, SqliteFile, SqliteSink
from tests.support.serving import KEYTURN, Served, simulate, start, wait_until_ready

CLIENTS = 12
MOST_ANSWERS = 60
"""After so many answers the gateway is killed at the latest."""
CALL_HEADER = "x-keyturn-call"
ROLES = "roles:\n  team: { model_chain: [groq/llama-3.1-8b-instant], budget_usd_per_month: 1000000 }\n"


def kills(
    size: int, seed: int, database_url: str | None = None, before_last: Callable[[], None] = lambda: None
) -> list[str]:
    """Kill the gateway *size* times; what is wrong with the ledger then. *database_url*: PostgreSQL, else SQLite.

    *before_last* is called before the last life of the gateway, which is ended as it should be.
    """
    draw = randoms.Random(seed)
    simulator = Simulator(SystemClock(), draw.random, log_limit=1000)
    answered: list[str] = []
    with tempfile.TemporaryDirectory() as place, simulate(simulator) as upstreams:
        folder = Path(place)
        environ = {f"GROQ_API_KEY_{number}": f"gsk_{number}" for number in range(1, 7)}
        environ |= {"GROQ_API_BASE": f"{upstreams.url}/groq/v1"}
        if database_url is not None:
            environ |= {"DATABASE_URL": database_url}
        for number in range(size + 1):
            last = number == size
            if last:
                before_last()
            durable = {"LEDGER_DURABLE": "full" if number % 2 else "normal"}
            answered += _round(folder, environ | durable, draw, kill=not last)
        found = asyncio.run(judged(folder, database_url, answered))
    print(f"kills: {size:,} kills, {len(answered):,} answers")
    if len(answered) < size:
        found.append(f"only {len(answered)} answers: there was no load")
    return found


def _round(folder: Path, environ: dict[str, str], draw: randoms.Random, *, kill: bool) -> list[str]:
    """One life of the gateway; the calls that were answered. It is killed, or ended as it should."""
    log, published = folder / "log.txt", folder / ".cache" / "gateway.json"
    published.unlink(missing_ok=True)  # of the process that was killed
    with start([str(KEYTURN), "serve", "--port", "0"], log, environ, cwd=folder) as process:
        wait_until_ready(process, log, lambda: str(json.loads(published.read_bytes())["url"]), "/healthz")
        served = Served(folder, json.loads(published.read_bytes())["url"])
        answered = asyncio.run(_load(served, process.kill if kill else None, draw))
        if not kill:
            process.terminate()
            if process.wait(20.0) != 0:
                raise AssertionError(log.read_text())
    return answered


async def _load(served: Served, kill: Callable[[], None] | None, draw: randoms.Random) -> list[str]:
    """The calls that were answered before the gateway was killed, in the middle of those of other clients."""
    answered: list[str] = []
    enough, over = draw.randint(1, MOST_ANSWERS), asyncio.Event()
    headers = {"authorization": f"Bearer {served.caller_key}"}
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def client() -> None:
            while not over.is_set():
                try:
                    answered.append(await _call(session, served, draw))
                except (aiohttp.ClientError, OSError):
                    if kill is None:
                        raise
                    return
                if len(answered) >= enough and not over.is_set():
                    over.set()
                    if kill is not None:
                        kill()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered


async def _call(session: aiohttp.ClientSession, served: Served, draw: randoms.Random) -> str:
    body = {
        "model": "groq/llama-3.1-8b-instant",
        "stream": draw.random() < 0.5,
        "messages": [{"role": "user", "content": "word " * draw.randint(1, 50)}],
    }
    async with session.post(f"{served.base_url}/chat/completions", json=body) as answer:
        await answer.read()
        return answer.headers[CALL_HEADER]


async def judged(folder: Path, database_url: str | None, answered: list[str]) -> list[str]:
    """What is wrong with the ledger of a gateway that was ended as it should be."""
    sink: Sink
    if database_url is None:
        sink = SqliteSink(SqliteFile(folder / ".cache" / "state.sqlite"))
    else:
        sink = PostgresSink(Secret(database_url), SystemClock())
    await sink.open()
    try:
        found = list(await sink.check())
        outline = await sink.outline()
        if " 0 under way" not in outline:
            found.append(f"attempts are under way though everything ended: {outline}")
        unfinished = 0
        for call in answered:
            story = await sink.story(call)
            if story is None:
                found.append(f"the call {call} was answered, and is not in the ledger")
            elif story.call is None:
                unfinished += 1
        print(f"kills: {unfinished} calls were answered in the very turn of the kill, and have attempts only")
        left = [path.name for path in (folder / ".cache" / "journal").iterdir()]
        if left:
            found.append(f"the journal was not taken in: {left}")
    finally:
        await sink.close()
    return found
