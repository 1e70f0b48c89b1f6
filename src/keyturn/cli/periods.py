"""What `--since` and `--until` say: a moment in UTC, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
"""Milliseconds."""
LONGEST = 100 * 365 * 86_400_000
EXAMPLES = "24h, 7d, 2026-11-01 or 2026-11-01T09:30 (UTC)"


def period(since: str | None, until: str | None, today: bool, now: int, usual: str) -> tuple[int, int]:
    """From when, and up to when (that moment itself left out), in Unix milliseconds; *usual* is `--since` unless said.

    Raises UsageError.
    """
    if today and since is not None:
        raise click.UsageError("give --today or --since, not both")
    end = _moment("--until", until, now) if until is not None else now + 1
    start = midnight(now) if today else _moment("--since", since or usual, now)
    if start >= end and until is None:
        raise click.UsageError(f"--since: {_shown(start)} (UTC) has not come yet")
    if start >= end:
        raise click.UsageError(f"nothing lies between {_shown(start)} and {_shown(end)}: --until must be later")
    return start, end


def midnight(now: int) -> int:
    """The beginning of the day of *now* in UTC, as the ledger and budgets count days."""
    return now - now % UNITS["d"]


def _moment(option: str, text: str, now: int) -> int:
    ago = re.fullmatch(r"(\d{1,9})([mhdw])", text.strip().lower())
    if ago:
        return max(now - min(int(ago[1]) * UNITS[ago[2]], LONGEST), 0)
    try:
        found = datetime.fromisoformat(text.strip())
        return max(int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000), 0)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"{option}: {text!r} is no time; say it like {EXAMPLES}") from error


def _shown(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}"
