"""What is said of failing providers: `[retries]`, `[breaker]`, `[concurrency]` and `[hedging]`, variables over them."""

from __future__ import annotations

from typing import Any

from .model import HedgingSettings, SteadySettings
from .sections import Filled
from .settings import Settings, as_number


def steady_of(filled: Filled, settings: Settings) -> SteadySettings:
    """Which of the ways to spare a failing provider are used."""
    given = {
        "retry_budget": _switch("RETRIES_BUDGET", "retries", "budget", filled, settings),
        "breaker": _switch("BREAKER_ENABLED", "breaker", "enabled", filled, settings),
        "learned_concurrency": _switch("CONCURRENCY_LEARNED", "concurrency", "learned", filled, settings),
    }
    return SteadySettings(**{name: said for name, said in given.items() if said is not None})


def hedging_of(filled: Filled, settings: Settings) -> HedgingSettings | None:
    """Whose slow answers are asked for a second time; None while no routes are named."""
    given: dict[str, Any] = {
        "routes": settings.words("HEDGING_ROUTES") or filled.value("hedging", "routes"),
        "percentile": _part("HEDGING_PERCENTILE", 100.0, settings) or filled.value("hedging", "percentile"),
        "most_requests": _part("HEDGING_MOST_REQUESTS", 1.0, settings) or filled.value("hedging", "most_requests"),
        "most_cost": _part("HEDGING_MOST_COST", 1.0, settings) or filled.value("hedging", "most_cost"),
    }
    if not given["routes"]:
        return None
    return HedgingSettings(**{name: said for name, said in given.items() if said is not None})


def _switch(variable: str, section: str, name: str, filled: Filled, settings: Settings) -> bool | None:
    said = settings.switch(variable)
    found: bool | None = filled.value(section, name) if said is None else said
    return found


def _part(variable: str, most: float, settings: Settings) -> float | None:
    """A number above 0 and below *most*, which *variable* says."""
    text = settings.text(variable)
    number = as_number(text) if text else None
    if text and (number is None or not 0.0 < number < most):
        settings.report.problem(variable, f"{settings.report.quote(text)} is not a number above 0 and below {most:g}")
        return None
    return number
