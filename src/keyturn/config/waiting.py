"""How many calls may wait for a key, and for how long: `[waiting]` of settings.toml, with its variables over it."""

from __future__ import annotations

from .model import WaitingSettings
from .sections import Filled
from .settings import Settings, as_integer, as_number


def waiting_of(filled: Filled, settings: Settings) -> WaitingSettings:
    """The bounds of the waiting room."""
    usual = WaitingSettings()
    return WaitingSettings(
        most=_count("most", filled, settings) or usual.most,
        most_bytes=_count("most_bytes", filled, settings) or usual.most_bytes,
        for_cache=_amount("for_cache", usual.for_cache, filled, settings),
        usd_per_hour=_amount("usd_per_hour", usual.usd_per_hour, filled, settings),
        batch_wait=settings.seconds("WAITING_BATCH_WAIT", filled.value("waiting", "batch_wait") or usual.batch_wait),
    )


def _count(member: str, filled: Filled, settings: Settings) -> int | None:
    """A whole number above 0, of the variable or else of the file."""
    name = f"WAITING_{member.upper()}"
    text = settings.text(name)
    if not text:
        said: int | None = filled.value("waiting", member)
        return said
    number = as_integer(text)
    if number is None or number <= 0:
        settings.report.problem(name, f"{settings.report.quote(text)} is not a whole number above 0")
        return None
    return number


def _amount(member: str, usual: float, filled: Filled, settings: Settings) -> float:
    """A number from 0, of the variable or else of the file."""
    name = f"WAITING_{member.upper()}"
    text = settings.text(name)
    if not text:
        said: float | None = filled.value("waiting", member)
        return usual if said is None else said
    number = as_number(text)
    if number is None or number < 0:
        settings.report.problem(name, f"{settings.report.quote(text)} is not a number from 0")
        return usual
    return number
