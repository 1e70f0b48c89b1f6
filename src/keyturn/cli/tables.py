"""Rows of figures for people and for spreadsheets: a table, drawn on a terminal and plain elsewhere, or CSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

import click

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for the beginning of a formula."""
CENTS = Decimal("0.000001")


def print_figures(head: Sequence[str], rows: Sequence[Sequence[str]], words: int, total: Sequence[str] = ()) -> None:
    """A table whose first *words* columns are text and all others figures; *total* is its last line."""
    if sys.stdout.isatty():
        _draw(head, rows, words, total)
        return
    lines = [head, *rows, *([total] if total else [])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _draw(head: Sequence[str], rows: Sequence[Sequence[str]], words: int, total: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_footer=bool(total), pad_edge=False)
    for column, name in enumerate(head):
        footer = Text(total[column]) if total else ""
        table.add_column(name, footer, justify="left" if column < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """*rows* under *head*; no text in them is a formula to a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    click.echo(out.getvalue(), nl=False)


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value


def in_dollars(nano: int) -> str:
    """Nano-dollars as dollars with six decimals, rounded half up: `1,204.512300`."""
    return f"{Decimal(nano).scaleb(-9).quantize(CENTS, ROUND_HALF_UP):,}"


def exact_dollars(nano: int) -> str:
    """Nano-dollars as dollars to the last digit, for programs: `0.000012345`."""
    return f"{Decimal(nano).scaleb(-9):f}"


def share(part: int, whole: int) -> str:
    """`12 %`; what is there is never 0 %, and what is not all is never 100 %."""
    if not part or not whole:
        return "0 %"
    return f"{min(max(round(100 * part / whole), 1), 100 if part >= whole else 99)} %"
