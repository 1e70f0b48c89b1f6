"""How a pool stands, per provider; and which provider goes before which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keyturn.config import Config, environment, load
from keyturn.providers import known, plain_name

USABLE = frozenset({"healthy", "probation"})
LIMITED = frozenset({"cooling", "exhausted"})
USUAL_TIER = 4
"""The tier of whom the catalog says nothing of."""


def status_summary(
    rows: Iterable[Mapping[str, Any]], tally: Mapping[str, tuple[int, int]], wall: float
) -> dict[str, Any]:
    """Per provider how many keys there are, can be used now, and rest; how many attempts were answered well and how
    many not; `timestamp` is now (*wall*, Unix seconds) in ISO 8601."""
    told: dict[str, Any] = {}
    for row in rows:
        provider, state = str(row["provider"]), row["state"]
        if provider not in told:
            good, bad = tally.get(provider, (0, 0))
            told[provider] = {
                "total": 0,
                "available": 0,
                "rate_limited": 0,
                "total_success_calls": good,
                "total_error_calls": bad,
            }
        told[provider]["total"] += 1
        told[provider]["available"] += state in USABLE
        told[provider]["rate_limited"] += state in LIMITED
    told["timestamp"] = datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return told


def priority_of(config: Config, name: str) -> int:
    """The tier of the provider called *name*, 1 first: as configured, else the catalog's, else 4."""
    row = known(name)
    canonical = row.name if row is not None else plain_name(name)
    configured = config.providers.get(canonical) or row
    return config.tiers.get(canonical, USUAL_TIER if configured is None else configured.tier)


def by_priority(config: Config) -> list[str]:
    """The configured providers, by tier, then name."""
    return sorted(config.providers, key=lambda name: (priority_of(config, name), name))


def get_provider_priority(name: str) -> int:
    """The tier of a provider, 1 first: `PROVIDER_PRIORITY_<P>` or models.yaml, else the catalog's, else 4.

    Reads the environment and the files of the working directory. Raises ConfigError for mistakes in them.
    """
    return priority_of(_configured(), name)


def get_providers_by_priority() -> list[str]:
    """The providers that have a key or need none, by tier, then name. Reads as `get_provider_priority` does."""
    return by_priority(_configured())


def _configured() -> Config:
    from .arguments import without_demo

    return without_demo(load(environment(), cwd=Path.cwd()))
