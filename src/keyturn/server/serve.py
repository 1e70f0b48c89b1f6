"""Runs a gateway as a server: binds, says where it listens, and on a signal lets running answers finish."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from keyturn.config import Config, DataFolder
from keyturn.core import TimerHandle
from keyturn.dispatch import Gateway, Reloader
from keyturn.errors import KeyturnError

from .access import Access
from .app import App
from .guard import Guard, room_for_connections
from .listener import Listener
from .loop_end import close_loop
from .pages import Observer, Pages

if TYPE_CHECKING:
    from .siblings import Seat, Siblings

BACKLOG = 2048
CLOSE_PATIENCE = 0.7
"""Seconds that connections get to take the last bytes of their answers. With the gateway's own end it makes 5 s."""
LAST_WORDS = 0.2
"""Seconds that tasks get to write what they have, when no call runs any more; and that reading the files may take."""
TICK = 0.02
"""Seconds between two looks whether they have."""


class Server:
    """Listens on *sock* and serves *app*, from `start` to `stop`."""

    def __init__(self, app: App, gateway: Gateway, sock: socket.socket) -> None:
        self._app = app
        self._gateway = gateway
        self._clock = gateway.clock
        self.settings = gateway.config.server
        """As they were at the start."""
        self._sock = sock
        self._state = ServerState()
        settings = self.settings
        self.most_connections = room_for_connections(settings.max_connections)
        """As many as are accepted: fewer than were wished for where the system allows fewer open files."""
        self._guard = Guard(
            self._clock,
            gateway.strain,
            self.most_connections,
            settings.max_connections_per_ip,
            settings.memory_limit,
            settings.workers,
        )
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
        loop, settings = asyncio.get_running_loop(), self.settings

        def connection() -> Listener:
            return Listener(
                uvicorn, self._state, loop, self._clock, self._guard, settings.max_body, settings.max_headers
            )

        self._set_date()
        self._guard.start()
        self._server = await loop.create_server(connection, sock=self._sock, backlog=BACKLOG)

    def orphaned(self) -> None:
        """The process that keeps the workers is gone: leaves its port to the next one, and ends as after SIGINT."""
        if self._server is not None:
            self._server.close()
        else:
            self._sock.close()
        signal.raise_signal(signal.SIGINT)

    def last_call(self) -> None:
        """Idle connections are closed, all others with their next answer; who connects now gets one answer."""
        self._guard.closing = True
        for connection in list(self._state.connections):
            assert isinstance(connection, Listener)
            connection.last_call()

    async def stop(self, patience: float) -> None:
        """Takes no more connections; after *patience* seconds ends what still runs; last bytes get a little time."""
        self._app.stopping = self._guard.closing = True
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
        self._guard.stop()

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
    seat: Seat | None = None,
) -> int:
    """Serves *gateway* until a signal ends it; the exit code. *read* reads the configuration again when it changed.

    The caller holds the lock of *folder*; this makes its keys and tells commands where it listens. *on_ready* gets the
    URL once connections are accepted. With a *seat* this is one of several workers: their socket is bound already.
    Raises KeyturnError when the address cannot be bound.
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
    sock = bind(settings.host, settings.port) if seat is None else seat.listening
    siblings = _siblings(seat, gateway)
    app = App(gateway, access, Pages(gateway, observer, folder, reloader, siblings))
    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        server = Server(app, gateway, sock)
        ready = _telling(siblings, on_ready)
        serving = _serve(server, gateway, folder, observer, ready, url_of(sock), reloader)
        return runner.run(serving if siblings is None else _beside(siblings, server, serving))
    finally:
        close_loop(runner)
        sock.close()


def _siblings(seat: Seat | None, gateway: Gateway) -> Siblings | None:
    if seat is None:
        return None
    from .siblings import Siblings

    return Siblings(seat, gateway.clock)


def _telling(siblings: Siblings | None, on_ready: Callable[[str], None]) -> Callable[[str], None]:
    """*on_ready*, and before it the process that started this one is told."""

    def ready(url: str) -> None:
        if siblings is not None:
            siblings.ready()
        on_ready(url)

    return ready


async def _beside(siblings: Siblings, server: Server, serving: Coroutine[Any, Any, int]) -> int:
    """Runs *serving* as one of several workers."""
    try:
        await siblings.open(server.orphaned)
        return await serving
    finally:
        serving.close()
        await siblings.close()


async def _serve(
    server: Server,
    gateway: Gateway,
    folder: DataFolder,
    observer: Observer,
    on_ready: Callable[[str], None],
    url: str,
    reloader: Reloader | None,
) -> int:
    signals = _Signals()
    try:
        await _first_of(gateway.open(), signals.told.wait())
    except BaseException:
        await gateway.close()
        raise
    if signals.told.is_set():
        await gateway.close()
        return 0
    try:
        await server.start()
        if reloader is not None:
            reloader.start()
            _on_hangup(reloader.reload)
        _calm_collector()
        _publish(folder, url, observer)
        observer.say(f"keyturn listens on {url}")
        if server.most_connections < gateway.config.server.max_connections:
            observer.say(_few_files(server.most_connections, gateway.config.server.max_connections))
        on_ready(url)
        await signals.told.wait()
        await _drain(server, gateway, observer, signals)
    finally:
        if reloader is not None:  # a folder that does not answer may hold it up
            await _first_of(reloader.close(), gateway.clock.sleep_until(gateway.clock.mono() + LAST_WORDS))
        await server.stop(0.0 if gateway.inflight else LAST_WORDS)
        await gateway.close()
    observer.say("stopped")
    return 0


async def _drain(server: Server, gateway: Gateway, observer: Observer, signals: _Signals) -> None:
    """Tells load balancers, goes on for the grace; then lets running answers finish. A second signal ends each wait."""
    settings, clock = server.settings, gateway.clock
    gateway.leaving = True
    if settings.grace_seconds and not signals.hurried.is_set():
        observer.say(f"leaving: calls are still taken for {settings.grace_seconds:g} s, /readyz says 503")
        await _first_of(clock.sleep_until(clock.mono() + settings.grace_seconds), signals.hurried.wait())
    seconds = settings.drain_seconds
    observer.say(f"stopping: {gateway.inflight} running answers get {seconds:g} s; a second signal stops at once")
    gateway.drain()
    server.last_call()
    await _first_of(gateway.drained(seconds), signals.again.wait())


def _publish(folder: DataFolder, url: str, observer: Observer) -> None:
    """Tells commands where this process listens; without them it serves all the same."""
    try:
        folder.publish(url)
    except OSError as error:
        observer.say(f"commands do not find this gateway: {folder.gateway_file} cannot be written: {error.strerror}")


def _few_files(most: int, wanted: int) -> str:
    return (
        f"note: {most} connections are accepted, not {wanted}: the system allows no more open files; raise its limit "
        "(ulimit -n, LimitNOFILE), or lower server.max_connections"
    )


class _Signals:
    """What SIGINT and SIGTERM have said so far. To be made on the loop."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        """To stop."""
        self.hurried = asyncio.Event()
        """Without a grace: by SIGINT, or by a second signal."""
        self.again = asyncio.Event()
        """A second time: at once."""
        _on_signals(self._heard)

    def _heard(self, number: int) -> None:
        if self.told.is_set():
            self.again.set()
        if self.told.is_set() or number == signal.SIGINT:
            self.hurried.set()
        self.told.set()


def _calm_collector() -> None:
    """What start-up made stays: keep it out of every collection, and collect the young less often.

    A call leaves few cycles behind; with the default thresholds a tenth of its time goes into looking for them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _on_signals(heard: Callable[[int], object]) -> None:
    """Calls *heard* on the loop at each SIGINT and SIGTERM, with its number."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, heard, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda given, _: loop.call_soon_threadsafe(heard, given))


def _on_hangup(reload: Callable[[], object]) -> None:
    """Calls *reload* on the loop at each SIGHUP, where there is such a signal."""
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


async def _first_of(*waits: Awaitable[object]) -> None:
    """Returns when one of *waits* is over, raises what that raised; cancels the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ends:
        if isinstance(error, Exception):
            raise error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: a third less CPU per call."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
