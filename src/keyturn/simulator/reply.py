"""What all parts of one answer have in common, and how JSON and events are put on the wire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .answers import Answer, Counts, Question
from .personas import Persona


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of a model, for a writer of its wire format. *created* is in Unix seconds."""

    persona: Persona
    id: str
    """Without the prefix of its format: `sim000000001`."""
    created: int
    model: str
    owner: str
    """The key, or its project: whose signatures it carries."""
    question: Question
    answers: Sequence[Answer] = ()
    counts: Counts = field(default_factory=lambda: Counts(0, 0))
    told: bool = True
    """Whether usage is told."""
    action: str = ""
    """The endpoint, as its `Route` names it."""
    events: bool = True
    """Gemini: the stream is of events, not one JSON array."""

    @property
    def answer(self) -> Answer | None:
        """The only choice, where a format has but one; None when there is to be none."""
        return self.answers[0] if self.answers else None


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: Any, name: str = "") -> bytes:
    """One SSE event; text stays UTF-8 rather than being escaped."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + to_json(value) + b"\n\n"


def error_of(body: bytes) -> dict[str, Any]:
    """The error that a provider's error body holds, out of whatever it is wrapped in."""
    try:
        error = json.loads(body)
    except ValueError:
        return {"message": body.decode(), "type": "server_error"}
    if isinstance(error, list):
        error = error[0]
    inner = error.get("error", error)
    return inner if isinstance(inner, dict) else {"message": str(inner)}
