"""Events as a gateway emits them, and a gateway that telemetry can be attached to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from keyturn.core import Attempt, Call, Caller, Clock, Marks, Redactor, Secret, Trail, Usage
from keyturn.dispatch import CallEnded, Events, Gateway, Strain
from keyturn.stores import LiveStanding, NullLedger
from tests.support import virtual

SECRET = "planted-secret-of-groq-0123456789"
CALL_ID = "019a8f3e-1c2d-7aaa-8bbb-0123456789ab"
BODY: Mapping[str, bytes] = {"model": b'"groq/llama"', "messages": b'[{"role":"user","content":"Hi"}]'}


def attempt(
    key: str = "groq-1:9f3a1c", meaning: str = "ok", *, at: float = 1000.0, ms: float = 38.0, **more: Any
) -> Attempt:
    made = Attempt("a", "groq", "llama", key, at, meaning, ended=at + ms / 1000, tier=2)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def ended(
    *attempts: Attempt,
    route: str = "groq/llama",
    status: int = 200,
    code: str = "",
    members: Mapping[str, bytes] = BODY,
    answer: bytes | None = None,
    call_id: str = CALL_ID,
    unread: bool = False,
    **trail: Any,
) -> CallEnded:
    """A call that ended 500 ms after it began."""
    made = Trail(call_id, route, 1000.0, list(attempts), status=status, code=code, ended=1000.5, **trail)
    call = None if unread else Call("openai_chat", "chat", route, members, 70)
    return CallEnded(call, Caller(), made, answer)


def served() -> CallEnded:
    """Rate limited on the first key, answered by the second."""
    return ended(
        attempt(meaning="rate_limited", status=429, detail="Rate limit reached"),
        attempt("groq-2:aaaaaa", at=1000.04, ms=420, status=200, usage=Usage(12, 40, cached=4), first_token=1000.1),
    )


def make_gateway(clock: Clock | None = None) -> Gateway:
    fake = SimpleNamespace(
        clock=clock or virtual.VirtualClock(),
        events=Events(),
        redactor=Redactor([Secret(SECRET)]),
        keys=lambda: [
            {"provider": "groq", "state": "healthy"},
            {"provider": "groq", "state": "healthy"},
            {"provider": "groq", "state": "cooling"},
        ],
        inflight=3,
        room=SimpleNamespace(
            waiting=2, classes={"normal": 2}, promises=SimpleNamespace(open=4), refused={("batch", "late"): 3}
        ),
        headroom_gauges=lambda: [("senior_dev", 3.0, float("inf"))],
        keep_answer=0,
        strain=Strain(),
        marks=Marks(),
        adapting=SimpleNamespace(
            narrowed=0,
            watched=None,
            steadiness=SimpleNamespace(opened=Counter(), held_back=Counter(), spared=Counter()),
        ),
        generation=SimpleNamespace(sharing=None, prices=SimpleNamespace(of=lambda deployment: None)),
        ledger=NullLedger(),
        live=SimpleNamespace(standing=lambda: LiveStanding("memory", True, 1, 0)),
        transport=SimpleNamespace(open_connections=5),
    )
    return cast(Gateway, fake)
