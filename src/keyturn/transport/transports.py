"""All transports behind one: the kind of the request picks who sends it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from keyturn.core import Clock, HttpRequest, LocalRequest, ProcessRequest, UpstreamRequest, UpstreamResponse

from .local import ASGIApp, LocalTransport

if TYPE_CHECKING:
    from .http import HttpTransport
    from .process import ProcessTransport


class Transports:
    """A `Transport` for every kind of request. What sends one kind is loaded by the first request of that kind."""

    def __init__(self, clock: Clock, apps: Mapping[str, ASGIApp]) -> None:
        self._clock = clock
        self._local = LocalTransport(apps)
        self._http: HttpTransport | None = None
        self._process: ProcessTransport | None = None

    @property
    def acquired(self) -> int:
        """Exchanges that hold a connection, run an application or a program; 0 when idle."""
        others = (each for each in (self._http, self._process) if each is not None)
        return self._local.acquired + sum(each.acquired for each in others)

    @property
    def open_connections(self) -> int:
        """HTTP connections in use and idle ones."""
        return self._http.open_connections if self._http else 0

    def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> Coroutine[Any, Any, UpstreamResponse]:
        """See `Transport`. Raises TypeError for a kind of request that nobody here sends."""
        if isinstance(request, HttpRequest):
            return (self._http or self._load_http()).send(request, on_sent)
        if isinstance(request, LocalRequest):
            return self._local.send(request, on_sent)
        if isinstance(request, ProcessRequest):
            return (self._process or self._load_process()).send(request, on_sent)
        raise TypeError(f"no transport sends a {type(request).__name__}")

    async def close(self) -> None:
        """Close all of them."""
        await self._local.close()
        for each in (self._http, self._process):
            if each is not None:
                await each.close()

    def _load_http(self) -> HttpTransport:
        from .http import HttpTransport

        self._http = HttpTransport(self._clock)
        return self._http

    def _load_process(self) -> ProcessTransport:
        from .process import ProcessTransport

        self._process = ProcessTransport(self._clock)
        return self._process
