"""Where decisions meet I/O: one call from its request to its settled end, and the composition root."""

from .answering import request_ids
from .build import BUILT, build
from .clock import SystemClock, Watch, draw, new_id
from .counting import cost, count, first_asked
from .doors import DOORS, GEMINI_METHODS, Door, read_call
from .events import Alarm, CallEnded, Cooled, Event, Events, Reloaded, Rotated
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
from .usage import call_named, moment, recorded, told_of, trail_told, usage_told
from .waiting import WaitingRoom

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
    "Cooled",
    "Door",
    "Event",
    "Events",
    "Finding",
    "Gateway",
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
    "cost",
    "count",
    "database_findings",
    "disk_findings",
    "draw",
    "findings_apart",
    "first_asked",
    "ledger_apart",
    "left_by_others",
    "leftover",
    "live_findings",
    "matching",
    "migrated_apart",
    "moment",
    "new_id",
    "place_at",
    "read_call",
    "readiness",
    "recorded",
    "request_ids",
    "restore",
    "secrets_of",
    "spellings",
    "spoken",
    "standing_findings",
    "states",
    "take_in",
    "told_of",
    "trail_told",
    "usage_told",
    "varying",
]
