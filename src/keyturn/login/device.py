"""A login on another device (RFC 8628): a code is shown here, typed in there, and waited for."""

from __future__ import annotations

from urllib.parse import urlsplit

from keyturn.core import Clock, HttpRequest, Secret, Transport
from keyturn.errors import KeyturnError, TransportError
from keyturn.providers import (
    Denied,
    DeviceCode,
    Granted,
    Provider,
    device_request,
    device_token_request,
    json_object,
    question,
    read_device,
    read_token,
)

from .exchange import Answer, ask

SLOWER = 5.0
"""Seconds that `slow_down` adds to the pause, for good."""
LONGEST_PAUSE = 60.0


async def begin_device(transport: Transport, clock: Clock, provider: Provider, client_id: str) -> DeviceCode:
    """What the person has to open and to type. Raises KeyturnError."""
    request = device_request(provider, client_id, provider.scopes)
    found = read_device(*await _answer(transport, clock, request))
    if isinstance(found, Denied):
        wrong = found.code in ("invalid_client", "unauthorized_client")
        hint = f": is {client_id!r} the client id of a public app of yours?" if wrong else ""
        raise KeyturnError(f"{provider.title} began no login ({found.code} {found.message}".rstrip() + f"){hint}")
    return found


async def await_device(
    transport: Transport, clock: Clock, provider: Provider, client_id: str, device: DeviceCode
) -> Granted:
    """The tokens, once the person has agreed. Raises KeyturnError: he refused, or the time is over."""
    until = clock.mono() + device.lifetime
    pause = device.interval
    while clock.mono() + pause < until:
        await clock.sleep_until(clock.mono() + pause)
        try:
            answer = await ask(transport, clock, device_token_request(provider, client_id, device.code))
        except TransportError as error:
            if error.kind in ("timeout", "connect_timeout"):
                pause = min(2 * pause, LONGEST_PAUSE)
            continue
        found = read_token(answer.status, answer.body, device.code)
        if isinstance(found, Granted):
            return found
        if found.code == "slow_down":
            pause += SLOWER
        elif found.code == "access_denied":
            raise KeyturnError("you did not allow it: nothing was changed")
        elif found.code == "expired_token":
            break
        elif found.code != "authorization_pending" and found.final:
            raise KeyturnError(f"{provider.title} refused the login: {found.code} {found.message}".rstrip())
    raise KeyturnError("the code has expired before it was typed in: start the login again")


async def who_is(transport: Transport, clock: Clock, provider: Provider, token: Secret) -> str:
    """The name of the account that *token* is of; empty when it is not told."""
    try:
        answer = await ask(transport, clock, question(provider.signs_in["userinfo"], token=token))
    except TransportError:
        return ""
    members = json_object(answer.body) if answer.status == 200 else {}
    name = members.get("preferred_username") or members.get("sub")
    return name[:100] if isinstance(name, str) and name.isprintable() else ""


async def _answer(transport: Transport, clock: Clock, request: HttpRequest) -> tuple[int, bytes]:
    try:
        answer: Answer = await ask(transport, clock, request)
    except TransportError as error:
        raise KeyturnError(f"{urlsplit(request.url).netloc} cannot be reached: {error.message}") from error
    return answer.status, answer.body
