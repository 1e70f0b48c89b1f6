"""What one pick costs in pools of 10 to 10,000 credentials: it must be nearly flat."""

from __future__ import annotations

import time
from random import Random
from statistics import median

from keyturn.core import (
    Cost,
    Credential,
    Deployment,
    Entry,
    Limit,
    Marks,
    Pool,
    Transition,
    Window,
    claims,
    key_scope,
    model_scope,
    pick,
    strategy_named,
)
from keyturn.stores import MemoryState

SIZES = (10, 100, 1_000, 10_000)
STRATEGIES = ("balanced", "round_robin", "sequential", "weighted")
PICKS = 2_000
COST = Cost(300, 100, 10)
MINUTE = Window("rolling", 60.0)


def pool_of(size: int, strategy: str) -> Pool:
    """A pool in which every credential has two limits, partly used, and every third one is cooling."""
    live, deployment, draw = MemoryState(Marks()), Deployment("bench", "m"), Random(1).random
    credentials = [Credential.of("bench", f"key-{number}", number) for number in range(size)]
    pool = Pool(deployment, credentials, strategy_named(strategy), live.view(0.0))
    for number, credential in enumerate(credentials):
        scope = model_scope(deployment, credential.group)
        limits = [Limit(scope, "requests", MINUTE, 30, "declared"), Limit(scope, "tokens", MINUTE, 20_000, "declared")]
        live.declare(scope, limits)
        live.reserve(str(number), claims(limits, Cost(int(9_000 * draw()), 0)), 0.0)
        if number % 3 == 2:
            live.cool(Transition(key_scope(credential), "cooling", 1e6, "server_error", 1, 0.0))
    return pool


def microseconds(size: int, strategy: str) -> float:
    """Per pick: the median of several batches."""
    pool, draw, now, batches = pool_of(size, strategy), Random(2).random, 0.0, []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(PICKS):
            now += 1e-4
            entry = pick(pool, COST, (), now, draw)
            assert isinstance(entry, Entry)
            pool.used(entry)
            pool.done(entry)
        batches.append((time.perf_counter() - started) / PICKS * 1e6)
    return median(batches)


def measure() -> dict[str, list[float]]:
    """Prints µs per pick for each strategy and size, and returns them."""
    print(f"{'µs per pick, keys:':<24}" + "".join(f"{size:>10,}" for size in SIZES))
    table = {}
    for strategy in STRATEGIES:
        table[strategy] = [microseconds(size, strategy) for size in SIZES]
        print(f"  {strategy:<22}" + "".join(f"{cost:>10.1f}" for cost in table[strategy]), flush=True)
    return table
