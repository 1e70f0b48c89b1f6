"""What stands between a grant and its request: the program's own hook, and writing the request for this upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from keyturn.core import Attempt, Call
from keyturn.errors import Untranslatable

from .exchange import Exchange
from .run import Grant, Run
from .signing_in import lacks_token

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


async def prepared(gateway: Gateway, run: Run, grant: Grant) -> Exchange | None:
    """The attempt of *grant*, ready to be sent; None when it cannot be: its account has no token, or its dialect
    cannot say what the call says."""
    if grant.entry.candidate.credential.tokens is not None and await lacks_token(gateway, run, grant):
        return None
    if gateway.before_attempt is not None:
        await announced(gateway.before_attempt, run, grant)
    exchange, ready = Exchange(gateway, run, grant), False
    try:
        if run.call.size > LARGE_BODY:
            await asyncio.to_thread(exchange.prepare)
        else:
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
