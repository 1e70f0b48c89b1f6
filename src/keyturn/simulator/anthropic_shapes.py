"""How answers are put on the wire in Anthropic's Messages format."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from typing import Any

from . import signatures
from .answers import Answer
from .reply import Reply, error_of, event

PING = event({"type": "ping"}, "ping")
_FINISH = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message(reply: Reply) -> dict[str, Any]:
    """A whole answer."""
    answer = reply.answer or Answer()
    whole = _head(reply) | {"content": list(_blocks(reply, answer))} | _stop(answer)
    return whole | ({"usage": _usage(reply, reply.counts.output)} if reply.told else {})


def stream(reply: Reply) -> Iterator[bytes]:
    """The events of a streamed answer."""
    answer = reply.answer or Answer()
    head = _head(reply) | {"content": [], "stop_reason": None, "stop_sequence": None}
    if reply.told:
        head["usage"] = _usage(reply, 1)
    yield _event("message_start", message=head)
    for index, block in enumerate(_blocks(reply, answer)):
        yield from _block_events(index, block, answer)
        if index == 0:
            yield PING
    usage = {"usage": _usage(reply, reply.counts.output)} if reply.told else {}
    yield _event("message_delta", delta=_stop(answer), **usage)
    yield _event("message_stop")


def error_events(reply: Reply, body: bytes, status: int, sent: int) -> bytes:
    """An error inside a stream."""
    error = error_of(body)
    return _event("error", error={"details": None, "type": error.get("type"), "message": error.get("message")})


def count(reply: Reply) -> dict[str, Any]:
    """The answer of `count_tokens`."""
    return {"input_tokens": reply.question.tokens}


def models_list(models: Sequence[str], created: int) -> dict[str, Any]:
    """`GET /v1/models`."""
    rows = [model_row(model, created) for model in models]
    ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
    return {"data": rows, "has_more": False} | ends


def model_row(model: str, created: int) -> dict[str, Any]:
    """`GET /v1/models/{id}`."""
    moment = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        "type": "model",
        "id": model,
        "display_name": model.replace("-", " ").title(),
        "created_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def _event(name: str, **members: Any) -> bytes:
    return event({"type": name} | members, name)


def _head(reply: Reply) -> dict[str, Any]:
    return {"id": f"msg_{reply.id}", "type": "message", "role": "assistant", "model": reply.model}


def _stop(answer: Answer) -> dict[str, Any]:
    if answer.stop_sequence:
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_sequence}
    return {"stop_reason": _FINISH[answer.finish], "stop_sequence": None}


def _usage(reply: Reply, output: int) -> dict[str, Any]:
    counts = reply.counts
    return {
        "input_tokens": counts.input - counts.cached - counts.written,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": counts.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _blocks(reply: Reply, answer: Answer) -> Iterator[dict[str, Any]]:
    provider = reply.persona.name
    if answer.reasoning and answer.redacted:
        yield {"type": "redacted_thinking", "data": signatures.redacted(provider, answer.thought)}
    elif answer.reasoning:
        shown = answer.thought if reply.question.shown else ""
        signature = signatures.of_thinking(provider, answer.thought)
        yield {"type": "thinking", "thinking": shown, "signature": signature}
    if answer.pieces:
        yield {"type": "text", "text": answer.text}
    for number, call in enumerate(answer.tools):
        given = {"input": call.arguments} if call.free else json.loads(call.arguments)
        yield {"type": "tool_use", "id": f"toolu_{reply.id}_{number}", "name": call.name, "input": given}


def _block_events(index: int, block: dict[str, Any], answer: Answer) -> Iterator[bytes]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    kind = block["type"]
    yield _event("content_block_start", index=index, content_block=block | empty.get(kind, {}))
    deltas: list[dict[str, Any]] = []
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
    elif kind == "thinking":
        pieces = answer.reasoning if block["thinking"] else []
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind == "tool_use":
        arguments = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
        half = len(arguments) // 2
        parts = ["", *filter(None, (arguments[:half], arguments[half:]))]
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)
