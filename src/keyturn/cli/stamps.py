"""The time of day as it stands in the names of backups."""

from __future__ import annotations

from datetime import UTC, datetime


def time_stamp() -> str:
    """`20261121_091500`, in the time zone of this machine."""
    from keyturn.dispatch import SystemClock

    return datetime.fromtimestamp(SystemClock().wall(), UTC).astimezone().strftime("%Y%m%d_%H%M%S")
