"""What a provider says to one request that it refuses, whole: for those who play it without the application."""

from __future__ import annotations

from . import wording
from .personas import Persona, render
from .quotas import Refusal


def answer_of(
    persona: Persona, why: Refusal | str, model: str, key: str, now: float
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body with which *persona* refuses: for a limit, or a case such as `invalid_key`.

    *now* is Unix seconds, *key* the secret that asked, of which only providers that do so quote a few characters.
    """
    refusal = why if isinstance(why, Refusal) else wording.invented(why, None)
    names = wording.names(refusal, now) | {
        "key": key,
        "masked": wording.masked(key),
        "model": model,
        "org": wording.organisation(key),
        "request": "req_simulated",
        "capacity": persona.context,
        "member": "messages",
        "why": "The request was refused.",
    }
    status, headers, body = render(persona, wording.case_of(why) if isinstance(why, Refusal) else why, names)
    return status, dict(headers), body
