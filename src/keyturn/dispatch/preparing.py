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


def at_once(gateway: Gateway, run: Run, grant: Grant) -> bool:
    """Whether nothing but writing it stands between *grant* and its request, as for most: see `written`."""
    return (
        run.conversation is None
        and run.call.size <= LARGE_BODY
        and gateway.before_attempt is None
        and grant.entry.candidate.credential.tokens is None
    )


def written(gateway: Gateway, run: Run, grant: Grant) -> Exchange | None:
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


async def prepared(gateway: Gateway, run: Run, grant: Grant) -> Exchange | None:
    """The attempt of *grant*, ready to be sent; None when it cannot be: its account has no token, its dialect cannot
    say what the call says, or it was better to wait for another key."""
    if run.conversation is not None and run.conversation[1] and not run.progress.attempts:
        if not run.weighed:
            run.weighed = True
            if _holds_elsewhere(run, grant) and await _waited(gateway, run, grant):
                return None
        elif run.awaited is not None:
            from .switching import tell

            tell(run, grant)
    if grant.entry.candidate.credential.tokens is not None and await lacks_token(gateway, run, grant):
        return None
    if gateway.before_attempt is not None:
        await announced(gateway.before_attempt, run, grant)
    if run.call.size <= LARGE_BODY:
        return written(gateway, run, grant)
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


def _holds_elsewhere(run: Run, grant: Grant) -> bool:
    """Whether another key than that of *grant* may hold the prompt cache of *run*."""
    if not run.generation.config.waiting.for_cache or run.conversation is None:
        return False
    held = grant.pool.holders.get(run.conversation[0])
    return (held is None or held[0] != grant.entry.order) and (
        held is not None or run.deployments[0] != grant.pool.deployment
    )


async def _waited(gateway: Gateway, run: Run, grant: Grant) -> bool:
    """Whether *run* has waited for that key, and is to be picked a key again; *grant* is given back then, also where
    that is cut short."""
    from .switching import waited

    decided = False
    try:
        again = await waited(gateway, run, grant)
        decided = True
    finally:
        if not decided:
            grant.close()
    return again
