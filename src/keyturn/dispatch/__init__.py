"""Where decisions meet I/O: one call from its request to its settled end, and the composition root."""

from .answering import request_ids
from .build import BUILT, build
from .clock import SystemClock, Watch, draw, new_id
from .counting import cost, count, first_asked
from .doors import DOORS, GEMINI_METHODS, Door, read_call
from .events import Alarm, CallEnded, Cooled, Event, Events, Reloaded, Rotated
from .gateway import Gateway
from .models import ModelRow
from .overview import matching, states
from .paths import PLACES, Place, call_headers, place_at, spellings, spoken, varying
from .reloading import Reloader
from .reply import ByteStream, Reply
from .waiting import WaitingRoom

__all__ = [
    "BUILT",
    "DOORS",
    "GEMINI_METHODS",
    "PLACES",
    "Alarm",
    "ByteStream",
    "CallEnded",
    "Cooled",
    "Door",
    "Event",
    "Events",
    "Gateway",
    "ModelRow",
    "Place",
    "Reloaded",
    "Reloader",
    "Reply",
    "Rotated",
    "SystemClock",
    "WaitingRoom",
    "Watch",
    "build",
    "call_headers",
    "cost",
    "count",
    "draw",
    "first_asked",
    "matching",
    "new_id",
    "place_at",
    "read_call",
    "request_ids",
    "spellings",
    "spoken",
    "states",
    "varying",
]
