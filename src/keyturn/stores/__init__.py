"""Remember: the live state (counters and cooldowns) and the ledger (the durable record)."""

from typing import TYPE_CHECKING

from .ledger import (
    AttemptRow,
    By,
    CallRow,
    CallStory,
    Keeping,
    Ledger,
    NullLedger,
    ResponseRow,
    Responses,
    Sink,
    Standing,
    UsageQuery,
    UsageRow,
)
from .lines import Shared
from .live import Learned, LiveStanding, LiveState, Pending, Reservation, View
from .memory import MemoryState
from .shared import look_at_shared, shared_state
from .snapshot import (
    STATE_FILE,
    Changes,
    Head,
    Kept,
    Kind,
    Name,
    Snapshots,
    boot_name,
    forget_limits,
    forget_marks,
    look_at_snapshot,
)

if TYPE_CHECKING:
    from .journal import Journal, written_in
    from .journaled import JournaledLedger
    from .postgres_sink import PostgresSink
    from .sqlite_file import SqliteFile
    from .sqlite_schema import newest_schema
    from .sqlite_sink import SqliteSink

__all__ = [
    "STATE_FILE",
    "AttemptRow",
    "By",
    "CallRow",
    "CallStory",
    "Changes",
    "Head",
    "Journal",
    "JournaledLedger",
    "Keeping",
    "Kept",
    "Kind",
    "Learned",
    "Ledger",
    "LiveStanding",
    "LiveState",
    "MemoryState",
    "Name",
    "NullLedger",
    "Pending",
    "PostgresSink",
    "Reservation",
    "ResponseRow",
    "Responses",
    "Shared",
    "Sink",
    "Snapshots",
    "SqliteFile",
    "SqliteSink",
    "Standing",
    "UsageQuery",
    "UsageRow",
    "View",
    "boot_name",
    "forget_limits",
    "forget_marks",
    "look_at_shared",
    "look_at_snapshot",
    "newest_schema",
    "shared_state",
    "written_in",
]

_LATER = {
    "Journal": "journal",
    "JournaledLedger": "journaled",
    "PostgresSink": "postgres_sink",
    "SqliteFile": "sqlite_file",
    "SqliteSink": "sqlite_sink",
    "newest_schema": "sqlite_schema",
    "written_in": "journal",
}
"""What is loaded when it is used: name -> file. SQLite is not loaded by who keeps nothing."""


def __getattr__(name: str) -> object:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
