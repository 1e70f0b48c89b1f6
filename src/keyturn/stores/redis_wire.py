"""One connection to Redis: commands into bytes, and what its errors mean in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from keyturn.core import Clock

from .redis_port import Argument

T = TypeVar("T")

MEANINGS = {
    "READONLY": "is a replica, which takes no writes: point REDIS_URL at the primary, or at a name that follows it",
    "LOADING": "is loading its data from the disk: it comes back by itself",
    "OOM": "has no memory left: raise its maxmemory, and leave maxmemory-policy at noeviction",
    "MISCONF": "takes no writes because it cannot save to its disk: look at that disk and at the log of Redis",
    "NOAUTH": "asks for a password: write it into REDIS_URL, as in redis://:password@host:6379/0",
    "WRONGPASS": "does not accept the user and the password of REDIS_URL",
    "NOPERM": "forbids this user a command that is needed: see the ACL line in docs/replicas.md",
    "CLUSTER": "runs in cluster mode, which is not supported: use one primary, with replicas if you like",
    "BUSY": "is held up by a script that does not end: SCRIPT KILL ends it; see which program runs it",
    "MASTERDOWN": "is a replica that lost its primary: point REDIS_URL at the primary, or at a name that follows it",
    "NOREPLICAS": "takes no writes because too few replicas follow it: see its min-replicas-to-write",
    "CLIENTS": "has no connection left: raise its maxclients, or see which program keeps so many open",
    "DATABASE": "has no such database: the number at the end of REDIS_URL is 0 to 15 by default",
}
"""What Redis answers, and what to do about it. A script's error has the word in its middle."""
FINAL = {"READONLY", "NOAUTH", "WRONGPASS", "NOPERM", "CLUSTER", "DATABASE"}
"""What waiting does not mend."""

STRANGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""What redis-py lets through besides its own errors, when a server answers something odd."""

_WORDS = re.compile(
    r"\b(READONLY|LOADING|OOM|MISCONF|NOAUTH|WRONGPASS|NOPERM|CLUSTERDOWN|MOVED|CROSSSLOT|TRYAGAIN|BUSY|MASTERDOWN|"
    r"NOREPLICAS|cluster mode|max number of clients|DB index|without any password configured|invalid password)\b"
)
_CODES = {
    "CLUSTERDOWN": "CLUSTER",
    "MOVED": "CLUSTER",
    "CROSSSLOT": "CLUSTER",
    "TRYAGAIN": "CLUSTER",
    "cluster mode": "CLUSTER",
    "max number of clients": "CLIENTS",
    "DB index": "DATABASE",
    "without any password configured": "WRONGPASS",
    "invalid password": "WRONGPASS",
}
_CLASSES = {
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "OutOfMemoryError": "OOM",
    "NoPermissionError": "NOPERM",
    "ClusterDownError": "CLUSTER",
    "MovedError": "CLUSTER",
    "AskError": "CLUSTER",
    "MasterDownError": "MASTERDOWN",
}
"""The client takes the word from the text of these."""


class Wire(Protocol):
    """What is used of redis-py's connection: one socket, greeted, with its parser."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def send_packed_command(self, command: Sequence[bytes], check_health: bool = ...) -> None: ...
    async def read_response(self, disable_decoding: bool = ..., *, disconnect_on_error: bool = ...) -> Any: ...
    async def disconnect(self, nowait: bool = ...) -> None: ...


def packed(parts: Sequence[Argument]) -> bytes:
    """A command as it goes over the wire. Raises TypeError for what is neither bytes, nor text, nor a whole number."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        if isinstance(part, str):
            part = part.encode()
        elif isinstance(part, int):
            part = b"%d" % part
        pieces.append(b"$%d\r\n%b\r\n" % (len(part), part))
    return b"".join(pieces)


async def exchange(wire: Wire, *parts: Argument) -> Any:
    """Send one command over a wire that nobody else uses and read its reply. Raises what redis-py raises."""
    await wire.send_packed_command((packed(parts),), check_health=False)
    return await wire.read_response(disable_decoding=True)


async def hang_up(wire: Wire) -> None:
    """Close a wire at once, also one whose other end takes nothing any more. Never suspends, so nothing cancels it."""
    writer = getattr(wire, "_writer", None)
    if writer is not None:
        writer.transport.abort()
    await wire.disconnect(nowait=True)


async def breathe() -> None:
    """Let others on the loop run: what lies ready is read without a pause."""
    turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    await turn.wait()


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Do *work*, which is cancelled after *seconds*: then raises TimeoutError."""
    task = asyncio.create_task(work)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = not task.done()
        task.cancel()

    timer = clock.call_at(clock.mono() + seconds, expire)
    outer = asyncio.current_task()
    pending = outer.cancelling() if outer is not None else 0
    try:
        return await task
    except asyncio.CancelledError:
        if expired and (outer is None or outer.cancelling() <= pending):
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks* and wait for their end. Whoever cancels this waiting does not cancel them a second time."""
    for task in tasks:
        task.add_done_callback(_seen)
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def code_of(error: BaseException) -> str:
    """The word of `MEANINGS` that an error of Redis comes to; empty when there is none.

    While it connects, redis-py raises such an error as the cause of another one.
    """
    return next(filter(None, map(_code_of, causes(error))), "")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it, the last one first."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is not None:
            yield seen
            seen = seen.__cause__ or seen.__context__


def _code_of(error: BaseException) -> str:
    name = type(error).__name__
    if name in _CLASSES:
        return _CLASSES[name]
    found = _WORDS.search(str(error))
    if found:
        return _CODES.get(found[1], found[1])
    if name == "AuthenticationError":
        return "NOAUTH" if "required" in str(error) else "WRONGPASS"
    return ""
