"""One question to an authorisation server, bounded in time; and the addresses of one, which may stand elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from keyturn.core import Clock, HttpRequest, Secret, Transport
from keyturn.errors import KeyturnError, TransportError
from keyturn.providers import Denied, Provider, new_key_request, read_new_key

PATIENCE = 30.0
"""Seconds that one answer may take."""
LARGEST = 1024 * 1024
T = TypeVar("T")


class Answer(NamedTuple):
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(transport: Transport, clock: Clock, request: HttpRequest) -> Answer:
    """The answer to *request*; a connection that was closed meanwhile is replaced once. Raises TransportError."""
    try:
        return await within(clock, PATIENCE, _ask(transport, request))
    except TransportError as error:
        if error.kind != "stale":
            raise
        return await within(clock, PATIENCE, _ask(transport, request))


async def _ask(transport: Transport, request: HttpRequest) -> Answer:
    response = await transport.send(request, _sent)
    try:
        return Answer(response.status, response.headers, await response.read(LARGEST))
    finally:
        response.close()


def _sent() -> None:
    """Nobody counts these requests."""


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What *work* returns. Raises TransportError `timeout` when it takes longer than *seconds*, and ends it."""
    task = asyncio.ensure_future(work)
    expired = False

    def end() -> None:
        nonlocal expired
        expired = not task.done()
        task.cancel()

    timer = clock.call_at(clock.mono() + seconds, end)
    try:
        return await task
    except asyncio.CancelledError:
        if not expired or not task.cancelled():
            task.cancel()
            raise
    finally:
        timer.cancel()
    raise TransportError("timeout", f"no answer came within {seconds:g} s")


def at_address(provider: Provider, url: str) -> Provider:
    """*provider* with its authorisation server at *url* (scheme and host, perhaps a path before its own)."""
    moved = {name: url.rstrip("/") + urlsplit(address).path for name, address in provider.signs_in.items()}
    return replace(provider, signs_in=moved)


async def new_key(transport: Transport, clock: Clock, provider: Provider, code: Secret, verifier: str) -> Secret:
    """The key that OpenRouter gives for *code*. Raises KeyturnError saying why there is none."""
    request = new_key_request(provider.signs_in["keys"], code, verifier)
    try:
        answer = await ask(transport, clock, request)
    except TransportError as error:
        host = urlsplit(provider.signs_in["keys"]).netloc
        raise KeyturnError(f"{host} could not be asked for the key: {error.message}") from error
    found = read_new_key(answer.status, answer.body, code, Secret(verifier))
    if isinstance(found, Denied):
        raise KeyturnError(f"{provider.title} gave no key: {found.code} {found.message}".rstrip())
    return found
