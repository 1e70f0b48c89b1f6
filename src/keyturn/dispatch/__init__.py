"""Where decisions meet I/O: one call from its request to its settled end, and the composition root."""

from .build import build
from .clock import SystemClock, Watch, draw, new_id
from .doors import MODEL_PATHS, read_call
from .events import Alarm, CallEnded, Cooled, Event, Events
from .gateway import Gateway
from .models import ModelRow
from .overview import matching, states
from .reply import ByteStream, Reply
from .waiting import WaitingRoom

__all__ = [
    "MODEL_PATHS",
    "Alarm",
    "ByteStream",
    "CallEnded",
    "Cooled",
    "Event",
    "Events",
    "Gateway",
    "ModelRow",
    "Reply",
    "SystemClock",
    "WaitingRoom",
    "Watch",
    "build",
    "draw",
    "matching",
    "new_id",
    "read_call",
    "states",
]
