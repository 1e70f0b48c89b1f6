"""`keyturn usage`: what was used and what it cost, by model, key, caller, day or call, from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .output import json_option, print_json, say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.stores import By

SUMMED = ("attempts", "failed", "input", "cached", "output", "reasoning")
FIELDS = ("name", *SUMMED, "cost_usd", "unpriced", "estimated")
OF_CALL = ("at", "caller", "route", "status", "code", "ms", "model", "key")
"""What a single call says beside these."""
USUAL = {"day": "30d"}
"""From when on, unless said; else the last 24 hours."""
USUAL_MOST = {"call": 20}


@click.command()
@click.option(
    "--by",
    type=click.Choice(("key", "caller", "model", "day", "call")),
    default="model",
    help="What is summed up; `call` lists the latest calls.",
)
@click.option("--today", is_flag=True, help="Since midnight UTC.")
@click.option("--since", help="24h, 7d, 2026-11-01: from when on. Else the last 24 hours, by day the last 30 days.")
@click.option("--until", help="The same: up to when, that moment left out. Else now.")
@click.option("--most", type=click.IntRange(1, 100_000), help="Rows at most: 1000, of calls 20.")
@click.option(
    "--name", default="", help="Only this model, key (also by its label), caller, day or call (also by its beginning)."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@place_options
@json_option
def command(
    by: By,
    today: bool,
    since: str | None,
    until: str | None,
    most: int | None,
    name: str,
    as_csv: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Say what was used and what it cost.

    Days and times are in UTC. Attempts are counted, and tokens of those that answered; a cost is known where a price
    is.
    """
    from keyturn.stores import UsageQuery

    from .periods import period
    from .recorded import ask_usage, now

    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    config = read_config(Place(**place))
    start, end = period(since, until, today, now(), USUAL.get(by, "24h"))
    rows = ask_usage(config, UsageQuery(by, start, end, most or USUAL_MOST.get(by, 1000), name))
    if as_json:
        print_json(rows)
    elif as_csv:
        _print_csv(by, rows)
    elif not rows:
        said = f" of {name}" if name else ""
        click.echo(f"Nothing{said} was recorded from {_time(start)} to {_time(end)} UTC.")
    elif by == "call":
        _print_calls(rows)
    else:
        _print_sums(by, rows)


def _print_csv(by: str, rows: Sequence[dict[str, Any]]) -> None:
    from .tables import exact_dollars, print_csv

    fields = FIELDS[:1] + OF_CALL + FIELDS[1:] if by == "call" else FIELDS
    exact = [row | {"cost_usd": exact_dollars(row["cost_nano"])} for row in rows]
    print_csv((by, *fields[1:]), [[row.get(field) for field in fields] for row in exact])


def _print_sums(by: str, rows: Sequence[dict[str, Any]]) -> None:
    from .tables import print_figures, share

    head = (by.upper(), *(field.upper() for field in SUMMED), "COST $", "ESTIMATED")

    def line(name: str, row: dict[str, Any]) -> tuple[str, ...]:
        figures = (f"{row[field]:,}" for field in SUMMED)
        return name, *figures, _cost(row), share(row["estimated"], row["attempts"])

    total = {field: sum(row[field] for row in rows) for field in (*SUMMED, "cost_nano", "unpriced", "estimated")}
    print_figures(head, [line(row["name"], row) for row in rows], 1, line("total", total) if len(rows) > 1 else ())
    _footnote(total["unpriced"])


def _print_calls(rows: Sequence[dict[str, Any]]) -> None:
    from .tables import print_figures

    head = ("TIME (UTC)", "CALL", "CALLER", "ROUTE", "MODEL", "STATUS", "MS", "INPUT", "OUTPUT", "COST $")
    print_figures(head, [_call(row) for row in rows], 5)
    _footnote(sum(row["unpriced"] for row in rows))


def _call(row: dict[str, Any]) -> tuple[str, ...]:
    status = "?" if row.get("status") is None else f"{row['status']} {row.get('code') or ''}".rstrip()
    ms = row.get("ms")
    return (
        str(row.get("at") or "")[:19].replace("T", " "),
        row["name"],
        str(row.get("caller") or ""),
        str(row.get("route") or ""),
        str(row.get("model") or "-"),
        status,
        "-" if ms is None else f"{ms:,.0f}",
        f"{row['input']:,}",
        f"{row['output']:,}",
        _cost(row),
    )


def _cost(row: dict[str, Any]) -> str:
    """`?` where no price is known, and behind what is known where some are not."""
    from .tables import in_dollars

    if not row["unpriced"]:
        return in_dollars(row["cost_nano"])
    return f"{in_dollars(row['cost_nano'])} + ?" if row["cost_nano"] else "?"


def _footnote(unpriced: int) -> None:
    if unpriced:
        attempts = "attempt" if unpriced == 1 else "attempts"
        say(
            f"?: what {unpriced:,} {attempts} cost is not known: there is no price (`price:` in models.yaml sets "
            "one, for what comes)."
        )


def _time(at: int) -> str:
    from keyturn.dispatch import moment

    return moment(at)[:16].replace("T", " ")
