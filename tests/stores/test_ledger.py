"""The ledger that keeps nothing: it has the shape of one that does."""

from __future__ import annotations

import asyncio

from keyturn.stores import AttemptRow, CallRow, Ledger, NullLedger, UsageQuery
from keyturn.stores.lines import line_of


def test_the_null_ledger_keeps_nothing_and_makes_nobody_wait() -> None:
    ledger: Ledger = NullLedger()
    row = AttemptRow("i", "a", "c", 0, "default", "r", "", "groq", "m", "groq-1:abc", "abc", 2, False, 1, 1, 0)
    assert not ledger.keeps
    assert ledger.intend(line_of(row), paying=True) is None
    ledger.finish(line_of(row))
    ledger.ended(CallRow("c", "c", 0, "default", "r", 200, "", 1.0, 0.0, 1, False))
    assert asyncio.run(ledger.spent("2026-11")) == {}
    assert asyncio.run(ledger.usage(UsageQuery("key", 0, 1))) == ()
    assert ledger.standing().store == "none"
