"""What `keyturn simulate` says and what a real gateway does on real sockets: the same scenario, as many answers.

The real one is a `keyturn serve` in a process of its own before the simulator on a port, whose limiters are the same
ones. Clients ask at the moments that the scenario says. Clients, gateway and simulator live by clocks that run five
times as fast. Best of three, for the machine has other work.
"""

from __future__ import annotations

import asyncio
import json
import random as randoms
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import aiohttp

from keyturn.dispatch import SystemClock
from keyturn.simulation import Scenario, compare, seeded
from keyturn.simulation.arrivals import Asked, arrivals
from keyturn.simulation.house import environment_of, files_of
from keyturn.simulator import KeyRule, Simulator
from tests.support.serving import Served, serve, simulate

from .hurried import hurry

SPEED = 5.0
TRIES = 3
MOST_APART, MOST_429 = 0.03, 5.0
"""Share of the calls served, and refusals by upstreams per 1,000 served, by which both may differ."""
KEYS, PER_MINUTE = 10, 10
LATENCY = (0.3, 1.2)


class Came(NamedTuple):
    """What one run gave."""

    asked: int
    served: int
    limited: int

    @property
    def per_1000(self) -> float:
        return 1000 * self.limited / max(1, self.served)


def agreement(size: int, seed: int) -> list[str]:
    """*size* seconds of the scenario, simulated and real; how far they are apart when that is too far."""
    found: list[str] = []
    for attempt in range(TRIES):
        scenario = _scenario(size, seed + attempt)
        row = compare(scenario, Path()).rows[0]
        simulated = Came(row.asked, row.served, round(row.limited_per_1000 * row.served / 1000))
        with hurry(SPEED):
            real = _real(scenario, seed + attempt)
        print(f"agreement: simulated {_said(simulated)}; on sockets {_said(real)}")
        found = _apart(simulated, real)
        if not found:
            return []
    return found


def _scenario(seconds: int, seed: int) -> Scenario:
    """Ten keys, a little more asked than they can take, and a burst each minute."""
    return Scenario.model_validate(
        {
            "seed": seed,
            "duration": seconds,
            "strategies": ["keyturn"],
            "providers": {
                "groq": {
                    "keys": KEYS,
                    "limits": {"rpm": PER_MINUTE},
                    "window": "rolling",
                    "transit": 0.005,
                    "latency": list(LATENCY),
                    "headers": False,
                }
            },
            "calls": {
                "rate": f"{KEYS * PER_MINUTE * 0.8:.0f}/minute",
                "bursts": {"calls": KEYS * PER_MINUTE // 2, "within": "3s", "every": "1m", "at": "10s"},
                "input": 20,
                "output": 20,
                "patience": "20s",
                "comes_back": 0,
            },
        }
    )


def _real(scenario: Scenario, seed: int) -> Came:
    environ = environment_of(scenario)
    secrets = [value for name, value in environ.items() if name.startswith("GROQ_API_KEY_")]
    rules = {secret: KeyRule(rpm=PER_MINUTE, limiter="rolling") for secret in secrets}
    draw = randoms.Random(seed).random
    simulator = Simulator(SystemClock(), draw, keys={"groq": rules}, latency=LATENCY)
    with tempfile.TemporaryDirectory() as place, simulate(simulator) as upstreams:
        folder = Path(place)
        (folder / "config").mkdir()
        for name, text in files_of(scenario).items():
            (folder / "config" / name).write_text(text)
        hurried = (sys.executable, "-m", "tools.torture.hurried", str(SPEED))
        address = {"GROQ_API_BASE": f"{upstreams.url}/groq/v1", "PYTHONPATH": str(Path.cwd())}
        with serve(folder, environ | address, program=hurried) as gateway:
            seen = asyncio.run(_ask_all(gateway, arrivals(scenario, seeded(scenario.seed))))
        served = seen[200]
        print("  on sockets: " + ", ".join(f"{count} × {status}" for status, count in sorted(seen.items())))
        return Came(sum(seen.values()), served, simulator.own_429)


async def _ask_all(gateway: Served, calls: list[Asked]) -> Counter[int]:
    headers = {"authorization": f"Bearer {gateway.caller_key}"}
    seen: Counter[int] = Counter()
    clock = SystemClock()
    began = clock.mono()
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(asked: Asked) -> None:
            await clock.sleep_until(began + asked.at)
            patience = {"x-request-timeout-ms": str(round(asked.patience * 1000))}
            body = {"model": "simulated", "messages": [{"role": "user", "content": "word " * 10}], "max_tokens": 20}
            async with session.post(f"{gateway.base_url}/chat/completions", json=body, headers=patience) as answer:
                json.loads(await answer.read())
                seen[answer.status] += 1

        await asyncio.gather(*map(ask, calls))
    return seen


def _apart(simulated: Came, real: Came) -> list[str]:
    found = []
    if abs(simulated.served - real.served) > MOST_APART * real.served:
        found.append(f"{simulated.served} were served in the simulation, {real.served} on real sockets")
    if abs(simulated.per_1000 - real.per_1000) > MOST_429:
        found.append(
            f"upstreams refused {simulated.per_1000:.1f} per 1,000 in the simulation, {real.per_1000:.1f} on sockets"
        )
    if simulated.asked != real.asked:
        found.append(f"{simulated.asked} calls came in the simulation, {real.asked} on real sockets")
    return found


def _said(came: Came) -> str:
    return f"{came.served:,} of {came.asked:,} served, {came.per_1000:.1f} upstream 429s per 1,000"
