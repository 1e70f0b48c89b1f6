"""All transports behind one: the kind of the request picks who sends it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from keyturn.core import Clock, HttpRequest, LocalRequest, UpstreamRequest, UpstreamResponse

from .local import ASGIApp, LocalTransport

if TYPE_CHECKING:
    from .http import HttpTransport


class Transports:
    """A `Transport` for every kind of request that can be sent. The HTTP client is loaded by the first HttpRequest."""

    def __init__(self, clock: Clock, apps: Mapping[str, ASGIApp]) -> None:
        self._clock = clock
        self._local = LocalTransport(apps)
        self._http: HttpTransport | None = None

    @property
    def acquired(self) -> int:
        """Exchanges that hold a connection or run an application; 0 when idle."""
        return self._local.acquired + (self._http.acquired if self._http else 0)

    @property
    def open_connections(self) -> int:
        """HTTP connections in use and idle ones."""
        return self._http.open_connections if self._http else 0

    def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Coroutine[Any, Any, UpstreamResponse]:
        """See `Transport`. Raises TypeError for a kind of request that nobody here sends."""
        if isinstance(request, HttpRequest):
            return (self._http or self._load()).send(request, on_sent)
        if isinstance(request, LocalRequest):
            return self._local.send(request, on_sent)
        raise TypeError(f"no transport sends a {type(request).__name__}")

    async def close(self) -> None:
        """Close all of them."""
        await self._local.close()
        if self._http is not None:
            await self._http.close()

    def _load(self) -> HttpTransport:
        from .http import HttpTransport

        self._http = HttpTransport(self._clock)
        return self._http
