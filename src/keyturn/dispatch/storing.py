"""Which stores a configuration asks for: where live state and the ledger are kept."""

from __future__ import annotations

from keyturn.config import Config, DataFolder
from keyturn.core import Clock, Marks
from keyturn.stores import Ledger, LiveState, MemoryState, NullLedger


def live_state_of(config: Config, marks: Marks, clock: Clock) -> LiveState:
    """Counters and cooldowns: of this process, or in Redis."""
    return MemoryState(marks, wall_offset=clock.wall() - clock.mono())


def ledger_of(config: Config, folder: DataFolder | None, clock: Clock) -> Ledger:
    """The record of calls; none without a data folder of one's own."""
    return NullLedger()
