"""A Responses answer that is not streamed, read from an upstream: whole, or as far as relaying needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from keyturn.core import (
    Answer,
    Choice,
    Citation,
    Foreign,
    Kind,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Signature,
    StopReason,
    Text,
    ToolUse,
)

from .jsontext import clean, loose
from .responses_input import read_citation
from .responses_parse import DIALECT
from .usage import read_usage

_LARGEST = (1 << 63) - 1
_REASONS: dict[str, StopReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_DEEPEST = 100
_CALLS = ("function_call", "custom_tool_call")


def decoded(text: bytes) -> Any:
    """The JSON *text* of an upstream as values that can be written again, or None. Never raises.

    Half surrogate pairs, which no UTF-8 can hold, are replaced.
    """
    value = loose(text)
    try:
        msgspec.json.encode(value)
    except RecursionError:
        return None
    except ValueError:
        return _harmless(value, _DEEPEST)
    return value


def _harmless(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return clean(value)
    if levels and isinstance(value, list):
        return [_harmless(each, levels - 1) for each in value]
    if levels and isinstance(value, dict):
        return {clean(name): _harmless(each, levels - 1) for name, each in value.items()}
    return None if isinstance(value, list | dict) else value


def text_in(value: Mapping[str, Any], *names: str) -> str:
    """The first of the members *names* that is a string that is not empty."""
    for name in names:
        found = value.get(name)
        if isinstance(found, str) and found:
            return found
    return ""


def seconds(value: object) -> int | None:
    """A time in Unix seconds, of which some servers tell fractions."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return int(value)
    return None


def objects_in(value: object) -> Iterator[dict[str, Any]]:
    """The objects in a list; nothing for anything else."""
    if isinstance(value, list):
        for each in value:
            if isinstance(each, dict):
                yield each


def stop_of(response: Mapping[str, Any], called: bool) -> StopReason:
    """Why a finished response stopped. *called*: it calls a tool of the client's."""
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return _REASONS.get(reason, "other") if isinstance(reason, str) else "other"
    if response.get("status") == "cancelled":
        return "other"
    return "tool_calls" if called else "stop"


def error_of(response: Mapping[str, Any]) -> bytes | None:
    """The error that a response consists of, as `{"error": …}` to classify; None when it is none."""
    error = response.get("error")
    failed = response.get("status") == "failed"
    if not error and not failed and response.get("type") != "error":
        return None
    if response.get("type") == "error" and not isinstance(error, dict):
        error = {name: response.get(name) for name in ("message", "code", "param")}
    if not error:
        error = {"code": "server_error", "message": "the response failed, and the upstream does not say why"}
    return msgspec.json.encode({"error": error})


def read_answer(body: bytes, origin: Origin) -> Answer | bytes | None:
    """The whole answer; the body of an error to classify; None for garbage. Never raises."""
    response = decoded(body)
    if not isinstance(response, dict):
        return None
    if error := error_of(response):
        return error
    if not isinstance(response.get("output"), list):
        return None
    parts: list[Part] = []
    logprobs: list[object] = []
    for item in objects_in(response["output"]):
        parts += read_item(item, origin, logprobs)
    called = any(isinstance(part, ToolUse) for part in parts)
    given = msgspec.json.encode({"content": logprobs}) if logprobs else b""
    return Answer(
        (Choice(tuple(parts), stop_of(response, called), logprobs=given),),
        text_in(response, "id"),
        text_in(response, "model"),
        seconds(response.get("created_at")),
        read_usage(response.get("usage")),
        text_in(response, "service_tier"),
    )


def read_item(item: dict[str, Any], origin: Origin, logprobs: list[object] | None = None) -> Iterator[Part]:
    """The parts of one output item; what it has of logprobs goes into *logprobs*."""
    kind = text_in(item, "type")
    if kind == "message":
        for part in objects_in(item.get("content")):
            if part.get("type") == "refusal":
                yield Refusal(text_in(part, "refusal"))
                continue
            yield Text(text_in(part, "text"), citations=tuple(citations(part)))
            if logprobs is not None and isinstance(part.get("logprobs"), list):
                logprobs += part["logprobs"]
    elif kind == "reasoning":
        yield from _reasoning(item, origin)
    elif kind in _CALLS:
        free = kind == "custom_tool_call"
        arguments = text_in(item, "input") if free else text_in(item, "arguments") or "{}"
        call_id = text_in(item, "call_id", "id")
        yield ToolUse(call_id, text_in(item, "name"), arguments, free, text_in(item, "namespace"))
    elif kind:
        yield Foreign(DIALECT, kind, msgspec.json.encode(item))


def thoughts(item: dict[str, Any], name: str) -> str:
    """The text of a reasoning item's `summary` or `content`."""
    return "\n\n".join(text for part in objects_in(item.get(name)) if (text := text_in(part, "text")))


def citations(part: dict[str, Any]) -> Iterator[Citation]:
    """The annotations of an `output_text`."""
    return map(read_citation, objects_in(part.get("annotations")))


def _reasoning(item: dict[str, Any], origin: Origin) -> Iterator[Reasoning]:
    """The thinking itself, then its summary; the last bears the encrypted form."""
    content, summary, name = thoughts(item, "content"), thoughts(item, "summary"), text_in(item, "id")
    encrypted = text_in(item, "encrypted_content")
    signature = Signature(encrypted, DIALECT, origin) if encrypted else None
    if content:
        yield Reasoning(content, None if summary else signature, id=name, summary=False)
    if summary:
        yield Reasoning(summary, signature, id=name)
    if signature and not content and not summary:
        yield Reasoning("", signature, True, name)


def read_reply(body: bytes, kind: Kind) -> Reply | bytes | None:
    """As `read_answer`, as far as relaying needs it; of a `count` the count need only be there. Never raises."""
    response = decoded(body)
    if not isinstance(response, dict):
        return None
    if error := error_of(response):
        return error
    if kind == "count":
        return Reply() if type(response.get("input_tokens")) is int else None
    output = response.get("output")
    if not isinstance(output, list):
        return None
    said: list[str] = []
    signatures: list[str] = []
    called = 0
    for item in objects_in(output):
        called += item.get("type") in _CALLS
        if item.get("type") == "message":
            said += [text_in(part, "text") for part in objects_in(item.get("content"))]
        if encrypted := text_in(item, "encrypted_content"):
            signatures.append(encrypted)
    return Reply(
        "".join(said),
        stop_of(response, bool(called)),
        read_usage(response.get("usage")),
        text_in(response, "model"),
        called,
        not output,
        tuple(signatures),
    )
