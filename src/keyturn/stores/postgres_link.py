"""Connections to PostgreSQL: few, each transaction in a task of its own, each within a bounded time.

Who asks waits for a task that he does not own: a cancelled waiter leaves no connection in the middle of a transaction.
A connection that is lost, or not done in time, is thrown away, never used again. Everything that is asked may be asked
again, so that a lost connection and a deadlock are tried once more before anybody hears of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from keyturn.core import Clock, Secret
from keyturn.errors import StoreAway, StoreError

from .postgres_errors import NO_EXTRA, said, shown

T = TypeVar("T")
MOST_CONNECTIONS = 4
KEPT = 1
"""Connections that stay open while nothing is asked."""
MOST_WAITING = 64
"""Transactions that may be asked for at a time; what comes on top is refused."""
BOUND = 5.0
"""Seconds that one transaction may take, its wait for a connection included."""
LONG = 60.0
"""Seconds that a sum over a long time, or a change of the schema, may take."""
TRIES = 3
LAST_WORD = 2.0
"""Seconds that transactions under way may still take when the link is closed."""
SERVERS_SHARE = 0.8
"""Of the bound, what the server is given: it gives up first, which keeps the connection."""


_BEGIN = """BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL jit = off;
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"""
"""What is committed is let go of here, so that the server must not lose it again."""
_COMMA = re.compile(",|%2[Cc]")


class Session(Protocol):
    """A connection inside of one transaction, as asyncpg's has it."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def fetch(self, query: str, *args: object) -> Sequence[Any]: ...
    async def fetchrow(self, query: str, *args: object) -> Any: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...


class _Connection(Session, Protocol):
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self) -> None: ...


class _Job:
    """One transaction that is asked for."""

    __slots__ = ("begun", "connection", "expired", "task")

    def __init__(self) -> None:
        self.connection: _Connection | None = None
        self.task: asyncio.Task[Any] | None = None
        self.begun = False
        self.expired = False

    def expire(self) -> None:
        """Time is up: who waits for the connection hears at once that it is gone."""
        self.expired = True
        if self.connection is not None:
            self.connection.terminate()
        elif self.task is not None and self.begun:  # else it finds out by itself
            self.task.cancel()


class PostgresLink:
    """The connections of one process to the database at *url*; of one event loop."""

    def __init__(self, url: Secret, clock: Clock) -> None:
        self.url = url
        self._clock = clock
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(MOST_CONNECTIONS)
        self._jobs: set[_Job] = set()
        self._making: set[asyncio.Task[_Connection]] = set()
        """Connections on their way: asyncpg does not like to be interrupted there, so nobody does but at the end."""
        self._closed = False
        self._turn = 0
        """How many times a host did not answer at all: with which of several to begin."""

    def open(self) -> None:
        """Take questions, also after having been closed. Connects when there is one."""
        self._closed = False

    async def run(self, work: Callable[[Session], Awaitable[T]], bound: float = BOUND) -> T:
        """What *work* returns, done as one transaction: all of it or nothing. It may be called more than once, and
        waits for nothing but the database.

        Raises StoreError, StoreAway when it may go better later.
        """
        if self._closed:
            raise self._late(bound)
        if len(self._jobs) >= MOST_WAITING:
            raise StoreAway(f"PostgreSQL at {shown(self.url)}: too much is asked of it at a time")
        job = _Job()
        self._jobs.add(job)
        job.task = task = asyncio.get_running_loop().create_task(self._serve(job, work, bound))
        task.add_done_callback(lambda done: self._over(job, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End all connections, after what is under way; again changes nothing."""
        self._closed = True
        timer = self._clock.call_at(self._clock.mono() + LAST_WORD, self._break_off)
        try:
            while tasks := {job.task for job in self._jobs if job.task is not None} | self._making:
                await asyncio.wait(tasks)
        finally:
            timer.cancel()
        idle, self._idle = self._idle, []
        for connection in idle:
            await self._end(connection)

    def let_go(self) -> None:
        """End without a loop to wait on: the server rolls back what is under way."""
        self._closed = True
        idle, self._idle = self._idle, []
        try:
            self._expire_all()
            for connection in idle:
                connection.terminate()
        except RuntimeError:
            pass  # their loop is closed, and they with it

    def _expire_all(self) -> None:
        for job in self._jobs:
            job.expire()

    def _break_off(self) -> None:
        self._expire_all()
        for task in self._making:
            task.cancel()

    def _over(self, job: _Job, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not task.cancelled():
            task.exception()  # looked at here, for its waiter may have left

    async def _serve(self, job: _Job, work: Callable[[Session], Awaitable[T]], bound: float) -> T:
        until = self._clock.mono() + bound
        timer = self._clock.call_at(until, job.expire)
        job.begun = True
        try:
            if job.expired:
                raise self._late(bound)
            async with self._slots:
                return await self._tried(job, work, bound)
        except asyncio.CancelledError:
            if job.expired:
                raise self._late(bound) from None
            raise
        finally:
            timer.cancel()

    async def _tried(self, job: _Job, work: Callable[[Session], Awaitable[T]], bound: float) -> T:
        failures = _failures()
        for left in range(TRIES - 1, -1, -1):
            reused = bool(self._idle)
            try:
                job.connection = self._idle.pop() if reused else await self._made()
                return await _transacted(job.connection, work, bound * SERVERS_SHARE)
            except failures as error:
                if job.expired:
                    raise self._late(bound) from error
                told = said(self.url, error)
                clash = str(getattr(error, "sqlstate", None) or "").startswith("40")
                dead = reused and (job.connection is None or job.connection.is_closed())
                if not left or not (clash or (dead and isinstance(told, StoreAway))):
                    raise told from error
            finally:
                connection, job.connection = job.connection, None
                if connection is not None:
                    self._put_back(connection)
        raise AssertionError("the last try returned or raised")

    async def _made(self) -> _Connection:
        """A new connection, made in a task of its own; who leaves meanwhile leaves it to be hung up."""
        task = asyncio.get_running_loop().create_task(self._connect())
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_hang_up)
            raise

    async def _connect(self) -> _Connection:
        url = _turned(self.url.reveal(), self._turn)
        named = {} if "application_name=" in url else {"application_name": "keyturn"}
        # Without its cache of statements it also works through a pooler that gives each transaction another session.
        try:
            made = await _driver().connect(url, timeout=BOUND, statement_cache_size=0, server_settings=named or None)
        except TimeoutError:
            self._turn += 1
            raise
        return cast(_Connection, made)

    def _put_back(self, connection: _Connection) -> None:
        if connection.is_closed():
            return
        if self._closed or len(self._idle) >= KEPT:
            connection.terminate()
        else:
            self._idle.append(connection)

    async def _end(self, connection: _Connection) -> None:
        """Say goodbye, or hang up when that takes long."""
        timer = self._clock.call_at(self._clock.mono() + LAST_WORD / 2, connection.terminate)
        try:
            await connection.close()
        except _failures():
            connection.terminate()
        finally:
            timer.cancel()

    def _late(self, bound: float) -> StoreAway:
        why = "the ledger is closed" if self._closed else f"it did not answer within {bound:g} s"
        return StoreAway(f"PostgreSQL at {shown(self.url)}: {why}")


async def _transacted(connection: _Connection, work: Callable[[Session], Awaitable[T]], seconds: float) -> T:
    """*work* as one transaction; *seconds* is what the server gives to each statement."""
    known = False
    try:
        try:
            await connection.execute(_BEGIN.format(int(seconds * 1000)))
            result = await work(connection)
            await connection.execute("COMMIT")
        except (StoreError, _driver().PostgresError):
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            known = True
            raise
        known = True
        return result
    finally:
        if not known:
            connection.terminate()  # nobody can say what it is in the middle of


def _hang_up(made: asyncio.Task[_Connection]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().terminate()


def _driver() -> Any:
    """asyncpg. Raises StoreError when it is not installed."""
    try:
        import asyncpg
    except ImportError:
        raise StoreError(NO_EXTRA) from None
    return asyncpg


def _failures() -> tuple[type[Exception], ...]:
    """What goes wrong between here and a database, and is told in words."""
    driver = _driver()
    return (OSError, UnicodeError, driver.PostgresError, driver.InterfaceError, driver.InternalClientError)


def _turned(url: str, turn: int) -> str:
    """*url* with another of its hosts as the first: one that swallows everything must not hide those behind it."""
    head, slashes, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    server, slash, database = place.partition("/")
    user, at, hosts = server.rpartition("@")
    pairs = [pair.partition("=") for pair in query.split("&")]
    asked = (f"{name}{sign}{_from(value, turn) if name in ('host', 'port') else value}" for name, sign, value in pairs)
    return f"{head}{slashes}{user}{at}{_from(hosts, turn)}{slash}{database}{mark}{'&'.join(asked)}"


def _from(listed: str, turn: int) -> str:
    """The list *listed*, begun with another of its members."""
    members = _COMMA.split(listed)
    turn %= len(members)
    return ",".join(members[turn:] + members[:turn])
