"""What happened to one call: for its own caller at `GET /v1/calls/{id}`, for the owner in `keyturn trace`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyturn.core import Caller
from keyturn.dispatch import Gateway, told_call
from keyturn.errors import StoreError, UnknownCall

OWNER = Caller().name
ID_DIGITS = 32
RETRY_AFTER = 5.0
"""Seconds until the ledger may be asked again that could not be read."""
AWAY = "older calls cannot be told of just now; ask again a little later"
Remembered = Callable[[str], Awaitable[dict[str, object] | None]]
"""The whole story of a call as the process that answered it remembers it, None when none does."""


def completed(recorded: dict[str, object], remembered: dict[str, object] | None) -> dict[str, object]:
    """The story of the ledger, with what only the process knows that answered the call."""
    if remembered is None:
        return recorded
    attempts, known = recorded["attempts"], remembered["attempts"]
    assert isinstance(attempts, list)
    assert isinstance(known, list)
    if len(attempts) != len(known):
        return recorded  # it is not over yet, or was told of twice
    both = [{**new, "role": old["role"]} for old, new in zip(attempts, known, strict=True)]
    return {**recorded, **remembered, "caller": recorded["caller"], "attempts": both}


async def call_told(gateway: Gateway, caller: Caller, id: str, remembered: Remembered) -> dict[str, object]:
    """The story of the call *id* to *caller*, whose own it must be unless it may do everything.

    Raises UnknownCall, and StoreError (as a 503) when only the ledger could tell.
    """
    digits = id.strip().lower().replace("-", "")
    story = None
    if len(digits) == ID_DIGITS and set(digits) <= set("0123456789abcdef"):
        call = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        story = await remembered(call)
        if story is None and gateway.ledger.keeps:
            try:
                story = await told_call(gateway.ledger, call)
            except StoreError as error:
                told = error if caller.name == OWNER else StoreError(AWAY)  # where it is, is none of their business
                told.status, told.retry_after = 503, RETRY_AFTER
                raise told from error
    whose = story["caller"] if story is not None else None
    if story is None or caller.name not in (OWNER, whose):
        raise UnknownCall(
            f"no call {id[:64]!r} of yours is known: the header x-keyturn-call of an answer names one, and it is known "
            "for as long as the ledger keeps it"
        )
    if caller.name != OWNER:
        attempts = story["attempts"]
        assert isinstance(attempts, list)
        story = {**story, "attempts": [{**each, "detail": ""} for each in attempts]}  # its upstream's words to us
    return {"object": "call", **story}
