"""What every Anthropic reader and writer shares: stop reasons, usage, cache marks, and JSON of what upstreams sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from keyturn.core import Citation, StopReason, Usage

from .jsontext import clean

DIALECT = "anthropic"

STOPS: dict[str, StopReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "pause",
}
_REASONS: dict[StopReason, str] = {
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "pause": "pause_turn",
}
_MOST = 1_000_000_000
"""No answer uses more tokens; a larger figure is a mistake that must not spend a budget for ever."""
_NUMBERS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def stop_reason(stop: StopReason | None, *, tools: bool, refused: bool) -> str:
    """The `stop_reason`. Clients act on `tool_use` and on calls together: which it is, the calls (*tools*) decide."""
    if refused:
        return "refusal"
    if tools and stop in (None, "stop", "other"):
        return "tool_use"
    if stop == "tool_calls" and not tools:
        return "end_turn"
    return _REASONS.get(stop or "stop", "end_turn")


def stop_details(reason: str, explanation: str) -> dict[str, object] | None:
    """The `stop_details` of a refusal, None for other reasons."""
    if reason != "refusal":
        return None
    return {"type": "refusal", "category": None, "explanation": explanation or None}


def read_usage(given: Mapping[str, Any] | None) -> Usage | None:
    """The Usage in a decoded `usage`, None when it tells nothing. Never raises.

    `input_tokens` leaves out what was read from and written to the cache; `output_tokens` includes the thinking.
    """
    if not given:
        return None
    fresh, output, cached, written = (_count(given.get(name)) for name in _NUMBERS)
    details = given.get("output_tokens_details")
    reasoning = _count(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    if not (fresh or output or cached or written):
        return None
    return Usage(fresh + cached + written, output, cached, min(reasoning, output), written=written)


def merge_usage(known: dict[str, Any], given: object) -> Usage | None:
    """Take the figures of *given*, a decoded `usage`, into *known*; the Usage of both. What is null stays known."""
    if isinstance(given, dict):
        known.update((name, value) for name, value in given.items() if value is not None)
    return read_usage(known)


def write_usage(usage: Usage) -> dict[str, object]:
    """*usage* in Anthropic's members."""
    told: dict[str, object] = {
        "input_tokens": max(0, usage.input - usage.cached - usage.written),
        "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told


def read_citation(given: dict[str, Any], start: int | None = None, end: int | None = None) -> Citation:
    """A citation of any of the five kinds, on the text from *start* to *end*."""
    return Citation(
        url=string(given.get("url")) or string(given.get("source")),
        title=string(given.get("title")) or string(given.get("document_title")),
        quote=string(given.get("cited_text")),
        start=start,
        end=end,
        dialect=DIALECT,
        raw=encode(given),
    )


def encode(value: object) -> bytes:
    """*value*, decoded from any upstream's JSON, as JSON text. Never raises: halves of surrogate pairs are replaced,
    and what is nested too deep becomes null.
    """
    try:
        return msgspec.json.encode(value)
    except (ValueError, OverflowError):
        pass
    except RecursionError:
        return b"null"
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    except RecursionError:
        return b"null"


def quote(text: str) -> bytes:
    """*text* as a JSON string."""
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:
        return msgspec.json.encode(clean(text))


def tool_id(given: str) -> str:
    """A tool call's id as Anthropic takes it: `^[a-zA-Z0-9_-]+$`."""
    if given.isascii() and given.replace("_", "").replace("-", "").isalnum():
        return given
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in given)


def string(value: object) -> str:
    """*value* when it is a string, without halves of surrogate pairs; else an empty one."""
    return clean(value) if isinstance(value, str) else ""


def _count(value: object) -> int:
    """A whole number of tokens from 0 to `_MOST`; 0 for what is no number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return int(min(value, _MOST))
    return 0
