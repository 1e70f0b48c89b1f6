"""What is said of shared answers: `[cache]` and `[coalesce]` of settings.toml, with their variables over them."""

from __future__ import annotations

from typing import Any

from .model import CacheSettings, CoalesceSettings
from .sections import Filled
from .settings import Settings, as_integer, choose

SCOPES = ("caller", "shared")
TTL = 300.0


def sharing_of(filled: Filled, settings: Settings) -> dict[str, Any]:
    """The members of `Config` that say which answers are shared."""
    return {"cache": cache_of(filled, settings), "coalesce": coalesce_of(filled, settings)}


def cache_of(filled: Filled, settings: Settings) -> CacheSettings | None:
    """Whose answers are kept; None while no routes are named."""
    given: dict[str, Any] = {
        "routes": settings.words("CACHE_ROUTES") or filled.value("cache", "routes"),
        "ttl": settings.seconds("CACHE_TTL", filled.value("cache", "ttl") or TTL),
        "max_entries": _count(settings.text("CACHE_MAX_ENTRIES"), "CACHE_MAX_ENTRIES", settings),
        "max_bytes": _count(settings.text("CACHE_MAX_BYTES"), "CACHE_MAX_BYTES", settings),
        "max_answer": _count(settings.text("CACHE_MAX_ANSWER"), "CACHE_MAX_ANSWER", settings),
        "scope": _scope(settings.text("CACHE_SCOPE"), "CACHE_SCOPE", settings),
    }
    found = _over(filled, "cache", given)
    return CacheSettings(**found) if found.get("routes") else None


def coalesce_of(filled: Filled, settings: Settings) -> CoalesceSettings | None:
    """Which identical calls share one call upstream; None while no routes are named."""
    given: dict[str, Any] = {
        "routes": settings.words("COALESCE_ROUTES") or filled.value("coalesce", "routes"),
        "max_buffer": _count(settings.text("COALESCE_MAX_BUFFER"), "COALESCE_MAX_BUFFER", settings),
        "scope": _scope(settings.text("COALESCE_SCOPE"), "COALESCE_SCOPE", settings),
    }
    found = _over(filled, "coalesce", given)
    return CoalesceSettings(**found) if found.get("routes") else None


def _over(filled: Filled, section: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the variables say over what the file says; what neither says is left out."""
    said = {name: filled.value(section, name) if value is None else value for name, value in given.items()}
    return {name: value for name, value in said.items() if value is not None}


def _count(text: str | None, name: str, settings: Settings) -> int | None:
    number = as_integer(text) if text else None
    if text and (number is None or number <= 0):
        settings.report.problem(name, f"{settings.report.quote(text)} is not a whole number above 0")
    return number


def _scope(text: str | None, name: str, settings: Settings) -> str | None:
    if text and text.lower() not in SCOPES:
        settings.report.problem(name, choose(settings.report, text, SCOPES))
    return text.lower() if text else None
