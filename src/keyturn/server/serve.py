"""Runs a gateway as a server: binds, says where it listens, and on a signal lets running answers finish."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from keyturn.config import Config, DataFolder
from keyturn.core import TimerHandle
from keyturn.dispatch import Gateway, Reloader
from keyturn.errors import KeyturnError

from .access import Access
from .app import App
from .listener import Listener
from .pages import Observer, Pages

BACKLOG = 2048
CLOSE_PATIENCE = 2.0
"""Seconds that connections get to take the last bytes of their answers."""
LAST_WORDS = 0.5
"""Seconds that tasks get to write what they have, when no call runs any more."""
TICK = 0.02
"""Seconds between two looks whether they have."""


class Server:
    """Listens on *sock* and serves *app*, from `start` to `stop`."""

    def __init__(self, app: App, gateway: Gateway, sock: socket.socket) -> None:
        self._app = app
        self._gateway = gateway
        self._clock = gateway.clock
        self._settings = gateway.config.server
        self._sock = sock
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._date: TimerHandle | None = None

    async def start(self) -> None:
        """Accepts connections from now on."""
        uvicorn = UvicornConfig(
            self._app,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        uvicorn.load()
        loop, settings = asyncio.get_running_loop(), self._settings

        def connection() -> Listener:
            return Listener(uvicorn, self._state, loop, self._clock, settings.max_body, settings.max_headers)

        self._set_date()
        self._server = await loop.create_server(connection, sock=self._sock, backlog=BACKLOG)

    async def stop(self, patience: float) -> None:
        """Takes no more connections; after *patience* seconds ends what still runs; last bytes get a little time."""
        self._app.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._quiet(patience)
        for task in self._state.tasks:
            task.cancel()
        await self._quiet(CLOSE_PATIENCE)
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._date is not None:
            self._date.cancel()

    async def _quiet(self, seconds: float) -> None:
        """Waits until no connection is left, at most *seconds*."""
        clock = self._clock
        until = clock.mono() + seconds
        while (self._state.connections or self._state.tasks) and clock.mono() < until:
            await clock.sleep_until(clock.mono() + TICK)

    def _set_date(self) -> None:
        """Once a second: the Date header of all answers."""
        self._state.default_headers = [(b"date", formatdate(self._clock.wall(), usegmt=True).encode())]
        self._date = self._clock.call_at(self._clock.mono() + 1.0, self._set_date)
        self._gateway.keep_time()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises KeyturnError with what to do when that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        place = f"{host} port {port}"
        if error.errno == errno.EADDRINUSE:
            raise KeyturnError(f"{place} is in use by another program: stop it, or choose another --port") from error
        raise KeyturnError(f"cannot listen on {place}: {error.strerror or error}; see --host and --port") from error


def url_of(sock: socket.socket) -> str:
    """Where a client on this machine reaches *sock*."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    gateway: Gateway,
    *,
    folder: DataFolder,
    observer: Observer,
    on_ready: Callable[[str], None] = lambda url: None,
    read: Callable[[], Config] | None = None,
) -> int:
    """Serves *gateway* until a signal ends it; the exit code. *read* reads the configuration again when it changed.

    The caller holds the lock of *folder*; this makes its keys and tells commands where it listens. *on_ready* gets the
    URL once connections are accepted. Raises KeyturnError when the address cannot be bound.
    """
    settings = gateway.config.server
    caller_key = gateway.config.caller_key or folder.caller_key()
    admin_key = folder.new_admin_key()
    gateway.redactor.add(caller_key, admin_key)

    def again() -> Config:
        """The configuration as it is now, with the caller key of the data folder where it has none."""
        assert read is not None
        config = read()
        return config if config.caller_key is not None else replace(config, caller_key=folder.caller_key())

    access = Access(
        bound_host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        caller_key=caller_key,
        admin_key=admin_key,
        trust_local=settings.trust_local,
        callers=gateway.config.callers,
        default=gateway.config.default_caller,
    )

    def adopted(config: Config) -> None:
        access.adopt(
            allowed_hosts=config.server.allowed_hosts,
            caller_key=config.caller_key,
            trust_local=config.server.trust_local,
            callers=config.callers,
            default=config.default_caller,
        )

    reloader = Reloader(gateway, again, adopted) if read is not None else None
    sock = bind(settings.host, settings.port)
    app = App(gateway, access, Pages(gateway, observer, folder, reloader))
    with sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        server = Server(app, gateway, sock)
        return runner.run(_serve(server, gateway, folder, observer, on_ready, url_of(sock), reloader))


async def _serve(
    server: Server,
    gateway: Gateway,
    folder: DataFolder,
    observer: Observer,
    on_ready: Callable[[str], None],
    url: str,
    reloader: Reloader | None,
) -> int:
    told, hurry = asyncio.Event(), asyncio.Event()
    _on_signals(lambda: hurry.set() if told.is_set() else told.set())
    try:
        await gateway.open()
    except KeyturnError:
        await gateway.close()
        raise
    await server.start()
    if reloader is not None:
        reloader.start()
        _on_hangup(reloader.reload)
    try:
        _calm_collector()
        folder.publish(url)
        observer.say(f"keyturn listens on {url}")
        on_ready(url)
        await told.wait()
        seconds = gateway.config.server.drain_seconds
        observer.say(f"stopping: {gateway.inflight} running answers get {seconds:g} s; a second signal stops at once")
        gateway.drain()
        await _first_of(gateway.drained(seconds), hurry.wait())
    finally:
        if reloader is not None:
            await reloader.close()
        await server.stop(0.0 if gateway.inflight else LAST_WORDS)
        await gateway.close()
    observer.say("stopped")
    return 0


def _calm_collector() -> None:
    """What start-up made stays: keep it out of every collection, and collect the young less often.

    A call leaves few cycles behind; with the default thresholds a tenth of its time goes into looking for them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _on_signals(told: Callable[[], object]) -> None:
    """Calls *told* on the loop at each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, told)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(told))


def _on_hangup(reload: Callable[[], object]) -> None:
    """Calls *reload* on the loop at each SIGHUP, where there is such a signal."""
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Returns when one of *waits* is over; cancels the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: a third less CPU per call."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
