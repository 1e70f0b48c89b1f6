"""Keyturn: one endpoint that never runs out of keys. Its public names, each loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import AsyncClient, Client, RotatingClient, get_provider_priority, get_providers_by_priority
    from .client.frames import summarise_frames
    from .client.sdk import transport_for_anthropic, transport_for_openai
    from .client.single import get_client
    from .client.smart import get_smart_client
    from .errors import KeyturnError, NoAvailableKeysError, ProviderExhaustedError

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Client",
    "KeyturnError",
    "NoAvailableKeysError",
    "ProviderExhaustedError",
    "RotatingClient",
    "__version__",
    "get_client",
    "get_provider_priority",
    "get_providers_by_priority",
    "get_smart_client",
    "summarise_frames",
    "transport_for_anthropic",
    "transport_for_openai",
]
_ROOMS = {
    "AsyncClient": "client",
    "Client": "client",
    "KeyturnError": "errors",
    "NoAvailableKeysError": "errors",
    "ProviderExhaustedError": "errors",
    "RotatingClient": "client",
    "get_client": "client.single",
    "get_provider_priority": "client",
    "get_providers_by_priority": "client",
    "get_smart_client": "client.smart",
    "summarise_frames": "client.frames",
    "transport_for_anthropic": "client.sdk",
    "transport_for_openai": "client.sdk",
}
"""Where each name lives. Importing this package loads no server and no HTTP client, and next to nothing else."""


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'keyturn' has no attribute {name!r}; it has {', '.join(__all__)}", name=name)
    from importlib import import_module

    found: object = getattr(import_module(f"keyturn.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
