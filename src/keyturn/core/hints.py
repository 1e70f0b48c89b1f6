"""Small pure readers of what providers say about time: durations, dates, delays inside sentences, midnights.

All of them walk the text once, look at a bounded part of it and return None for anything they do not understand.
Seconds everywhere; moments are Unix seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LONGEST = 32 * 86400.0
"""No honest delay is longer: the longest quota is a month's."""

UNITS = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

DELAY_ANCHORS = (
    "again in ",
    "again after ",
    "retry in ",
    "retry after ",
    "retrying in ",
    "wait ",
    "reset in ",
    "resets in ",
    "reset after ",
    "resets after ",
    "available in ",
    "replenished in ",
    "resets in: ",
    "reset in: ",
)
DATE_ANCHORS = ("access on ", "until ", "reset at ", "resets at ", "reset on ", "resets on ", "again at ", "resets ")
FILLERS = ("about ", "approximately ", "at least ", "another ", "for ", "the next ")
MOST_PARTS = 6
PART = re.compile(r"([0-9]++(?:\.[0-9]++)?+) ?+([a-z]++)[ ,]*+(?:and )?+")
"""An amount and its unit. Possessive throughout: it never goes back."""
CLOCK = re.compile(r"([0-9]{1,3}+):([0-9]{2}):([0-9]{2})(?![0-9:])")
"""A duration like a clock's face, `12:33:01` (Azure API Management)."""
MOST_HITS = 4


def number(text: str) -> float | None:
    """A plain finite decimal number; None for anything else (`nan`, `1e5`, `0x1`, `1_000`)."""
    if text[-1:].isalpha():  # a duration with its unit, most likely
        return None
    digits = text[1:] if text[:1] == "-" else text
    if not digits or len(digits) > 24 or not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        return None
    return float(text)


def span_at(text: str, at: int = 0) -> float | None:
    """The duration that begins at *at*: `6m0s`, `2m59.56s`, `6m 11.52s`, `26ms`, `1 hour and 5 minutes`."""
    total: float | None = None
    end = len(text)
    for _ in range(MOST_PARTS):
        part = PART.match(text, at) if at < end else None
        if part is None:
            break
        amount, unit = part.groups()
        size = UNITS.get(unit)
        if size is None:
            break
        total = (total or 0.0) + float(amount) * size
        at = part.end()
    return total


def duration(text: str) -> float | None:
    """A duration or a bare number of seconds, as it stands alone: `34.07s`, `1h2m3s`, `26ms`, `59`."""
    text = text.strip().lower()[:64]
    plain = number(text)
    if plain is not None:
        return plain
    return span_at(text)


def http_date(text: str) -> float | None:
    """The moment of an HTTP date, `Tue, 04 Mar 2025 23:50:16 GMT`."""
    words = text.strip()[:40].replace("-", " ").split()
    if len(words) < 5 or words[2][:3].lower() not in MONTHS:
        return None
    try:
        hour, minute, second = (int(part) for part in words[4].split(":"))
        year = int(words[3]) + (2000 if len(words[3]) == 2 else 0)
        month = MONTHS.index(words[2][:3].lower()) + 1
        return datetime(year, month, int(words[1]), hour, minute, min(second, 59), tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def answered_at(headers: Mapping[str, str], now: float) -> float:
    """When an answer was given, by the upstream's clock: its dates are meant by that. *now* when it does not say."""
    stated = http_date(headers.get("date", ""))
    return now if stated is None else stated


def iso_date(text: str) -> float | None:
    """The moment of an RFC 3339 date-time or of a bare date (UTC). A date-time without a zone tells no moment."""
    text = text.strip()[:40]
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            if len(text) > 10:
                return None
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def reset(text: str, now: float, unit: str = "s") -> tuple[float | None, int | None]:
    """What a reset header says: seconds from *now*, never negative, or the epoch in ms when it is written so.

    Formats: Go durations, RFC 3339, HTTP dates, bare numbers. A bare number above 10¹² is an epoch in ms, above 10⁹
    one in seconds, else a count of *unit*.
    """
    text = text.strip()[:64]
    plain = number(text)
    if plain is not None:
        if plain > 1e12:
            return None, int(plain)
        seconds: float | None = plain - now if plain > 1e9 else plain * (0.001 if unit == "ms" else 1.0)
    elif (seconds := span_at(text.lower())) is None:
        moment = iso_date(text) if text[:1].isdigit() else http_date(text)
        seconds = None if moment is None else moment - now
    if seconds is None:
        return None, None
    return round(max(seconds, 0.0), 6), None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """`retry-after-ms`, else `Retry-After` in seconds or as a date against *now*; None when none, past or zero."""
    exact = number(headers.get("retry-after-ms", "").strip())
    if exact is not None and exact > 0:
        return exact / 1000.0
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    seconds = duration(text)
    if seconds is None:
        moment = iso_date(text) if text[:1].isdigit() else http_date(text)
        seconds = None if moment is None else moment - now
    return seconds if seconds is not None and seconds > 0 else None


def _after(text: str, anchors: tuple[str, ...]) -> Iterator[int]:
    """The positions behind *anchors* in *text*, a few per anchor, fillers skipped."""
    for anchor in anchors:
        at = text.find(anchor)
        for _ in range(MOST_HITS):
            if at < 0:
                break
            end = at + len(anchor)
            for filler in FILLERS:
                if text.startswith(filler, end):
                    end += len(filler)
            yield end
            at = text.find(anchor, end)


def delay_in(text: str, now: float) -> float | None:
    """The longest delay that a lower-case sentence states ("try again in 1m3.2s"), else the time to a date in it."""
    delays = [seconds for at in _after(text, DELAY_ANCHORS) if (seconds := span_at(text, at) or _clock_at(text, at))]
    if delays:
        return max(delays)
    for at in _after(text, DATE_ANCHORS):
        moment = _date_at(text[at : at + 40])
        if moment is not None and moment > now:
            return moment - now
    return None


def _clock_at(text: str, at: int) -> float | None:
    """The duration `12:33:01` at *at*, behind the word "in": elsewhere it may be a time of day."""
    face = CLOCK.match(text, at) if text.startswith("in ", max(at - 3, 0)) else None
    return None if face is None else int(face[1]) * 3600.0 + int(face[2]) * 60.0 + int(face[3])


def _date_at(text: str) -> float | None:
    """`2026-10-01`, `2026-10-01 at 00:00 utc`, `2026-10-06t17:00:00z`, with anything behind it."""
    day = text[:10]
    if len(day) < 10 or day[4] != "-" or day[7] != "-" or not day[:4].isdigit():
        return None
    rest = text[10:].removeprefix(" at").lstrip()
    if rest[:1] == "t":
        return iso_date(text.split(" ", 1)[0].rstrip(".,;)"))
    clock, _, zone = rest.partition(" ")
    if ":" not in clock[:3]:
        return iso_date(day)
    return iso_date(f"{day}T{clock}+00:00") if zone.startswith(("utc", "gmt")) else None


def to_midnight(zone: str, now: float) -> float | None:
    """Seconds from *now* to the next midnight in *zone*; None when there is no such zone."""
    try:
        place = ZoneInfo(zone)
        here = datetime.fromtimestamp(now, place)
        midnight = datetime(here.year, here.month, here.day, tzinfo=place) + timedelta(days=1)
        return midnight.timestamp() - now
    except (ZoneInfoNotFoundError, ValueError, OverflowError, OSError):
        return None


def sane(seconds: float | None, most: float = LONGEST) -> float | None:
    """*seconds* when it is a positive finite delay of at most *most*."""
    return seconds if seconds is not None and math.isfinite(seconds) and 0 < seconds <= most else None
