"""The simulated day of 100 free keys at three loads, and fairness under a loud caller: the gates, at full size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from keyturn.simulation import Figures, Scenario, compare, read_scenario

MOST_SECONDS = 60.0
"""Of processor time, for one day by the gateway."""


class Day(NamedTuple):
    """One run and what it must keep."""

    calls: int
    """A day."""
    least: float
    """Of the bound."""
    most_429: float
    """Per 1,000 served."""


DAYS = (Day(63_000, 0.99, 1.0), Day(94_000, 0.99, 1.0), Day(134_000, 0.97, 1.0))
LEAST_KEPT, LEAST_FAIR, MOST_UNKNOWN = 0.95, 0.95, 5.0


def simulated_days(size: int, seed: int) -> list[str]:
    """*size* % of a day at each load; which gates did not hold."""
    found: list[str] = []
    for day in DAYS:
        scenario, folder = _day(size, seed, day.calls)
        row, seconds = _run(scenario, folder)
        _tell(f"{day.calls:,} calls a day", row, seconds)
        found += _judged(f"{day.calls:,} a day", row, day)
        if seconds > MOST_SECONDS * size / 100:
            found.append(f"{day.calls:,} a day took {seconds:.0f} s of processor time")
    return found + _unknown(size, seed) + _loud(seed)


def _judged(name: str, row: Figures, day: Day) -> list[str]:
    found = []
    if row.of_bound is None or row.of_bound < day.least:
        found.append(f"{name}: {row.of_bound or 0:.1%} of the bound, at least {day.least:.0%} are due")
    if row.limited_per_1000 > day.most_429:
        found.append(f"{name}: {row.limited_per_1000:.2f} upstream 429s per 1,000 served")
    return found + _kept(name, row)


def _kept(name: str, row: Figures) -> list[str]:
    if row.kept is None or row.advised < 50 or row.kept >= LEAST_KEPT:
        return []
    return [f"{name}: {row.kept:.1%} of {row.advised} that came back when told to were let in"]


def _unknown(size: int, seed: int) -> list[str]:
    """The gateway is told no limit: what it learns in the first hour must do for the rest."""
    scenario, folder = _day(size, seed, 63_000)
    providers = {name: each.model_copy(update={"declared": False}) for name, each in scenario.providers.items()}
    first, _ = _run(scenario.model_copy(update={"providers": providers, "duration": 3600.0}), folder)
    row, seconds = _run(scenario.model_copy(update={"providers": providers}), folder)
    later = row.limited_per_1000 * row.served - first.limited_per_1000 * first.served
    per_1000 = later / max(1, row.served - first.served)
    _tell("limits unknown at first", row, seconds)
    print(f"  {first.limited_per_1000:.2f} upstream 429s per 1,000 in the first hour, {per_1000:.2f} after it")
    return [f"limits unknown: {per_1000:.2f} upstream 429s per 1,000 after the first hour"] * (per_1000 > MOST_UNKNOWN)


def _loud(seed: int) -> list[str]:
    scenario, folder = read_scenario("one-loud-caller", Path())
    row, seconds = _run(scenario.model_copy(update={"seed": seed, "strategies": ("keyturn",)}), folder)
    _tell("one caller fifty times louder", row, seconds)
    unfair = row.fairness < LEAST_FAIR
    return [f"one loud caller: fairness {row.fairness:.3f}"] * unfair + _kept("one loud caller", row)


def _day(size: int, seed: int, calls: int) -> tuple[Scenario, Path]:
    scenario, folder = read_scenario("day-of-100-keys", Path())
    rate = scenario.calls.model_copy(update={"rate": calls / 86_400})
    length = scenario.duration * size / 100
    changed = {"seed": seed, "calls": rate, "duration": length, "strategies": ("keyturn",)}
    return scenario.model_copy(update=changed), folder


def _run(scenario: Scenario, folder: Path) -> tuple[Figures, float]:
    started = time.process_time()
    row = compare(scenario, folder).rows[0]
    return row, time.process_time() - started


def _tell(name: str, row: Figures, seconds: float) -> None:
    kept = "-" if row.kept is None else f"{row.kept:.1%} of {row.advised}"
    print(
        f"simulated: {name}: {row.served:,} of {row.asked:,} served, {row.of_bound or 0:.1%} of the bound, "
        f"{row.limited_per_1000:.2f} upstream 429s per 1,000, {row.attempts_per_served:.3f} attempts, waits "
        f"{row.wait_p50:.1f} / {row.wait_p99:.1f} s, Retry-After kept {kept}, fairness {row.fairness:.3f}, "
        f"{seconds:.0f} s"
    )
