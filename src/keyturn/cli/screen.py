"""What `keyturn top` draws: routes with what they can take, keys with what keeps them away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .output import counted, print_table, printable

if TYPE_CHECKING:
    from rich.console import Console, Group

ANY = "any"
BAR = 10
"""Cells of a bar."""
FIXED_LINES = 7
"""Of the screen, that are no rows: the head, two table heads, blanks, the foot."""
LEAST_ROWS = 3
GAP = 2
"""Cells between two columns."""
_LIMIT = re.compile(r"(.+) limit of (\S+) (.+) reached")


class Column(NamedTuple):
    """One column, and from which width of the terminal on it is there. *least*: words in it may be shortened to so many
    cells; 0: figures, which never are."""

    name: str
    right: bool = False
    width: int = 0
    least: int = 0


ROUTES = (
    Column("ROUTE", least=12),
    Column("NOW", True),
    Column("IN 60 S", True, 32),
    Column("TOKENS", True, 60),
    Column("WAITING", True, 70),
    Column("RETURNS", False, 80, 9),
    Column("DAY QUOTA", False, 110, 9),
    Column("LAST MINUTE", False, 95),
)
KEYS = (
    Column("KEY", least=6),
    Column("MODEL", False, 60, 8),
    Column("STATE", least=7),
    Column("USED", False, 70),
    Column("NOW", True, 100),
    Column("IN 60 S", True, 100),
    Column("RETURNS", False, 50),
    Column("DAY QUOTA", False, 120, 9),
)


def print_once(told: dict[str, Any]) -> None:
    """All of it, as plain tables."""
    click.echo(head(told))
    click.echo()
    print_table([each.name for each in ROUTES], route_rows(told))
    if told.get("keys"):
        click.echo()
        print_table([each.name for each in KEYS], key_rows(told))
    for line in foot(told):
        click.echo(line)


def head(told: dict[str, Any]) -> str:
    """`Keyturn 1.0, process 77: 3 calls under way, 2 waiting, 12 in the last minute, 1 failed`."""
    status, minute = told.get("status"), told.get("minute") or {}
    if status is None:
        return f"No gateway is running. {told['at']}"
    ended = sum(each["calls"] for each in minute.values())
    failed = sum(each["errors"] for each in minute.values())
    state = " (shutting down)" if status["draining"] else "" if status["ready"] is None else f" ({status['ready']})"
    return (
        f"Keyturn {status['version']}, process {status['pid']}{state}: {status['inflight']} under way, "
        f"{status['waiting']} waiting, {ended} in the last minute, {failed} failed  {told['at']}"
    )


def foot(told: dict[str, Any]) -> list[str]:
    """What there is to say below the tables."""
    call, live = told["call"], told["live"]
    lines = [*_demo(told)]
    lines += [
        f"NOW and IN 60 S: calls of {call['tokens']} tokens that would be let through at once; `{ANY}`: no limit."
    ]
    if told["routes_left_out"] or told.get("keys_left_out"):
        lines.append(f"Not shown: {told['routes_left_out']} routes, {told.get('keys_left_out', 0)} keys.")
    if not live["reachable"]:
        lines.append("The shared store cannot be reached: each gateway goes on with its part.")
    return lines


def _demo(told: dict[str, Any]) -> list[str]:
    """What there is to say where no key is configured."""
    if not told.get("demo"):
        return []
    return [f"No key is configured: {', '.join(told['demo'])} answer, simulated; `keyturn keys add PROVIDER` adds one."]


def route_rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each route."""
    minute = told.get("minute") or {}
    return [
        (
            row["route"],
            _count(row["now"]["requests"]),
            _count(row["in_60_s"]["requests"]),
            _count(row["now"]["tokens"]),
            _waiting(row["waiting"]),
            _returns(row["returns"]),
            _quotas(row["day_quotas"]),
            _minute(minute.get(row["route"])),
        )
        for row in told["routes"]
    ]


def key_rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each key on each model, those that are away first."""
    rows = sorted(told.get("keys", ()), key=lambda row: row["state"] == "free")
    return [
        (
            row["key"],
            row["model"],
            row["state"] if row["state"] == "free" else f"{row['state']}: {_why(row['why'])}",
            bar(row["used_share"]),
            _count(row["now"]["requests"]),
            _count(row["in_60_s"]["requests"]),
            "" if row["state"] == "free" else _after(row["returns_in_s"], row["returns_at"]),
            _quotas(row["day_quotas"]),
        )
        for row in rows
    ]


def bar(share: float) -> str:
    """`####...... 40 %`."""
    filled = min(BAR, max(int(share * BAR + 0.5), int(share > 0)))
    return f"{'#' * filled}{'.' * (BAR - filled)} {share:4.0%}".replace("%", " %")


def fitting(columns: Sequence[Column], width: int) -> list[int]:
    """The places of the columns that a terminal of *width* has room for."""
    return [place for place, each in enumerate(columns) if width >= each.width]


def _count(number: int | None) -> str:
    return ANY if number is None else f"{number:,}"


def _waiting(row: dict[str, Any]) -> str:
    if not row["calls"]:
        return ""
    return str(row["calls"]) + (f", {row['expected_s']:g} s" if row["expected_s"] else "")


def _returns(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{_after(row['in_s'], row['at'])}: {_why(row['why'])}"


def _why(text: str) -> str:
    """*text* in fewer words: `requests limit of 3 a minute reached` is `3 requests a minute`."""
    found = _LIMIT.fullmatch(text)
    return text if found is None else f"{found[2]} {found[1]} {found[3]}"


def _after(wait: float | None, at: str | None) -> str:
    """`in 12 s`, `at 14:03 (2 h)`, `?` when nobody knows."""
    if wait is None:
        return "?"
    if wait < 120 or at is None:
        return f"in {wait:.0f} s"
    span = (
        f"{wait / 60:.0f} min"
        if wait < 7200
        else f"{wait / 3600:.0f} h"
        if wait < 172_800
        else f"{wait / 86_400:.0f} d"
    )
    return f"{at[11:16]} UTC ({span})"


def _quotas(rows: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{row['free']:,} of {row['capacity']:,} {row['metric'].replace('_', ' ')}"
        + ("" if row["resets_in_s"] is None else f", whole {_after(row['resets_in_s'], row['resets_at'])}")
        for row in rows
    )


def _minute(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return counted(row["calls"], "call") + (f", {row['errors']} failed" if row["errors"] else "")


class Screen:
    """The terminal, taken over until it is left. *console* is for tests."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console()
        self._live = Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, told: dict[str, Any] | None, trouble: str) -> None:
        """Draw *told*, the last figures that there are, and what is wrong."""
        width, height = self._console.size
        self._live.update(drawn(told, trouble, width, height), refresh=True)


def drawn(told: dict[str, Any] | None, trouble: str, width: int, height: int) -> Group:
    """One picture for a terminal of that size: as many rows as it has room for, routes before keys."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(trouble, style="bold red")] if trouble else []
    if told is None:
        return Group(*parts, Text("q: leave", style="dim"))
    routes, keys = route_rows(told), key_rows(told)
    room = max(height - FIXED_LINES - bool(trouble) - len(_demo(told)), 2 * LEAST_ROWS)
    for_keys = min(len(keys), max(room - len(routes), room // 2))
    for_routes = min(len(routes), room - for_keys)
    parts += [Text(head(told), style="bold", overflow="ellipsis", no_wrap=True)]
    parts += [Text(line, overflow="ellipsis", no_wrap=True) for line in _demo(told)]
    parts += [_table(ROUTES, routes, for_routes, width), _table(KEYS, keys, for_keys, width)]
    hidden = len(routes) - for_routes, len(keys) - for_keys
    more = f"  {hidden[0]} routes and {hidden[1]} keys more: enlarge the window, or --once" if any(hidden) else ""
    return Group(*parts, Text(f"q: leave{more}", style="dim", overflow="ellipsis", no_wrap=True))


def _table(columns: Sequence[Column], rows: list[tuple[str, ...]], most: int, width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    shown = fitting(columns, width)
    cells = [[Text(printable(row[place])) for place in shown] for row in rows[:most]]
    wanted = [
        max(len(columns[place].name), *(row[column].cell_len for row in cells)) if cells else len(columns[place].name)
        for column, place in enumerate(shown)
    ]
    table = Table(box=None, pad_edge=False, expand=False)
    for place, cut in zip(shown, _shortened(wanted, [columns[place].least for place in shown], width), strict=True):
        table.add_column(
            columns[place].name,
            justify="right" if columns[place].right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=cut,
        )
    for row in cells:
        table.add_row(*row)
    return table


def _shortened(wanted: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """How wide each column is drawn on *width* cells: the widest words are shortened first, figures never."""
    widths = list(wanted)
    for _ in range(sum(widths) + GAP * (len(widths) - 1) - width):
        words = [place for place, cells in enumerate(widths) if least[place] and cells > least[place]]
        if not words:
            break
        widths[max(words, key=widths.__getitem__)] -= 1
    return widths
