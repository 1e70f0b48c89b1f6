"""Remember: the live state (counters and cooldowns) and the ledger (the durable record)."""

from .ledger import (
    AttemptRow,
    By,
    CallRow,
    CallStory,
    Ledger,
    NullLedger,
    ResponseRow,
    Responses,
    Sink,
    Standing,
    UsageQuery,
    UsageRow,
)
from .live import Learned, LiveStanding, LiveState, Pending, Reservation, View
from .memory import MemoryState

__all__ = [
    "AttemptRow",
    "By",
    "CallRow",
    "CallStory",
    "Learned",
    "Ledger",
    "LiveStanding",
    "LiveState",
    "MemoryState",
    "NullLedger",
    "Pending",
    "Reservation",
    "ResponseRow",
    "Responses",
    "Sink",
    "Standing",
    "UsageQuery",
    "UsageRow",
    "View",
]
