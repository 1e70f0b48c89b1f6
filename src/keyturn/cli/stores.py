"""`keyturn stores …`: check, back up, migrate and prune what is remembered, with a running gateway and without one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .entry import FAILED, Failure
from .output import counted, json_option, print_json, print_table
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.stores import Sink

PATIENCE = 1800.0
"""Seconds that a running gateway may take: it reads the whole ledger, of gigabytes maybe."""


@click.group()
def command() -> None:
    """Check, back up, migrate and prune what is remembered: the ledger, its journal, and shared live state."""


@command.command()
@place_options
@json_option
def check(as_json: bool, **place: Any) -> None:
    """Look for what is wrong with the ledger, its journal, the disk and Redis. Exits with 1 when something is."""
    from .live import find_gateway

    config = read_config(Place(**place))
    gateway = find_gateway(config, "the stores are looked at from here")
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.ask("/admin/stores", {"action": "check"}, PATIENCE)["findings"]
    else:
        found = asyncio.run(_look(config))
    if as_json:
        print_json(found)
    else:
        print_table(("", "CHECK", "FOUND"), [(row["state"], row["check"], row["detail"]) for row in found])
    if any(row["state"] == "fail" for row in found):
        sys.exit(FAILED)


async def _look(config: Config) -> list[dict[str, Any]]:
    from keyturn.dispatch import SystemClock, findings_apart

    return [each._asdict() for each in await findings_apart(config, SystemClock())]


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@place_options
def backup(file: Path, **place: Any) -> None:
    """Copy the ledger to FILE, private (0600), whole or not at all, while calls go on. FILE must not exist."""
    from .live import find_gateway
    from .recorded import apart, no_ledger

    config = read_config(Place(**place))
    target = file.absolute()
    if target.exists() or target.is_symlink():
        raise Failure(f"{file}: is there already, and is left as it is; choose another name")
    gateway = find_gateway(config, "the file is copied from here")
    if gateway is not None:
        gateway.ask("/admin/stores", {"action": "backup", "file": str(target)}, PATIENCE)
    elif apart(config, lambda sink: _copy(sink, target)) is None:
        raise Failure(no_ledger(config))
    size = f", {target.stat().st_size:,} bytes" if target.exists() else ""
    click.echo(f"the ledger was copied to {file}{size}")


async def _copy(sink: Sink, target: Path) -> bool:
    await sink.backup(target)
    return True


@command.command()
@place_options
def migrate(**place: Any) -> None:
    """Bring the stores up to this release, and take in what earlier ones and a crash left behind.

    A gateway does the same when it starts.
    """
    from .live import find_gateway, leave_alone

    config = read_config(Place(**place))
    leave_alone(config)
    gateway = find_gateway(config, "the stores are migrated from here")
    if gateway is not None:
        click.echo(f"The gateway (process {gateway.pid}) did this when it started.")
        return
    if not config.ledger.enabled:
        raise Failure("nothing is recorded: LEDGER_ENABLED is false")
    for line in asyncio.run(_migrate(config)):
        click.echo(line)


async def _migrate(config: Config) -> list[str]:
    from keyturn.dispatch import SystemClock, migrated_apart

    return await migrated_apart(config, SystemClock())


@command.command()
@click.option(
    "--keep-days", type=click.FloatRange(1), help="Days that single calls stay, at least 1 (LEDGER_KEEP_DAYS)."
)
@place_options
def prune(keep_days: float | None, **place: Any) -> None:
    """Drop single calls that are older than they are to be kept. Their sums stay."""
    from .live import find_gateway, leave_alone
    from .recorded import apart, no_ledger, now

    config = read_config(Place(**place))
    leave_alone(config)
    gateway = find_gateway(config, "the ledger is pruned from here")
    days = config.ledger.keep_days if keep_days is None else keep_days
    if gateway is not None:
        answer = gateway.ask("/admin/stores", {"action": "prune", "keep_days": keep_days}, PATIENCE)
        dropped: int | None = answer["dropped"]
    else:
        dropped = apart(config, lambda sink: sink.keep_house(now(), days, config.responses.keep_days), whole=True)
    if dropped is None:
        raise Failure(no_ledger(config))
    click.echo(f"{counted(dropped, 'row')} dropped; sums stay")
