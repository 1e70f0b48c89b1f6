"""The library: the pool inside a program, without a server."""

from .arguments import Arguments
from .asynchronous import AsyncClient, open_doorway
from .doorway import Doorway
from .frames import summarise_frames
from .hooks import Upcoming
from .local import LocalDoorway
from .sdk import transport_for_anthropic, transport_for_openai
from .single import SingleClient, get_client
from .smart import SmartClient, get_smart_client
from .streams import Stream, TextStream
from .summary import get_provider_priority, get_providers_by_priority
from .synchronous import Client, SyncStream
from .values import Answer, Told, Value

RotatingClient = AsyncClient
"""The older name of `AsyncClient`."""

__all__ = [
    "Answer",
    "Arguments",
    "AsyncClient",
    "Client",
    "Doorway",
    "LocalDoorway",
    "RotatingClient",
    "SingleClient",
    "SmartClient",
    "Stream",
    "SyncStream",
    "TextStream",
    "Told",
    "Upcoming",
    "Value",
    "get_client",
    "get_provider_priority",
    "get_providers_by_priority",
    "get_smart_client",
    "open_doorway",
    "summarise_frames",
    "transport_for_anthropic",
    "transport_for_openai",
]
