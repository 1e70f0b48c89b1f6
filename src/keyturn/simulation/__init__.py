"""What would happen: the real gateway on a virtual clock, rehearsed against upstreams that are played.

Each name is loaded when it is first asked for: who drills needs no scenarios, and who simulates no drill.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .comparing import Comparison, compare
    from .drafting import Recorded, drafted, lines, recorded
    from .drill import Drilled, Tried, drilled, routes_of
    from .drill_playing import Played, Rest, Route, Seen
    from .drill_shapes import SHAPES, Shape
    from .drill_verdicts import RULES, Finding, findings
    from .figures import Figures
    from .plotting import plot
    from .rehearsing import STAGE, rehearsal, staged
    from .running import STRATEGIES, Tally
    from .scenarios import EXAMPLES, example, read_scenario
    from .shape import Scenario
    from .virtual import (
        START_MONO,
        START_WALL,
        VirtualClock,
        VirtualLoop,
        VirtualTimeError,
        all_seeded,
        idle,
        run,
        seed_all,
        seeded,
    )

HOMES = {
    "comparing": ("Comparison", "compare"),
    "drafting": ("Recorded", "drafted", "lines", "recorded"),
    "drill": ("Drilled", "Tried", "drilled", "routes_of"),
    "drill_playing": ("Played", "Rest", "Route", "Seen"),
    "drill_shapes": ("SHAPES", "Shape"),
    "drill_verdicts": ("RULES", "Finding", "findings"),
    "figures": ("Figures",),
    "plotting": ("plot",),
    "rehearsing": ("STAGE", "rehearsal", "staged"),
    "running": ("STRATEGIES", "Tally"),
    "scenarios": ("EXAMPLES", "example", "read_scenario"),
    "shape": ("Scenario",),
    "virtual": (
        "START_MONO",
        "START_WALL",
        "VirtualClock",
        "VirtualLoop",
        "VirtualTimeError",
        "all_seeded",
        "idle",
        "run",
        "seed_all",
        "seeded",
    ),
}
"""Module -> the names that it holds."""
_HOME_OF = {name: module for module, names in HOMES.items() for name in names}

__all__ = [
    "EXAMPLES",
    "RULES",
    "SHAPES",
    "STAGE",
    "START_MONO",
    "START_WALL",
    "STRATEGIES",
    "Comparison",
    "Drilled",
    "Figures",
    "Finding",
    "Played",
    "Recorded",
    "Rest",
    "Route",
    "Scenario",
    "Seen",
    "Shape",
    "Tally",
    "Tried",
    "VirtualClock",
    "VirtualLoop",
    "VirtualTimeError",
    "all_seeded",
    "compare",
    "drafted",
    "drilled",
    "example",
    "findings",
    "idle",
    "lines",
    "plot",
    "read_scenario",
    "recorded",
    "rehearsal",
    "routes_of",
    "run",
    "seed_all",
    "seeded",
    "staged",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
