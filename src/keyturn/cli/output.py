"""What commands print: answers on stdout, as a table or as JSON; everything said about them on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from keyturn.core import Credential

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def say(text: str) -> None:
    """A line for the person at the terminal, never part of the answer."""
    click.echo(text, err=True)


def printable(text: str) -> str:
    """*text* without what would steer a terminal: names of models and routes come from clients."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def print_json(value: object) -> None:
    """*value* as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns under *head*."""
    cells = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def keys_counted(keys: Sequence[Credential]) -> str:
    """`2 keys and 1 account`; empty when none is needed."""
    accounts = sum(1 for key in keys if key.account is not None)
    numbers = ((sum(1 for key in keys if key.secret), "key"), (accounts, "account"))
    return " and ".join(counted(count, thing) for count, thing in numbers if count)


def counted(count: int, thing: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
