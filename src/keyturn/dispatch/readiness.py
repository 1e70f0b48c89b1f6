"""Whether traffic should be sent here, and what is wrong when it goes on all the same. No secret, no caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .declared import budgets

if TYPE_CHECKING:
    from .gateway import Gateway

SHEDS_NORMAL = 2
"""The level of strain at which calls of the usual class are refused."""


class Readiness(NamedTuple):
    """What `/readyz` answers, each in a few fixed words: addresses and error texts are for the log."""

    reason: str | None
    """Why no traffic should be sent here; None when it should."""
    redis: str
    ledger: str
    strain: str


def readiness(gateway: Gateway) -> Readiness:
    """How *gateway* stands now."""
    redis, away = _redis(gateway)
    ledger, unwritten = _ledger(gateway)
    reason = None
    if gateway.draining or gateway.leaving:
        reason = "shutting down"
    elif not any(offer.usable for offer in gateway.lists.catalog.offers.values()):
        reason = "no provider has a usable key"
    elif gateway.strain.level >= SHEDS_NORMAL:
        reason = "too much to do: calls are refused"
    else:
        reason = away or unwritten
    return Readiness(reason, redis, ledger, gateway.strain.told())


def _redis(gateway: Gateway) -> tuple[str, str | None]:
    """How the shared live state is doing, and why that keeps calls from being answered, if it does."""
    settings, standing = gateway.config.redis, gateway.live.standing()
    if settings is None or standing.store == "memory":
        return "not used", None
    if standing.reachable:
        return "ok", None
    told = f"away; limits of providers: {settings.without}, budgets: closed"
    return told, "Redis is away, and no limit may be used without it" if settings.without == "closed" else None


def _ledger(gateway: Gateway) -> tuple[str, str | None]:
    """The same of the ledger: calls without a budget go on without it."""
    standing = gateway.ledger.standing()
    if not gateway.ledger.keeps:
        return "not used", None
    if not standing.writable:
        barred = "the ledger cannot be written, and budgets depend on it" if budgets(gateway.config) else None
        return "not writable: calls go on unrecorded, those with a budget are refused", barred
    if not standing.reachable:
        return f"database away: {standing.waiting_bytes} bytes wait in the data folder", None
    return "ok", None
