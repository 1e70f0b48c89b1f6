"""Small values of OpenAI Chat answers, both ways: stop reasons, usage, citations, JSON of servers that bend it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from keyturn.core import Call, Citation, StopReason, Usage

from .chat_messages import DIALECT

STOPS: dict[str, StopReason] = {
    "stop": "stop",
    "length": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
FINISHES: dict[StopReason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "pause": "stop",
    "other": "stop",
}

_decode = msgspec.json.Decoder().decode
_read_tools = msgspec.json.Decoder(list[dict[str, Any]]).decode
_MOST_SECONDS = 1 << 40


def read_json(text: bytes) -> Any:
    """What *text* holds, or None when it is no JSON. Takes NaN, and half surrogate pairs, which are replaced."""
    try:
        return _decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = json.loads(text)
        return json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def unwrap(found: Any) -> Any:
    """The object in an array of one, in which Gemini's OpenAI-compatible endpoint puts its errors."""
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def text_in(given: Mapping[str, Any], name: str) -> str:
    """A string, or empty."""
    found = given.get(name)
    return found if isinstance(found, str) else ""


def created_in(given: Mapping[str, Any]) -> int | None:
    """The member `created` in Unix seconds."""
    found = given.get("created")
    return int(found) if isinstance(found, (int, float)) and 0 < found < _MOST_SECONDS else None


def stop_of(finish: object, calls: int) -> StopReason:
    """Why a choice stopped. Some servers say `stop` where the model called tools, as OpenAI does for a forced tool."""
    stop = STOPS.get(finish, "other") if isinstance(finish, str) else "other"
    return "tool_calls" if calls and stop == "stop" else stop


def usage_of(usage: Usage) -> dict[str, object]:
    """The member `usage`."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def citations_in(annotations: object) -> list[Citation]:
    """The sources in a message's `annotations`."""
    found = []
    for each in annotations if isinstance(annotations, list) else ():
        source = each.get("url_citation") if isinstance(each, dict) else None
        if isinstance(source, dict) and (url := text_in(source, "url")):
            start, end = _index(source.get("start_index")), _index(source.get("end_index"))
            quote = text_in(source, "content")  # OpenRouter
            raw = msgspec.json.encode(each)
            found.append(Citation(url, text_in(source, "title"), quote, start, end, DIALECT, raw))
    return found


def annotation(citation: Citation, start: int, end: int) -> object:
    """*citation* as an annotation; *start* and *end* are those of the text that it belongs to."""
    if citation.dialect == DIALECT and citation.raw:
        return msgspec.Raw(citation.raw)
    return {
        "type": "url_citation",
        "url_citation": {
            "url": citation.url,
            "title": citation.title,
            "start_index": start if citation.start is None else citation.start,
            "end_index": end if citation.end is None else citation.end,
        },
    }


def _index(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 <= value < _MOST_SECONDS else None


def arguments_in(value: object) -> str:
    """The arguments of a call; some servers send an object instead of its JSON text."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else ""


def free_tools(call: Call) -> frozenset[str]:
    """Names of the client's tools that take plain text."""
    tools = call.members.get("tools", b"")
    if b'"custom"' not in tools:
        return frozenset()
    try:
        given = _read_tools(tools)
    except (ValueError, RecursionError):
        return frozenset()
    inner = [tool.get("custom") for tool in given if tool.get("type") == "custom"]
    return frozenset(text_in(custom, "name") for custom in inner if isinstance(custom, dict))


def unwrapped(arguments: str) -> str:
    """The plain text in the arguments of a function that stood for a tool that takes plain text."""
    found = read_json(arguments.encode())
    inner = found.get("input") if isinstance(found, dict) else None
    return inner if isinstance(inner, str) else arguments


def is_legacy(call: Call) -> bool:
    """Whether the client knows only the older `functions`, and so wants `function_call` in its answer."""
    return "functions" in call.members and "tools" not in call.members
