"""An answer that has begun and was cut, put to another upstream as the beginning of its own turn."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from keyturn.core import Message, Request, Text

from .dialect import Target

BYTES_PER_TOKEN = 4
LEAST_OUTPUT = 16
"""Tokens that are left to the rest of an answer, whatever its beginning took of the client's bound."""


def begun_with(request: Request, text: str) -> Request:
    """*request* for the rest of an answer that begins with *text*. What the beginning took, by its length, is taken off
    the largest output that the client allows."""
    taken = len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN
    messages = request.messages
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant":  # the client's own beginning of the answer
        parts, before = last.parts, last.parts[-1] if last.parts else None
        if isinstance(before, Text):
            parts, text = parts[:-1], before.text + text
        messages = (*messages[:-1], replace(last, parts=(*parts, Text(text))))
    else:
        messages = (*messages, Message("assistant", (Text(text),)))
    bound = request.max_output
    if bound is not None:
        bound = max(min(bound, LEAST_OUTPUT), bound - taken)
    return replace(request, messages=messages, max_output=bound, begun=True)


def mark_begun(body: dict[str, Any], target: Target) -> None:
    """Have the OpenAI Chat *body* say that its last message is to be gone on with, in the words of *target*."""
    if target.prefill == "prefix":
        body["messages"][-1]["prefix"] = True
    elif target.prefill == "final":
        body["continue_final_message"], body["add_generation_prompt"] = True, False
