"""Rows of a ledger for tests: attempts that begin and end, calls, and the exact sums over them in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from keyturn.stores import AttemptRow, By, CallRow, Shared, UsageQuery, UsageRow
from keyturn.stores.lines import line_of

NOON = int(datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()) * 1000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def began(
    id: str,
    *,
    at: int = NOON,
    call: str = "",
    caller: str = "default",
    role: str = "",
    model: str = "llama",
    key: str = "groq-1:9f3a1c",
    charged: int = 0,
) -> AttemptRow:
    """The attempt *id* is about to be sent; 100 and 50 tokens are held."""
    fingerprint = key.partition(":")[2] + "00"
    return AttemptRow(
        "i",
        id,
        call or f"call-{id}",
        at,
        caller,
        "route",
        role,
        "groq",
        model,
        key,
        fingerprint,
        2,
        False,
        100,
        50,
        charged,
    )


def over(
    row: AttemptRow,
    *,
    meaning: str = "ok",
    input: int = 90,
    output: int = 40,
    charged: int = 0,
    cost: int | None = 7,
    exact: bool = True,
    cached: int = 5,
    reasoning: int = 3,
) -> AttemptRow:
    """The end of *row*."""
    changed = msgspec.structs.replace(row, kind="f", input=input, output=output, charged=charged, meaning=meaning)
    changed.status, changed.ms, changed.first_token_ms = 200 if meaning == "ok" else 429, 12.5, 3.5
    changed.cached, changed.reasoning, changed.exact, changed.cost = cached, reasoning, exact, cost
    return changed


def ended(
    id: str, *, at: int = NOON, status: int = 200, refusals: Sequence[str] = (), notes: Sequence[str] = ()
) -> CallRow:
    """The call *id* is over."""
    code = "" if status == 200 else "capacity"
    return CallRow("c", id, at, "default", "route", status, code, 15.5, 1.5, 1, False, refusals, notes)


def lines(*rows: AttemptRow | CallRow) -> list[bytes]:
    """As the journal has them."""
    return [line_of(row).rstrip() for row in rows]


def shared_by(row: AttemptRow) -> Shared:
    """What *row* shares with others: the second part of its line."""
    return Shared(bytes(msgspec.json.decode(line_of(row), type=tuple[msgspec.Raw, msgspec.Raw])[1]))


def numbered(row: AttemptRow, shared: Shared) -> bytes:
    """The line of *row* as it is written beside *shared*."""
    own, _ = msgspec.json.decode(line_of(row), type=tuple[msgspec.Raw, msgspec.Raw])
    return msgspec.json.encode((own, shared.number)) + b"\n"


def summed(rows: Iterable[AttemptRow], query: UsageQuery) -> list[UsageRow]:
    """What *query* must find in *rows*, all of which are over: the judge."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if not query.since <= row.at < query.until or query.name not in ("", _name(row, query.by)):
            continue
        tokens = row.input + row.output > 0
        figures = (
            1, row.meaning != "ok", row.input, row.cached, row.output, row.reasoning, row.cost or 0,
            row.cost is None and tokens, tokens and not row.exact,
        )  # fmt: skip
        before = found.setdefault(_name(row, query.by), [0] * len(figures))
        found[_name(row, query.by)] = [a + b for a, b in zip(before, figures, strict=True)]
    sums = [UsageRow(name, *figures) for name, figures in found.items()]
    return sorted(sums, key=lambda row: (-row.input - row.output, row.name))[: query.most]


def _name(row: AttemptRow, by: By) -> str:
    if by == "day":
        return f"{datetime.fromtimestamp(row.at / 1000, UTC):%Y-%m-%d}"
    return {"key": row.key, "caller": row.caller, "model": f"{row.provider}/{row.model}", "call": row.call}[by]
