"""The Response object as clients expect it: every key, what they asked for echoed, usage with its details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from keyturn.core import Citation, StopReason, Usage

from .dialect import Context
from .responses_parse import DIALECT

_ECHOED: dict[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Members of the request that the response repeats, with what OpenAI says when they are absent."""
_INCOMPLETE: dict[str, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FUNCTION = {"description": None, "parameters": None, "strict": None}
"""What the SDK's types require of an echoed function."""

_read_tools = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def compact(text: bytes) -> bytes:
    """The valid JSON *text* without line breaks, which would end a line of an event."""
    return msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text


def echoed(members: Mapping[str, bytes]) -> dict[str, object]:
    """What the response repeats of the request."""
    said: dict[str, object] = {}
    for name, default in _ECHOED.items():
        given = compact(members.get(name, b"null"))
        said[name] = default if given == b"null" else msgspec.Raw(given)
        if name == "tools" and b'"function"' in given:
            said[name] = _tools(given)
    return said


def _tools(given: bytes) -> object:
    try:
        tools = _read_tools(given)
    except (ValueError, RecursionError):
        return msgspec.Raw(given)
    return [{**_FUNCTION, **tool} if tool.get("type") == msgspec.Raw(b'"function"') else tool for tool in tools]


def response_object(
    context: Context,
    echo: Mapping[str, object],
    model: str,
    output: Sequence[object] = (),
    usage: Usage | None = None,
    stop: StopReason | None = None,
    tier: str = "",
) -> dict[str, object]:
    """The object; *stop* None: it is in progress."""
    reason = _INCOMPLETE.get(stop or "")
    status = "incomplete" if reason else "completed" if stop else "in_progress"
    return {
        "id": f"resp_{context.id}",
        "object": "response",
        "created_at": context.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": model,
        "output": output,
        "previous_response_id": context.call.previous or None,
        "service_tier": tier or None,
        "store": bool(context.call.store),
        "usage": None if usage is None else usage_object(usage),
        **echo,
    }


def usage_object(usage: Usage) -> dict[str, object]:
    """Usage with all details, which the SDK's types require."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def annotation(citation: Citation, end: int) -> object:
    """*citation* as an annotation of a text of *end* characters; None for a source without an address."""
    if citation.dialect == DIALECT and citation.raw:
        return msgspec.Raw(compact(citation.raw))
    if not citation.url:
        return None
    return {
        "type": "url_citation",
        "start_index": citation.start or 0,
        "end_index": end if citation.end is None else citation.end,
        "title": citation.title,
        "url": citation.url,
    }
