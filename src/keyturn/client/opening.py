"""Finds the pool of a client: the gateway that owns the data folder, a pool of this process, or one of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keyturn.config import Config, DataFolder, Owner
from keyturn.core import Caller, Secret
from keyturn.dispatch import Gateway, SystemClock, build
from keyturn.errors import ConfigError, DataFolderInUse, KeyturnError

from .arguments import Given
from .crossing import awaited, in_child, leave_to_parent, start
from .local import LocalDoorway, Watching
from .pool import Gone

if TYPE_CHECKING:
    from .neighbour import NeighbourDoorway
    from .pool import Pool
    from .remote import RemoteDoorway

_log = logging.getLogger("keyturn.client")
TWICE = "its limits are counted apart from the other's, and nothing of what it learns or spends lasts"
TICK = 0.01
"""Seconds between two looks whether a data folder was given up."""
LOOK = 0.1
"""The same, of one that belongs to a gateway which is shutting down."""
STACK = 7
"""Frames between a warning and who called the client, more or less."""


class Owned:
    """A pool of this process, and the clients that use it: on its own loop, or on others."""

    def __init__(self, given: Given, folder: DataFolder | None) -> None:
        self.place = _place(given.config)
        self.signature = given.signature
        self.loop = asyncio.get_running_loop()
        self._folder = folder
        data = DataFolder(given.config.data)
        self.gateway: Gateway = build(given.config, disabled=data.disabled(), folder=folder, pins=data.pins())
        self.watching = Watching(self.gateway, tells=given.log_events)
        self._users = 0
        self._opening: asyncio.Task[None] | None = None

    def doorway(self, caller: Caller) -> LocalDoorway:
        """A way in for one more user, to be used on the loop of the pool only."""
        with _guard:
            self._users += 1
        return LocalDoorway(self.gateway, caller, watching=self.watching, let_go=self.leave, forsaken=self.forsake)

    async def opened(self) -> None:
        """Return when the stores of the pool are ready; on any loop. Raises StoreError, to everybody who waits."""
        if asyncio.get_running_loop() is not self.loop:
            await awaited(start(self.loop, self.opened))
            return
        if self._opening is None:  # a task of its own: who stops waiting must not break it off for all others
            self._opening = self.loop.create_task(self.gateway.open())
        if not self._opening.done():
            await asyncio.wait([self._opening])
        self._opening.result()

    async def leave(self) -> None:
        """One user less; the last one closes the pool and gives the data folder up."""
        if self.loop.is_closed():
            self.forsake()
        elif self._last():
            _closing.add(self.place)
            try:
                if self._opening is not None and not self._opening.done():
                    await asyncio.wait([self._opening])
                await self.gateway.close()
            finally:
                self._release()
                _closing.discard(self.place)

    def forsake(self, *, everybody: bool = False) -> None:
        """One user less, or all, without a loop to close the pool on: what must last is written down."""
        if self._last(everybody=everybody):
            try:
                self.gateway.carried.write()
            except (OSError, KeyturnError) as error:
                _log.warning("the data folder could not be written: %s", error)
            finally:
                self.gateway.ledger.abandon()
                if self.gateway.restoring is not None:
                    self.gateway.restoring.abandon()
                self._release()

    def renew(self) -> None:
        """In a process that was forked: the pool and the data folder are the parent's."""
        self._users = 0
        leave_to_parent(self, self.loop)
        if self._folder is not None:
            self._folder.disown()

    def _last(self, *, everybody: bool = False) -> bool:
        """Counts a user out; True for the last, once."""
        with _guard:
            before, self._users = self._users, 0 if everybody else self._users - 1
            if before > 0 and self._users == 0:
                if _pools.get(self.place) is self:
                    del _pools[self.place]
                return True
            return False

    def _release(self) -> None:
        if self._folder is not None:
            self._folder.release()


class Entered(NamedTuple):
    """The way into a pool of this process, which may not be open yet."""

    pool: LocalDoorway | NeighbourDoorway
    owned: Owned

    async def ready(self) -> Pool:
        """The way in, once the pool is open. Raises StoreError; then, and when nobody waits any more, it is closed."""
        try:
            await self.owned.opened()
        except BaseException:
            leaving = asyncio.ensure_future(self.pool.close())
            _leaving.add(leaving)
            leaving.add_done_callback(_left)
            await asyncio.wait([leaving])
            raise
        return self.pool


def _left(leaving: asyncio.Future[None]) -> None:
    _leaving.discard(leaving)
    if not leaving.cancelled() and (error := leaving.exception()) is not None:
        _log.warning("a pool that could not be opened could not be closed either: %s", error)


_leaving: set[asyncio.Future[None]] = set()
"""Ways into pools that could not be opened, being closed."""
_guard = threading.RLock()
"""Held for a moment. The collector may call `forsake` in the middle of that, in the same thread."""
_opening = threading.Lock()
"""Held while a pool is looked for and made: two threads must not both find the folder free."""
_closing: set[Path] = set()
"""Data folders whose pool is about to be given up."""
_pools: dict[Path, Owned] = {}
"""The pool of each data folder, of those that belong to this process."""


async def open_pool(given: Given) -> Pool:
    """The way to the pool that *given* asks for; to be closed. Warns when limits are counted twice.

    Raises ConfigError for a data folder that cannot be read, StoreError for a store that cannot be used, ValueError for
    a caller that cannot be told to a gateway.
    """
    folder = DataFolder(given.config.data)
    if not given.share:
        if _listening(folder) is not None:
            _warn(f"share=False, though a gateway runs on {folder.path}: {TWICE}")
        return await _entered(Owned(given, None), given).ready()
    clock = SystemClock()
    while _place(given.config) in _closing:  # the last client of it is leaving
        await clock.sleep_until(clock.mono() + TICK)
    with _opening:
        entered = _way_in(given, folder)
    return await (_other(given, folder) if entered is None else entered.ready())


def _way_in(given: Given, folder: DataFolder) -> Entered | None:
    """The way into a pool of this process, found or made; None: the data folder is another process's."""
    with _guard:
        found = _pools.get(_place(given.config))
    if found is not None and found.loop.is_closed():  # its clients were never closed
        found.forsake(everybody=True)
        found = None
    if found is not None:
        return _shared(found, given) or _entered(Owned(given, None), given)
    owner = _listening(folder)
    if given.config.providers:
        try:
            return _entered(_claimed(given, folder), given)
        except DataFolderInUse:
            return None
    return None if owner is not None else _entered(Owned(given, None), given)  # nothing to keep: no folder is made


def _entered(owned: Owned, given: Given) -> Entered:
    return Entered(owned.doorway(given.caller), owned)


async def open_after(given: Given, leaving: int | None, patience: float) -> Pool:
    """As `open_pool`. A gateway of process *leaving*, which may be shutting down, is waited for, *patience* seconds at
    most: it gives the data folder up at its end."""
    clock = SystemClock()
    latest = clock.mono() + patience
    while True:
        try:
            pool = await open_pool(given)
        except Gone:
            if leaving is None or clock.mono() >= latest:
                raise
        else:
            if leaving is None or getattr(pool, "pid", None) != leaving or clock.mono() >= latest:
                return pool
            await pool.close()
        await clock.sleep_until(clock.mono() + LOOK)


def _claimed(given: Given, folder: DataFolder) -> Owned:
    """A pool that owns the data folder, or one beside a folder that cannot be written. Raises DataFolderInUse."""
    try:
        folder.lock()
    except ConfigError as error:
        _warn(f"nothing of what this pool learns or spends lasts: {error}")
        return _registered(Owned(given, None))
    try:
        folder.withdraw()
        return _registered(Owned(given, folder))
    except BaseException:
        folder.release()
        raise


def _shared(found: Owned, given: Given) -> Entered | None:
    """The way to a pool of this process, None when it cannot be shared."""
    if found.signature != given.signature:
        _warn(f"another client of this process uses {given.config.data} with other keys or settings: {TWICE}")
        return None
    if found.loop is asyncio.get_running_loop():
        return _entered(found, given)
    if not found.loop.is_running():
        _warn(f"the event loop of the client that uses {given.config.data} does not run: {TWICE}")
        return None
    from .neighbour import NeighbourDoorway

    return Entered(NeighbourDoorway(found.doorway(given.caller), found.loop), found)


async def _other(given: Given, folder: DataFolder) -> Pool:
    """The data folder belongs to another process: the way to it, if it is a gateway that holds our keys."""
    owner = _listening(folder)
    if owner is None:
        _warn(f"another program that does not listen uses {folder.path}: {TWICE}")
        return await _entered(_registered(Owned(given, None)), given).ready()
    remote = _remote(given, folder, *owner)
    if given.keyed:
        held = False
        try:
            held = _holds(await remote.keys(), given.config)
        finally:
            if not held:
                await remote.close()
        if not held:
            _warn(f"the gateway that runs on {folder.path} does not hold the given api_keys: {TWICE}")
            return await _entered(_registered(Owned(given, None)), given).ready()
    return remote


def _holds(rows: Iterable[Mapping[str, Any]], config: Config) -> bool:
    """Whether a gateway with these keys holds all of ours."""
    theirs = {(row["provider"], str(row["key"]).rpartition(":")[2]) for row in rows}
    ours = {
        (each.provider, each.fingerprint[:6]) for keys in config.credentials.values() for each in keys if each.secret
    }
    return ours <= theirs


def _remote(given: Given, folder: DataFolder, owner: Owner, admin: Secret) -> RemoteDoorway:
    from .remote import RemoteDoorway

    if given.caller_name is not None:
        raise ValueError(
            f"a gateway runs on {folder.path}, and knows callers by their keys: give caller_key, not caller"
        )
    caller = given.caller_key or given.config.caller_key or folder.existing_caller_key()
    return RemoteDoorway(owner.url, owner.pid, admin, caller)


def _listening(folder: DataFolder) -> tuple[Owner, Secret] | None:
    """The gateway that runs on *folder*, with the key that proves that the folder is ours."""
    owner, admin = folder.owner(), folder.admin_key()
    return None if owner is None or admin is None else (owner, admin)


def _registered(pool: Owned) -> Owned:
    """Have later clients of this process find *pool*."""
    with _guard:
        _pools.setdefault(pool.place, pool)
    return pool


def _place(config: Config) -> Path:
    return config.data.resolve()


def _warn(text: str) -> None:
    warnings.warn(f"keyturn: {text}", UserWarning, stacklevel=STACK)


def _renew() -> None:
    """In a process that was forked: nothing is opened yet."""
    global _guard, _opening
    _guard, _opening = threading.RLock(), threading.Lock()
    for pool in _pools.values():
        pool.renew()
    _pools.clear()
    _closing.clear()
    leave_to_parent(*_leaving)
    _leaving.clear()


in_child(_renew)
