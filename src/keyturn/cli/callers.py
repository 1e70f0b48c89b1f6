"""`keyturn callers …`: who may use the gateway. A key is shown once, when it is made; the file holds its hash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import json_option, print_json, print_table, say
from .setup import Place, place_options
from .stamps import time_stamp

if TYPE_CHECKING:
    from keyturn.config import CallerFile

RELOAD = "A running gateway knows within a moment."


@click.group()
def command() -> None:
    """List, add and revoke callers of the gateway."""


@command.command()
@click.argument("name")
@click.option("--routes", help="Names that it may ask for, separated by commas, with * and ?; all unless said.")
@click.option("--weight", type=click.FloatRange(min=0, min_open=True), help="Its share when many wait (1).")
@click.option(
    "--class",
    "rank",
    type=click.Choice(["interactive", "normal", "batch"]),
    help="Who is refused last, or first, under strain.",
)
@click.option("--rpm", type=click.IntRange(min=1), help="Requests a minute; unlimited unless said.")
@click.option("--tpm", type=click.IntRange(min=1), help="Tokens a minute; unlimited unless said.")
@click.option("--monthly-usd", type=click.FloatRange(min=0, min_open=True), help="USD a month; no bound unless said.")
@place_options
def add(name: str, routes: str | None, rank: str | None, **options: Any) -> None:
    """Make a key for a new caller NAME and print it: the only time that it is shown."""
    place = Place(*(options.pop(each) for each in Place._fields))
    wanted = [each.strip() for each in (routes or "").split(",") if each.strip()]
    settings = {"routes": wanted or None, "class": rank, **options}
    given = {member: _number(value) for member, value in settings.items() if value is not None}
    added = _file(place).add(name, given, stamp=time_stamp())
    click.echo(added.key.reveal())
    say(f"This is the key of {name}. It is not shown again: {added.file} holds only its hash.")
    if added.backup is not None:
        say(f"the file as it was before: {added.backup}")
    say(RELOAD)


@command.command("list")
@place_options
@json_option
def list_callers(as_json: bool, **place: Any) -> None:
    """List callers with their routes and limits. Of a key its variable is shown, or the first of its hash."""
    rows = _file(Place(**place)).rows()
    if as_json:
        print_json(
            [{("class" if member == "rank" else member): value for member, value in _members(row)} for row in rows]
        )
        return
    head = ("CALLER", "KEY", "ROUTES", "CLASS", "WEIGHT", "RPM", "TPM", "USD/MONTH")
    print_table(
        head,
        [
            (row.name, row.key, ", ".join(row.routes) or "all", row.rank, _number(row.weight), *map(_or_dash, row[5:]))
            for row in rows
        ],
    )


@command.command()
@click.argument("name")
@place_options
def revoke(name: str, **place: Any) -> None:
    """Take caller NAME out of callers.yaml; its key is worth nothing from then on."""
    backup = _file(Place(**place)).revoke(name, stamp=time_stamp())
    click.echo(f"revoked: {name}")
    click.echo(f"the file as it was before: {backup}")
    say(RELOAD)


def _file(place: Place) -> CallerFile:
    from keyturn.config import CallerFile, environment

    return CallerFile(environment(), place.env_file, Path.cwd(), place.config or Path("config"))


def _members(row: Any) -> list[tuple[str, Any]]:
    return list(row._asdict().items())


def _number(value: Any) -> Any:
    """`2`, not `2.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(_number(value))
