"""Bytes to upstreams and back: `send` takes a request of any kind and returns once the answer's headers are there.

`HttpTransport` is loaded when it is first asked for, so that a process without upstreams loads no HTTP client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .local import ASGIApp, LocalTransport
from .transports import Transports

if TYPE_CHECKING:
    from .http import HttpTransport

__all__ = ["ASGIApp", "HttpTransport", "LocalTransport", "Transports"]


def __getattr__(name: str) -> object:
    if name == "HttpTransport":
        from .http import HttpTransport

        return HttpTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
