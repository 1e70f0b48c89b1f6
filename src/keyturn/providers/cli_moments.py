"""When a tool says that its limit ends: a time of day, a weekday or a date, as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LONGEST = 32 * 86400.0
_READ = 4096
_MINUTE = 60.0
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MOMENT = re.compile(
    r"(?:again|resets?|reset)(?: (?:at|on))? "
    rf"(?:(?P<weekday>{'|'.join(_DAYS)})[a-z]{{0,6}},? )?"
    rf"(?:(?P<month>{'|'.join(_MONTHS)})[a-z]{{0,6}} (?P<day>[0-9]{{1,2}})(?:st|nd|rd|th)?,?"
    r"(?: (?P<year>[0-9]{4}),?)? )?"
    r"(?:at )?(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{2}))? ?(?P<half>[ap]m\b)?"
    r"(?: \((?P<zone>[\w/+-]{1,40})\))?",
    re.IGNORECASE | re.ASCII,
)
_EPOCH = re.compile(r"limit reached\|([0-9]{10})(?![0-9])", re.IGNORECASE)


def seconds_until_stated(text: str, now: float) -> float | None:
    """Seconds from *now* (Unix) to the moment that *text* states; None when it states none.

    Understood: `try again at 6:35 AM`, `try again at Nov 22nd, 2026 6:35 AM`, `resets 3pm (America/New_York)`,
    `resets Mon 12:00am`, `limit reached|1795300000`. Without a zone the time is UTC, which tools are told to use.
    """
    text = text[:_READ]
    if (epoch := _EPOCH.search(text)) is not None:
        return _sane(float(epoch[1]) - now)
    for found in _MOMENT.finditer(text):
        if found["half"] or found["minute"]:
            try:
                return _sane(_seconds(found, now))
            except (ValueError, OverflowError, OSError):
                continue
    return None


def _seconds(found: re.Match[str], now: float) -> float:
    """Raises ValueError for a date or time that does not exist."""
    here = datetime.fromtimestamp(now, _zone(found["zone"]))
    hour, half = int(found["hour"]), (found["half"] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            raise ValueError("no hour of a twelve-hour clock")
        hour = hour % 12 + (12 if half == "pm" else 0)
    moment = here.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
    if found["month"]:
        month = _MONTHS.index(found["month"].lower()) + 1
        moment = moment.replace(year=int(found["year"] or here.year), month=month, day=int(found["day"]))
        if not found["year"] and moment.timestamp() < now - 86400:
            moment = moment.replace(year=here.year + 1)
    elif found["weekday"]:
        ahead = (_DAYS.index(found["weekday"].lower()) - here.weekday()) % 7
        moment += timedelta(days=ahead)
        if moment.timestamp() <= now - _MINUTE:
            moment += timedelta(days=7)
    elif moment.timestamp() <= now - _MINUTE:
        moment += timedelta(days=1)
    wait = moment.timestamp() - now
    return wait if wait > 0 else wait + _MINUTE  # only minutes are stated: within the one that has just begun


def _zone(name: str | None) -> tzinfo:
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _sane(seconds: float) -> float | None:
    return seconds if 0 < seconds <= LONGEST else None
