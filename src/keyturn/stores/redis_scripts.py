"""The Lua scripts of the shared live state, and the names of its keys."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

VERSION = "1"
"""Of keys and scripts: gateways that count in another way share nothing with those that count in this one."""
SHARED = ("limits", "leases", "marks")
"""Functions that stand before every script, after the clock."""
SCRIPTS = (
    "admit", "atleast", "counted", "figures", "joined", "learn", "look", "mark", "release", "renew", "reserve",
    "restore", "settle", "turn",
)  # fmt: skip


@cache
def part(name: str) -> str:
    """The text of one file of `lua/`."""
    return files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def script(name: str, clock: str | None = None) -> str:
    """The whole text of one of SCRIPTS. *clock* stands in for `clock.lua`, the one place that reads Redis's time."""
    return "\n".join((part("clock") if clock is None else clock, *map(part, SHARED), part(name)))


def base_of(prefix: str) -> str:
    """What every key begins with. The braces keep all keys together where keys are spread by their names."""
    return f"{{{prefix}}}:{VERSION}:"


def channel_of(prefix: str) -> str:
    """The channel of news."""
    return f"{prefix}:news"
