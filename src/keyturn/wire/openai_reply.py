"""OpenAI-shaped answers that are not streamed: read as far as the gateway needs; and the lists of models it gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from keyturn.core import Kind, Reply, StopReason

from .jsontext import loose
from .usage import read_usage

_STOPS: dict[str, StopReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Message(msgspec.Struct, gc=False):
    content: str | list[msgspec.Raw] | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None


class _Chat(msgspec.Struct, gc=False):
    choices: list[_Choice]
    error: Any = None
    usage: Any = None
    model: str | None = None


class _Embeddings(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    error: Any = None
    usage: Any = None
    model: str | None = None


_NO_MESSAGE, _NO_CHOICE = _Message(), _Choice()
_read_chat = msgspec.json.Decoder(_Chat).decode
_read_embeddings = msgspec.json.Decoder(_Embeddings).decode


def read_reply(body: bytes, kind: Kind) -> Reply | bytes | None:
    """What a 200 holds: a usable answer, the body of an error to classify, or None for garbage. Never raises.

    A body is an error by a truthy top-level `error`, also inside an array of one element (Gemini's OpenAI-compatible
    endpoint), or by `"object": "error"` (older vLLM, Mistral). Blank lines may lead: DeepSeek sends them while busy.
    """
    try:
        return _read_usual(body, kind)
    except (ValueError, RecursionError):
        return _read_unusual(body, kind)


def _read_usual(body: bytes, kind: Kind) -> Reply | bytes:
    """The shape that providers document. Raises ValueError for every other."""
    if kind == "embeddings":
        vectors = _read_embeddings(body)
        if vectors.error:
            return body
        return Reply(usage=read_usage(vectors.usage), model=vectors.model or "", empty=not vectors.data)
    answer = _read_chat(body)
    if answer.error:
        return body
    choice = answer.choices[0] if answer.choices else _NO_CHOICE
    message = choice.message or _NO_MESSAGE
    text, calls = message.content, message.tool_calls
    return Reply(
        text if type(text) is str else "",
        _STOPS.get(choice.finish_reason, "other") if choice.finish_reason else None,
        read_usage(answer.usage),
        answer.model or "",
        len(calls) if calls is not None else 0,
        not answer.choices,
    )


def _read_unusual(body: bytes, kind: Kind) -> Reply | bytes | None:
    """Errors, garbage, and answers that are usable although a member is not of the documented type."""
    answer = loose(body)
    wrapped = isinstance(answer, list) and len(answer) == 1
    if wrapped:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("error") or answer.get("object") == "error":
        return body
    items = answer.get("data" if kind == "embeddings" else "choices")
    if wrapped or not isinstance(items, list):
        return None
    model = answer.get("model")
    return Reply(usage=read_usage(answer.get("usage")), model=model if isinstance(model, str) else "", empty=not items)


def model_row(model: str, provider: str, created: int) -> dict[str, object]:
    """One entry of `GET /v1/models`. *created* is in Unix seconds."""
    return {"id": model, "object": "model", "created": created, "owned_by": provider}


def models_body(rows: Iterable[tuple[str, str, int]]) -> bytes:
    """The answer of `GET /v1/models` for rows of (id, provider, created)."""
    return msgspec.json.encode({"object": "list", "data": [model_row(*row) for row in rows]})


def model_body(model: str, provider: str, created: int) -> bytes:
    """The answer of `GET /v1/models/{id}`."""
    return msgspec.json.encode(model_row(model, provider, created))
