"""The shape of the ledger, the durable record of attempts, and the one that keeps nothing."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from keyturn.core import Attempt


class Ledger(Protocol):
    """Records each attempt twice: before its first byte is sent, and when it is over."""

    def intend(self, attempt: Attempt) -> Awaitable[None] | None:
        """*attempt* is about to be sent. What is returned is done before a byte is; None: nothing to wait for."""
        ...

    def finish(self, attempt: Attempt) -> None:
        """*attempt* is over. Queued; may be called while a task is being cancelled."""
        ...


class NullLedger:
    """Keeps nothing."""

    def intend(self, attempt: Attempt) -> None:
        return None

    def finish(self, attempt: Attempt) -> None:
        return None
