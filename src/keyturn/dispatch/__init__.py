"""Where decisions meet I/O: one call from its request to its settled end, and the composition root."""

from typing import TYPE_CHECKING

from .answering import request_ids
from .build import BUILT, build
from .clock import SystemClock, Watch, draw, new_id
from .counting import cost, count, first_asked
from .doors import DOORS, GEMINI_METHODS, Door, read_call
from .events import Alarm, CallEnded, Cooled, Event, Events, LimitLearned, Reloaded, Rotated
from .gateway import Gateway
from .hidden import secrets_of
from .models import ModelRow
from .overview import matching, states
from .paths import PLACES, Place, call_headers, place_at, spellings, spoken, varying
from .readiness import Readiness, readiness
from .reloading import Reloader
from .reply import ByteStream, Reply
from .restoring import restore
from .strain import CLASS_HEADER, SMALL_BODY, Strain
from .upkeep import (
    Finding,
    database_findings,
    disk_findings,
    findings_apart,
    ledger_apart,
    left_by_others,
    leftover,
    live_findings,
    migrated_apart,
    standing_findings,
    take_in,
)
from .usage import call_named, moment, names_call, recorded, told_call, told_of, trail_told, usage_told
from .waiting import WaitingRoom

if TYPE_CHECKING:
    from .kept_groups import groups_kept, refuse_apart
    from .pinning import pin_again, read_pin
    from .told_limits import Choice, choice_of, clear_limits, limit_rows, pins_but

__all__ = [
    "BUILT",
    "CLASS_HEADER",
    "DOORS",
    "GEMINI_METHODS",
    "PLACES",
    "SMALL_BODY",
    "Alarm",
    "ByteStream",
    "CallEnded",
    "Choice",
    "Cooled",
    "Door",
    "Event",
    "Events",
    "Finding",
    "Gateway",
    "LimitLearned",
    "ModelRow",
    "Place",
    "Readiness",
    "Reloaded",
    "Reloader",
    "Reply",
    "Rotated",
    "Strain",
    "SystemClock",
    "WaitingRoom",
    "Watch",
    "build",
    "call_headers",
    "call_named",
    "choice_of",
    "clear_limits",
    "cost",
    "count",
    "database_findings",
    "disk_findings",
    "draw",
    "findings_apart",
    "first_asked",
    "groups_kept",
    "ledger_apart",
    "left_by_others",
    "leftover",
    "limit_rows",
    "live_findings",
    "matching",
    "migrated_apart",
    "moment",
    "names_call",
    "new_id",
    "pin_again",
    "pins_but",
    "place_at",
    "read_call",
    "read_pin",
    "readiness",
    "recorded",
    "refuse_apart",
    "request_ids",
    "restore",
    "secrets_of",
    "spellings",
    "spoken",
    "standing_findings",
    "states",
    "take_in",
    "told_call",
    "told_of",
    "trail_told",
    "usage_told",
    "varying",
]

_LATER = {
    "Choice": "told_limits",
    "choice_of": "told_limits",
    "clear_limits": "told_limits",
    "limit_rows": "told_limits",
    "pin_again": "pinning",
    "pins_but": "told_limits",
    "read_pin": "pinning",
}
"""What is loaded when it is used: name -> file."""
_LATER |= dict.fromkeys(("groups_kept", "refuse_apart"), "kept_groups")


def __getattr__(name: str) -> object:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
