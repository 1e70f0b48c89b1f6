"""The cooldown tables: what each meaning marks, as what, and for how long, in each of the three profiles.

In every profile the provider's own word comes first, and a running cooldown is never shortened; what differs is the
length where it says nothing.

    adaptive   short at first, longer each time
    fixed      a minute, wherever nobody knows better
    patient    an hour after a limit, a day after any 401, ten minutes after three other faults in a row
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

ScopeKind = Literal["key", "group", "group_model", "key_model", "deployment", "absent", "provider"]
State = Literal["counting", "cooling", "exhausted", "unentitled", "invalid", "disabled"]

FOREVER = float("inf")
MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0


class Row(NamedTuple):
    """One line of a cooldown table: what is marked, how, and the lengths in seconds of the steps. 0 only counts."""

    scope: ScopeKind
    state: State
    steps: tuple[float, ...]
    jitter: float = 0.0
    """The share of the length that is added at random at most."""
    to_reset: bool = False
    """To the reset of the provider's day quotas, where the catalog knows it."""

    @property
    def first(self) -> int:
        """The first step that is a cooldown, from 1."""
        return next(number for number, length in enumerate(self.steps, 1) if length)


Table = Mapping[str, Row]
"""By meaning; beside the meanings `unclear_401`, `mass_401` (most keys of a provider at once) and `no_quota`."""

_FAULTS = (0.0, 5.0, 10.0, 20.0, 40.0, 60.0)
_UNCLEAR = Row("key", "cooling", (300.0, 600.0, 1200.0, 2400.0, HOUR))

TABLE: Table = MappingProxyType(
    {
        "rate_limited": Row("group_model", "cooling", (10.0, 30.0, 60.0, 120.0, 300.0), jitter=0.05),
        "daily_quota": Row("group_model", "exhausted", (HOUR,), to_reset=True),
        "insufficient_credit": Row("group", "exhausted", (HOUR,)),
        "invalid_key": Row("key", "invalid", (DAY,)),
        "unclear_401": _UNCLEAR,
        "mass_401": _UNCLEAR,
        "forbidden": Row("key_model", "unentitled", (HOUR,)),
        "no_quota": Row("key_model", "unentitled", (FOREVER,)),
        "not_found": Row("absent", "unentitled", (600.0,)),
        "overloaded": Row("deployment", "cooling", (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)),
        "server_error": Row("key_model", "cooling", _FAULTS),
        "timeout": Row("key_model", "cooling", _FAULTS),
        "unknown": Row("key_model", "cooling", (0.0, 0.0, 600.0)),
    }
)
"""The table of the adaptive profile."""


def _with(steps: tuple[float, ...], *meanings: str) -> dict[str, Row]:
    """The rows of *meanings* with *steps* instead of their own, and nothing left to chance."""
    return {each: TABLE[each]._replace(steps=steps, jitter=0.0, to_reset=False) for each in meanings}


_GUESSED = ("unclear_401", "forbidden", "overloaded", "server_error", "timeout", "unknown")

PROFILES: Mapping[str, Table] = MappingProxyType(
    {
        "adaptive": TABLE,
        "fixed": MappingProxyType(
            {**TABLE, **_with((MINUTE,), "rate_limited", "daily_quota", "insufficient_credit", *_GUESSED)}
        ),
        "patient": MappingProxyType(
            {
                **TABLE,
                **_with((HOUR,), "rate_limited", "daily_quota", "insufficient_credit"),
                **_with((0.0, 0.0, 600.0), *_GUESSED),
                "unclear_401": TABLE["invalid_key"],
            }
        ),
    }
)
"""The tables by the names that `cooldown.profile` accepts."""
