"""A ledger in a data folder, written by the real one, with a few calls of November 2026 in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from keyturn.config import Config, DataFolder, Options, load
from keyturn.dispatch import SystemClock
from keyturn.dispatch.storing import ledger_of
from keyturn.stores import AttemptRow, CallRow
from keyturn.stores.lines import line_of

SERVED = "01a21c71-9318-7c1e-9d2f-6a3b8c9d0e1f"
STREAMED = "01a21c71-a6a0-7a11-8f00-0a1b2c3d4e5f"
REFUSED = "01a2212b-1000-7000-8000-000000000001"
BROKEN = "01a2212b-13e8-7000-8000-000000000002"
"""Its process ended before it did."""
GROQ, GEMINI = "groq-1:58816e", "gemini-1:fb5476"


def at(text: str) -> int:
    """`2026-11-27 09:58:55` (UTC) in Unix milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def attempt(call: str, number: int, when: str, key: str, model: str, **more: object) -> AttemptRow:
    """An attempt that is over."""
    provider = key.partition("-")[0]
    given: dict[str, object] = {"meaning": "ok", "status": 200, "ms": 349.2, "exact": True, "cost": None, **more}
    row = AttemptRow(
        "f",
        f"{call[:-2]}{number:02d}",
        call,
        at(when),
        "ci",
        "fast",
        "",
        provider,
        model,
        key,
        key[-6:],
        1,
        False,
        0,
        0,
        0,
    )
    for name, value in given.items():
        setattr(row, name, value)
    return row


def call(id: str, when: str, status: int = 200, code: str = "", **more: object) -> CallRow:
    row = CallRow("c", id, at(when), "ci", "fast", status, code, 412.5, 0.0, 1, False)
    for name, value in more.items():
        setattr(row, name, value)
    return row


ROWS: tuple[AttemptRow | CallRow, ...] = (
    attempt(
        SERVED,
        1,
        "2026-11-27 09:58:55",
        "groq-2:df59b9",
        "llama-3.1-8b-instant",
        meaning="rate_limited",
        status=429,
        ms=61.0,
        detail="Rate limit reached",
    ),
    attempt(
        SERVED, 2, "2026-11-27 09:58:56", GROQ, "llama-3.1-8b-instant", input=24, output=118, cached=8, cost=10_640
    ),
    call(SERVED, "2026-11-27 09:58:55", attempts=2, waited_ms=1500.0, notes=("temperature was left out",)),
    attempt(
        STREAMED,
        1,
        "2026-11-27 09:59:00",
        GEMINI,
        "gemini-3.8-flash",
        input=1200,
        output=300,
        reasoning=40,
        exact=False,
        first_token_ms=120.4,
        cost=None,
    ),
    call(STREAMED, "2026-11-27 09:59:00", stream=True),
    attempt(
        BROKEN,
        1,
        "2026-11-28 08:00:01",
        GROQ,
        "llama-3.1-8b-instant",
        input=1_000_000,
        output=0,
        cost=1_204_512_299_500,
    ),
    call(
        REFUSED,
        "2026-11-28 08:00:00",
        429,
        "capacity",
        attempts=0,
        refusals=("groq-1:58816e: requests/minute is full",),
    ),
)


def configured(cwd: Path, environ: Mapping[str, str] = MappingProxyType({})) -> Config:
    return load(dict(environ), cwd=cwd, options=Options())


def record(
    cwd: Path, rows: Iterable[AttemptRow | CallRow] = ROWS, environ: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Writes *rows* into the ledger of the data folder below *cwd*, as a gateway does."""

    async def main() -> None:
        config = configured(cwd, environ)
        folder = DataFolder(config.data)
        folder.lock()
        ledger = ledger_of(config, folder, SystemClock())
        await ledger.open()
        for row in rows:
            if isinstance(row, CallRow):
                ledger.ended(row)
            else:
                ledger.finish(line_of(row))
        await ledger.flush()
        await ledger.close()
        folder.release()

    asyncio.run(main())
