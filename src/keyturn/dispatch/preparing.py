"""What stands between a grant and its request: the program's own hook, and writing the request for this upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from keyturn.core import Attempt, Call
from keyturn.errors import Untranslatable

from .exchange import Exchange
from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway

LARGE_BODY = 512 * 1024
"""Bytes of a request above which it is prepared in a thread: others should not wait while so many are translated."""
BeforeAttempt = Callable[[str, Call, Attempt], Awaitable[None]]


async def announced(hook: BeforeAttempt, run: Run, grant: Grant) -> None:
    """Have *hook* see, and perhaps change, what is about to be sent."""
    seen = False
    try:
        await hook(run.trail.call, run.call, grant.attempt)
        seen = True
    finally:
        if not seen:
            grant.close()
    run.neutral = None  # made of what may have changed


def prepared(gateway: Gateway, run: Run, grant: Grant) -> Exchange | None:
    """The attempt of *grant*, ready to be sent; None when its dialect cannot say what the call says."""
    exchange, ready = Exchange(gateway, run, grant), False
    try:
        exchange.prepare()
        ready = True
    except Untranslatable as error:
        run.cannot_ask(grant.entry.candidate.deployment, error)
        return None
    finally:
        if not ready:
            exchange.watch.close()
            grant.close()
    return exchange


async def prepared_apart(gateway: Gateway, run: Run, grant: Grant) -> Exchange | None:
    """The same for a large body, in a thread: its translation must not hold up everybody else."""
    exchange, ready = Exchange(gateway, run, grant), False
    try:
        await asyncio.to_thread(exchange.prepare)
        ready = True
    except Untranslatable as error:
        run.cannot_ask(grant.entry.candidate.deployment, error)
        return None
    finally:
        if not ready:
            exchange.watch.close()
            grant.close()
    return exchange
