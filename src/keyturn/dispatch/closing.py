"""The end of a gateway: its parts are closed in order, and none of them holds up the others or the exit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keyturn.core import Clock
from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from .gateway import Gateway

Close = Callable[[], Awaitable[object]]
_log = logging.getLogger("keyturn")


class Group(NamedTuple):
    """Parts that are closed at the same time, within so many seconds."""

    within: float
    parts: Sequence[tuple[str, Close]]
    """What each is, for the log, and how it is closed."""


def groups_of(gateway: Gateway) -> tuple[Group, ...]:
    """What *gateway* consists of, in the order in which it ends: 4.1 s at most."""
    sharing = [each.sharing for each in gateway.generations_in_use if each.sharing is not None]
    background: list[tuple[str, Close]] = [("shared answers", each.close) for each in sharing]
    background.append(("what is learned", gateway.adapting.close))
    hedging = [each.hedging for each in gateway.generations_in_use if each.hedging is not None]
    background += [("second requests", each.close) for each in hedging]
    background += [("lists of models", each.close) for each in gateway.lists_in_use]
    if gateway.refresher is not None:
        background.append(("logins", gateway.refresher.close))
    links: list[tuple[str, Close]] = [("connections to upstreams", gateway.transport.close)]
    if "responses" in vars(gateway):  # it is made when it is first asked for
        links.append(("kept responses", gateway.responses.close))
    stores: list[tuple[str, Close]] = [("the live state", gateway.live.close), ("the ledger", gateway.ledger.close)]
    if gateway.restoring is not None:
        stores.append(("the snapshot of live state", gateway.restoring.close))
    return (
        Group(1.0, background),
        Group(0.8, links),
        Group(0.3, [("the data folder", gateway.carried.close)]),
        Group(2.0, stores),
    )


async def close_all(clock: Clock, groups: Iterable[Group]) -> None:
    """Closes group after group.

    A part that is not done in its time is cancelled and named in the log; so is one that fails. What a store has not
    written by then lies in its journal. An error that is none of ours is raised when everything is closed.
    """
    errors: list[BaseException] = []
    for within, parts in groups:
        over = asyncio.Event()
        timer = clock.call_at(clock.mono() + within, over.set)
        late = asyncio.ensure_future(over.wait())
        tasks = {asyncio.ensure_future(_closed(name, close)): name for name, close in parts}
        running = set(tasks)
        try:
            while running and not late.done():
                done, _ = await asyncio.wait({*running, late}, return_when=asyncio.FIRST_COMPLETED)
                running -= done
        finally:
            timer.cancel()
            for task in (*running, late):
                task.cancel()
        if running:
            left = ", ".join(tasks[task] for task in running)
            _log.warning("not closed within %g s, and left as they are: %s", within, left)
        for task in tasks.keys() - running:
            if task.cancelled():
                _log.warning("%s could not be closed: it was cancelled", tasks[task])
            elif (error := task.exception()) is not None:
                errors.append(error)
    if errors:
        raise errors[0]


async def _closed(name: str, close: Close) -> None:
    try:
        await close()
    except (KeyturnError, OSError) as error:
        _log.warning("%s could not be closed: %s", name, error)


async def ended(task: asyncio.Task[Any]) -> None:
    """Wait until *task* is over; a cancellation that comes meanwhile is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
