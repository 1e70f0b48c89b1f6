"""Over what limits count: kinds and lengths of windows, and how they are laid on the clock and the calendar."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from math import ceil
from typing import Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

WindowKind = Literal["rolling", "calendar", "month", "bucket", "inflight"]
KINDS: dict[str, WindowKind] = {name: name for name in get_args(WindowKind)}

_HOUR = 3600.0


class Window(NamedTuple):
    """Over what a limit counts. `calendar` is a day, `month` a calendar month in *zone*; `inflight` has no length."""

    kind: WindowKind
    seconds: float = 0.0
    zone: str = "UTC"


MINUTE = Window("rolling", 60.0)
DAY = Window("rolling", 86_400.0)
MONTH = Window("month", 31 * 86_400.0)
INFLIGHT = Window("inflight")

GUARD = 0.5
"""Seconds that a request may arrive later than we count it, and the provider still counts it in the same window."""


def slots_of(seconds: float) -> tuple[int, int]:
    """Into how many slots a window is cut, and how many more are kept as guard.

    120 up to an hour: whole slots then cost less than 1 % of the limit. Not finer than 50 ms: beside the guard nothing
    would be won. Above an hour 96, a quarter of an hour of a day, and no guard: half a second is nothing there.
    """
    if seconds > _HOUR:
        return 96, 0
    slots = max(1, min(120, round(seconds / 0.05)))
    return slots, ceil(round(GUARD * slots / seconds, 6))


def day_of(wall: float, zone: str) -> tuple[float, float]:
    """Start and end (Unix seconds) of the calendar day in *zone* that *wall* is in; such a day lasts 23 to 25 hours.

    Raises ZoneInfoNotFoundError for an unknown zone.
    """
    there = ZoneInfo(zone)
    day = datetime.fromtimestamp(wall, there).date()
    return _midnight(day, there), _midnight(day + timedelta(days=1), there)


def month_of(wall: float, zone: str) -> tuple[float, float]:
    """Start and end (Unix seconds) of the calendar month in *zone* that *wall* is in.

    Raises ZoneInfoNotFoundError for an unknown zone.
    """
    there = ZoneInfo(zone)
    first = datetime.fromtimestamp(wall, there).date().replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return _midnight(first, there), _midnight(following, there)


def _midnight(day: date, zone: ZoneInfo) -> float:
    """When *day* begins; where a clock change skips midnight, that is the moment of the change."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
