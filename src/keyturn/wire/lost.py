"""What only one dialect can say and its client must not lose: refused on the way into another, not dropped."""

from __future__ import annotations

from keyturn.core import Request
from keyturn.errors import Untranslatable

from .dialect import Target

_WANTED = (
    ("openai_chat", "modalities", b'"audio"', "asks for sound"),
    ("gemini", "generationConfig.responseModalities", b'"AUDIO"', "asks for sound"),
    ("gemini", "cachedContent", b'"', "holds a part of the prompt that lies with Gemini"),
)
"""Dialect, member, what its JSON text must hold, and why it must not be dropped."""


def refuse_lost(request: Request, into: str) -> None:
    """Raise Untranslatable for what *into*, the name of another dialect's API, cannot say."""
    for dialect, name, mark, why in _WANTED:
        if request.dialect == dialect and mark in request.others.get(name, b""):
            raise Untranslatable(f"`{name}` {why}, which cannot be translated for {into}. Leave it out.", param=name)


def refuse_begun(request: Request, target: Target, into: str) -> None:
    """Raise Untranslatable for an answer that has begun, where *target* cannot go on with it: it would begin anew."""
    if request.begun and not target.prefill:
        raise Untranslatable(f"{target.model} cannot be told to go on with an answer in {into}", param="messages")
