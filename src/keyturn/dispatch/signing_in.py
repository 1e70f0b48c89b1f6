"""Accounts in the pool: their credentials get a source of tokens, calls wait for one, a refused one is replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.config import Config, token_folder
from keyturn.core import (
    Credential,
    HttpRequest,
    LocalRequest,
    Outcome,
    Refuse,
    Transition,
    UpstreamRequest,
    Verdict,
    advance,
    key_scope,
)
from keyturn.errors import DeadlineExceeded, NoToken, TransportError

from . import unanswered
from .clock import Watch
from .events import Alarm
from .run import Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway

NEEDS_OWNER = Outcome("invalid_key", "key", None, False, True, True, explicit=True)
"""No token until somebody has done something."""
NO_TOKEN_NOW = Outcome("unknown", "key", None, False, True, True)
"""The authorisation server cannot be asked, or is not well. It is no fault of the provider: others may answer there."""


def furnish(gateway: Gateway, config: Config) -> tuple[Config, list[Credential]]:
    """*config* with a source of tokens in every credential that has an account, and those whose account changed."""
    accounts = any(each.account is not None for group in config.credentials.values() for each in group)
    if gateway.refresher is None:
        if not accounts:
            return config, []
        from keyturn.login import Refresher

        redactor, events = gateway.redactor, gateway.events
        gateway.refresher = Refresher(
            gateway.clock,
            gateway.transport,
            token_folder(config.data),
            redactor.add,
            redactor.forget,
            lambda text: events.emit(Alarm(redactor.text(text))),
        )
    credentials, changed = gateway.refresher.furnished(config.credentials)
    return replace(config, credentials=credentials), changed


def forgive(gateway: Gateway, changed: list[Credential]) -> None:
    """Somebody has logged in again: what stood against the earlier login holds no more."""
    if changed:
        gateway.cool(Verdict([Transition(key_scope(each), None) for each in changed]), None)


async def lacks_token(gateway: Gateway, run: Run, grant: Grant) -> bool:
    """Wait until the account of *grant* has a token. True: it gets none, and somebody else is to be asked.

    Raises what ends the call; the grant is given back then, as it is when the client leaves.
    """
    tokens = grant.entry.candidate.credential.tokens
    if tokens is None or tokens.current() is not None:
        return False
    watch = Watch(gateway.clock, min(run.deadline, run.content_by), "deadline")
    obtained = False
    try:
        with watch:
            await tokens.obtain()
        obtained = True
        grant.attempt.started = gateway.clock.mono()  # the provider is not to blame for the time until now
        return False
    except NoToken as error:
        failed = error
    except TransportError as error:
        raise DeadlineExceeded("the call's deadline passed while a token was asked for") from error
    finally:
        watch.close()
        if not obtained:
            grant.close()
    _blame(gateway, run, grant, failed)
    return True


def _blame(gateway: Gateway, run: Run, grant: Grant, error: NoToken) -> None:
    """The account got no token: it rests, and the call goes on. Raises when the call has tried enough."""
    attempt, now, candidate = grant.attempt, gateway.clock.mono(), grant.entry.candidate
    outcome = NEEDS_OWNER if error.final else NO_TOKEN_NOW
    attempt.ended, attempt.meaning, attempt.detail = now, outcome.meaning, gateway.redactor.text(error.message)[:300]
    attempt.tier = run.generation.config.tier_of(attempt.provider)
    run.progress.attempts += 1
    run.trail.attempts.append(attempt)
    until = now + (error.retry_after or 0.0)
    scope = key_scope(candidate.credential)
    mark = Transition(scope, "invalid" if error.final else "cooling", until, outcome.meaning, 1, now)
    gateway.cool(Verdict([mark]), candidate)
    move = advance(run.progress, grant.entry, outcome, now)
    if isinstance(move, Refuse):
        raise unanswered.stopped(run, move)


async def another_token(credential: Credential, request: UpstreamRequest) -> bool:
    """The provider refused the token in *request*. Whether there is another one by now; waits for it."""
    tokens, sent = credential.tokens, request.http if isinstance(request, LocalRequest) else request
    if tokens is None or not isinstance(sent, HttpRequest) or sent.auth is None:
        return False
    if not tokens.rejected(sent.auth[2]):
        return False
    try:
        await tokens.obtain()
    except NoToken:
        return False
    return True


def trouble_of(credential: Credential) -> str:
    """Why *credential* gets no token, and what to do; empty while all is well."""
    return credential.tokens.trouble if credential.tokens is not None else ""
