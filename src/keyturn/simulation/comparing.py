"""Compares strategies on one scenario: each run in turn, all beside the most that anybody could have served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from keyturn.errors import ConfigError

from .arrivals import Asked, Sketch, people
from .bound import Bound, bound
from .figures import Figures, figures, told
from .played import play
from .running import Prepared, Tally, run
from .shape import Scenario
from .virtual import seeded

MOST_CALLS = 2_000_000
"""In one scenario: more would not fit into the memory of a small machine."""
Heard = Callable[[Tally, float], object]


class Comparison(NamedTuple):
    """What is printed and drawn."""

    scenario: Scenario
    keys: int
    bound: Bound
    rows: list[Figures]
    notes: tuple[str, ...] = ()
    """What is odd about the settings of the scenario."""

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        scenario = self.scenario
        return {
            "title": scenario.title,
            "seed": scenario.seed,
            "duration": scenario.duration,
            "keys": self.keys,
            "asked": self.bound.asked,
            "bound": round(self.bound.served, 1),
            "strategies": [told(row) for row in self.rows],
        }


class Recorded(msgspec.Struct, forbid_unknown_fields=True):
    """A line of a file of calls to replay. *at* is seconds from the first; tokens that are 0 are drawn."""

    at: float
    input: int = 0
    output: int = 0
    caller: str = ""


def compare(scenario: Scenario, folder: Path, heard: Heard = lambda tally, part: None) -> Comparison:
    """Run every strategy of *scenario*, whose files lie in *folder*. Raises ConfigError.

    *heard* is told how far each run is. When it raises KeyboardInterrupt, what was simulated so far is returned.
    """
    _check_size(scenario)
    prepared = Prepared(scenario, replayed(scenario, folder) if scenario.calls.replay is not None else None)
    keys = play(scenario, seeded(scenario.seed + 1), prepared.start_wall)
    most = max(
        (bound(scenario, prepared.calls, keys, prepared.start_wall, in_order=each) for each in (False, True)),
        key=lambda each: each.served,
    )
    notes = tuple(note for note in prepared.config.notes if any(name in note for name in scenario.settings))
    comparison = Comparison(scenario, len(keys), most, [], notes)
    for strategy in scenario.strategies:
        latest: list[Tally] = []

        def hear(tally: Tally, part: float, latest: list[Tally] = latest) -> None:
            latest[:] = [tally]
            heard(tally, part)

        try:
            tally = run(prepared, strategy, hear)
        except KeyboardInterrupt:
            comparison.rows.extend(figures(each, None) for each in latest)
            break
        comparison.rows.append(figures(tally, most))
    return comparison


def _check_size(scenario: Scenario) -> None:
    calls = scenario.calls
    expected = (calls.rate or 0.0) * scenario.duration
    for burst in calls.bursts:
        expected += burst.calls * (1 + (scenario.duration / burst.every if burst.every > 0 else 0))
    if expected > MOST_CALLS:
        raise ConfigError(
            [f"calls: some {expected:,.0f} would come; at most {MOST_CALLS:,} are simulated: shorten the duration"]
        )


def replayed(scenario: Scenario, folder: Path) -> list[Asked]:
    """The calls of the file that *scenario* replays, in order; those after its end are left out. Raises ConfigError."""
    assert scenario.calls.replay is not None
    file = folder / scenario.calls.replay
    persons = people(scenario)
    places = {person.name: place for place, person in enumerate(persons)}
    sketch = Sketch(scenario.calls, persons, seeded(scenario.seed))
    decode = msgspec.json.Decoder(Recorded).decode
    found: list[Asked] = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = decode(line)
                except msgspec.MsgspecError as error:
                    raise ConfigError([f"{file.name}:{number}: {error}"]) from error
                if 0 <= row.at < scenario.duration and len(found) < MOST_CALLS:
                    found.append(sketch.one(row.at, places.get(row.caller), row.input, row.output))
    except OSError as error:
        raise ConfigError([f"calls.replay: {file} cannot be read: {error.strerror}"]) from error
    if not found:
        raise ConfigError([f"calls.replay: {file.name} has no call within the duration of the scenario"])
    return sorted(found, key=lambda asked: asked.at)
