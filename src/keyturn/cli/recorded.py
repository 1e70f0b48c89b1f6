"""Asks the ledger: through the gateway that runs on the data folder, else in its database itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .entry import Failure
from .live import find_gateway
from .output import say

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.stores import Sink, UsageQuery

Told = TypeVar("Told")
PATIENCE = 120.0
"""Seconds that sums over a long time may take."""
OFF = "nothing is recorded: LEDGER_ENABLED is false"
INCOMPLETE = "The database does not keep up: what was recorded last is not among these."


def now() -> int:
    """Unix milliseconds."""
    from keyturn.dispatch import SystemClock

    return int(SystemClock().wall() * 1000)


def ask_usage(config: Config, query: UsageQuery) -> list[dict[str, Any]]:
    """The rows that `keyturn usage --json` prints. Raises KeyturnError."""
    from keyturn.dispatch import usage_told

    gateway = find_gateway(config, _read_from(config))
    if gateway is None:
        told = apart(config, lambda sink: usage_told(sink, query))
        if told is None:
            raise Failure(no_ledger(config))
        return told
    answer = gateway.ask("/admin/usage", query._asdict(), PATIENCE)
    if not answer["keeps"]:
        say(f"{OFF}.")
    elif not answer["complete"]:
        say(INCOMPLETE)
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


def ask_story(config: Config, call: str) -> dict[str, Any]:
    """`{"story": …}`, else `{"story": None, "alike": …, "near": […]}`. Raises KeyturnError."""
    from keyturn.dispatch import told_of

    gateway = find_gateway(config, _read_from(config))
    if gateway is not None:
        found: dict[str, Any] = gateway.ask("/admin/story", {"call": call}, PATIENCE)
        return found
    return apart(config, lambda sink: told_of(sink, call, now())) or {"story": None, "alike": False, "near": []}


def apart(config: Config, work: Callable[[Sink], Awaitable[Told]], *, whole: bool = False) -> Told | None:
    """What *work* makes of the ledger's database while no gateway runs; None when there is none yet.

    *whole*: as at the start of a gateway, migrated and with what an earlier process left behind. Raises StoreError,
    and with *whole* DataFolderInUse.
    """

    async def run() -> Told | None:
        from keyturn.dispatch import SystemClock, ledger_apart

        async with ledger_apart(config, SystemClock(), whole=whole) as sink:
            return None if sink is None else await work(sink)

    return asyncio.run(run())


def no_ledger(config: Config) -> str:
    """What is to be said where nothing was ever recorded."""
    return f"there is no ledger yet in {config.data}" + ("" if config.ledger.enabled else f"; {OFF}")


def _read_from(config: Config) -> str:
    where = "PostgreSQL" if config.ledger.database_url is not None else "the file of the ledger"
    return f"this is read from {where}"
