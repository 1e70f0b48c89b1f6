"""Remember: the live state (counters and cooldowns) and the ledger (the durable record)."""

from .ledger import Ledger, NullLedger
from .live import LiveState, Pending, Reservation, View
from .memory import MemoryState

__all__ = ["Ledger", "LiveState", "MemoryState", "NullLedger", "Pending", "Reservation", "View"]
