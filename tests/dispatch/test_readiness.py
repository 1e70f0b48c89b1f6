"""`/readyz`: when no traffic should come, and what is told while it goes on all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyturn.config import RedisSettings
from keyturn.core import Secret
from keyturn.dispatch import Gateway, readiness
from keyturn.stores import LiveStanding, LiveState, Standing
from tests.support import virtual
from tests.support.world import World

AWAY = LiveStanding("redis", False, 2, 0, trouble="cannot reach redis://:secret@redis.internal:6379")
THERE = LiveStanding("redis", True, 2, 0)
WELL = Standing("sqlite", True, True, 0, 0)
FULL = Standing("sqlite", False, True, 9, 1, "no space left on /srv/keyturn")
UNREACHABLE = Standing("postgres", True, False, 4096, 0, "postgresql://db.internal refuses")
BUDGET = {"callers.yaml": "team: { key_env: TEAM_KEY, monthly_usd: 5 }\n"}


class Shared:
    """A live state that says of itself that it is shared."""

    def __init__(self, own: LiveState, standing: LiveStanding) -> None:
        self._own = own
        self._standing = standing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def standing(self) -> LiveStanding:
        return self._standing


class Ledger:
    keeps = True

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def standing(self) -> Standing:
        return self._standing


def prepared(gateway: Gateway, case: dict[str, Any]) -> None:
    if "redis" in case:
        standing, policy = case["redis"]
        settings = RedisSettings(Secret("redis://redis.internal"), without=policy)
        gateway.generation.config = replace(gateway.config, redis=settings)
        gateway.live = Shared(gateway.live, standing)
    gateway.strain.level = case.get("level", 0)
    gateway.leaving = case.get("leaving", False)


READY = (None, "not used", "not used", "none")


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ({}, READY),
        ({"leaving": True}, ("shutting down", *READY[1:])),
        ({"level": 1}, (*READY[:3], "calls of class batch are refused")),
        (
            {"level": 2},
            ("too much to do: calls are refused", *READY[1:3], "calls of class batch and normal are refused"),
        ),
        ({"redis": (THERE, "closed")}, (None, "ok", *READY[2:])),
        (
            {"redis": (AWAY, "local_share")},
            (None, "away; limits of providers: local_share, budgets: closed", *READY[2:]),
        ),
        (
            {"redis": (AWAY, "closed")},
            (
                "Redis is away, and no limit may be used without it",
                "away; limits of providers: closed, budgets: closed",
                *READY[2:],
            ),
        ),
        ({"ledger": WELL}, (None, "not used", "ok", "none")),
        ({"ledger": UNREACHABLE}, (None, "not used", "database away: 4096 bytes wait in the data folder", "none")),
        (
            {"ledger": FULL},
            (None, "not used", "not writable: calls go on unrecorded, those with a budget are refused", "none"),
        ),
        (
            {"ledger": FULL, "files": BUDGET},
            (
                "the ledger cannot be written, and budgets depend on it",
                "not used",
                "not writable: calls go on unrecorded, those with a budget are refused",
                "none",
            ),
        ),
    ],
)
def test_what_is_told(case: dict[str, Any], told: tuple[str | None, ...]) -> None:
    async def main() -> None:
        async with World(
            {"groq": 1}, files=case.get("files", {}), environ={"TEAM_KEY": "kt-a-key-of-a-team-0123456789"}
        ) as world:
            prepared(world.gateway, case)
            own = world.gateway.ledger
            if "ledger" in case:
                world.gateway.ledger = Ledger(case["ledger"])  # type: ignore[assignment]
            assert tuple(readiness(world.gateway)) == told
            assert world.gateway.ready() == told[0]
            assert "internal" not in str(readiness(world.gateway))
            world.gateway.ledger = own

    virtual.run(main)


def test_it_is_not_ready_once_it_drains_or_no_key_is_left() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            assert world.gateway.ready() is None
            world.gateway.disable("groq")
            assert world.gateway.ready() == "no provider has a usable key"
            world.gateway.enable("groq")
            world.gateway.drain()
            assert world.gateway.ready() == "shutting down"

    virtual.run(main)
