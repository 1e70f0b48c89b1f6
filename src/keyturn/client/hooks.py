"""The callback of a program that sees each attempt before it is sent, and what it may change of it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from keyturn.core import Attempt, Call

Hook = Callable[..., Awaitable[object] | object]
FIXED = ("model", "stream")
"""What routing was decided by: cannot be changed any more."""
_decode = msgspec.json.Decoder().decode
_log = logging.getLogger("keyturn.client")


class Upcoming(NamedTuple):
    """An attempt that is about to be sent: what `pre_request_callback` gets as its first argument."""

    call: str
    """The id of the call, the same for all its attempts."""
    route: str
    """The name that was asked for."""
    kind: str
    """`chat`, `embeddings`, …"""
    stream: bool
    number: int
    """Which attempt of the call it is, from 1."""
    provider: str | None
    """Who is asked; None, as *model* and *key* are, when a gateway in another process chooses."""
    model: str | None
    key: str | None
    """The shown form of the key, `groq-2:9f3a1c`."""


def upcoming(call_id: str, call: Call, number: int, attempt: Attempt | None) -> Upcoming:
    """What is told of *attempt*."""
    who = (None, None, None) if attempt is None else (attempt.provider, attempt.model, attempt.key)
    return Upcoming(call_id, call.model, call.kind, call.stream, number, *who)


async def announce(hook: Hook, call: Call, about: Upcoming, *, abort: bool) -> None:
    """Have *hook* see the attempt; the parameters that it changed are changed in *call*, for this attempt and later
    ones. What it raises goes on to the caller of the call, unless *abort* is false: then it is logged."""
    before = {name: _decode(value) for name, value in call.members.items()}
    parameters = {name: _decode(value) for name, value in call.members.items()}
    try:
        outcome = hook(about, parameters)
        if inspect.isawaitable(outcome):
            await outcome
        for name in FIXED:
            if parameters.get(name) != before.get(name):
                raise ValueError(f"pre_request_callback cannot change {name!r}: it was decided whom to ask")
        changed = {name: value for name, value in parameters.items() if name not in before or value != before[name]}
        encoded = {name: msgspec.json.encode(value) for name, value in changed.items()}
    except Exception:
        if abort:
            raise
        _log.warning("pre_request_callback failed before attempt %d of %s", about.number, about.call, exc_info=True)
        return
    if encoded or parameters.keys() != before.keys():
        kept: dict[str, Any] = {name: value for name, value in call.members.items() if name in parameters}
        call.members = kept | encoded
