from __future__ import annotations

from keyturn.core import Attempt
from keyturn.stores import Ledger, NullLedger


def test_the_null_ledger_makes_nobody_wait() -> None:
    ledger: Ledger = NullLedger()
    attempt = Attempt("id", "groq", "llama", "groq-0:abcdef", 0.0)
    assert ledger.intend(attempt) is None
    ledger.finish(attempt)
