"""How answers are put on the wire: completions, stream events, embeddings and model lists, in each persona's shape."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Answer, vector
from .personas import Persona

DONE = b"data: [DONE]\n\n"
DIMENSIONS = 64
"""Length of an embedding when the request does not state one."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all parts of one answer have in common; *created* is in Unix seconds."""

    persona: Persona
    id: str
    created: int
    model: str
    usage: Mapping[str, Any] | None

    def chunk(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        if self.persona.name == "openrouter":
            head["provider"] = "Fictive"
        return head | {"choices": choices} | more


def usage_of(prompt: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """The usage object of a chat completion."""
    output = sum(answer.tokens for answer in answers)
    thinking = sum(len(answer.reasoning) for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


def completion(envelope: Envelope, answers: Sequence[Answer]) -> dict[str, Any]:
    """A whole chat completion."""
    persona = envelope.persona
    whole: dict[str, Any] = {
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": [_choice(persona, index, answer) for index, answer in enumerate(answers)],
    }
    if envelope.usage is not None:
        whole["usage"] = envelope.usage
    if persona.name == "groq":
        whole["x_groq"] = {"id": f"req_{envelope.id[-8:]}"}
    if persona.name == "openrouter":
        whole["provider"] = "Fictive"
    return whole


def stream(envelope: Envelope, answers: Sequence[Answer], *, include_usage: bool) -> Iterator[bytes]:
    """The events of a streamed chat completion, `[DONE]` included."""
    persona, usage = envelope.persona, envelope.usage
    nothing_yet: dict[str, Any] = {"usage": None} if include_usage or persona.name == "deepseek" else {}
    for index, answer in enumerate(answers):
        for position, delta in enumerate(_deltas(persona, answer)):
            more = nothing_yet
            opening = persona.opening if position == 0 and index == 0 else b""
            if persona.usage == "x_groq" and position == 0 and index == 0:
                more = more | {"x_groq": {"id": f"req_{envelope.id[-8:]}"}}
            choice = {"index": index, "delta": delta, "finish_reason": None}
            yield opening + event(envelope.chunk([choice], **more))
        finish: dict[str, Any] = {"index": index, "delta": {}, "finish_reason": answer.finish}
        if persona.name == "openrouter":
            finish["native_finish_reason"] = answer.finish
        yield event(envelope.chunk([finish], **(nothing_yet | _usage_at_finish(persona, envelope, usage))))
        if persona.usage == "repeat" and usage is not None:
            yield event(envelope.chunk([finish], usage=usage))
    if usage is not None and include_usage and persona.usage in ("option", "x_groq"):
        yield event(envelope.chunk([], usage=usage))
    yield DONE


def event(value: Any) -> bytes:
    """One SSE event; text stays UTF-8 rather than being escaped."""
    return b"data: " + to_json(value) + b"\n\n"


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def error_events(persona: Persona, body: bytes, status: int, envelope: Envelope) -> bytes:
    """An error inside a stream whose 200 has been sent, the way *persona* does it."""
    try:
        error = json.loads(body)
    except ValueError:
        error = {"error": {"message": body.decode(), "type": "server_error"}}
    if isinstance(error, list):
        error = error[0]
    if persona.stream_error == "event":
        return b"event: error\ndata: " + to_json({"error": error["error"] | {"status_code": status}}) + b"\n\n"
    if persona.stream_error == "chunk":
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        return event(envelope.chunk([choice], error=error["error"])) + DONE
    return event(error)


def embeddings(body: Mapping[str, Any], model: str, prompt: int) -> dict[str, Any]:
    """Vectors for `input`, as floats or as base64 of little-endian 32-bit floats, which the OpenAI SDK asks for."""
    given = body["input"]
    single = isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int))
    inputs = [given] if single else given
    dimensions = body.get("dimensions") or DIMENSIONS
    rows = []
    for index, item in enumerate(inputs):
        numbers: Any = vector(item if isinstance(item, str) else json.dumps(item), dimensions)
        if body.get("encoding_format") == "base64":
            numbers = base64.b64encode(struct.pack(f"<{dimensions}f", *numbers)).decode()
        rows.append({"object": "embedding", "index": index, "embedding": numbers})
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return {"object": "list", "data": rows, "model": model, "usage": usage}


def models_list(persona: Persona, models: Sequence[str], created: int) -> Any:
    """The provider's own shape of `GET /models`."""
    rows: list[dict[str, Any]] = [
        {"id": model, "object": "model", "created": created, "owned_by": persona.name} for model in models
    ]
    if persona.listing == "array":
        return [row | {"type": "chat", "display_name": row["id"], "context_length": persona.context} for row in rows]
    if persona.listing == "openrouter":
        return {
            "data": [
                {
                    "id": model,
                    "canonical_slug": model,
                    "name": model,
                    "created": created,
                    "context_length": persona.context,
                    "architecture": {"modality": "text->text"},
                    "pricing": {"prompt": "0", "completion": "0"},
                    "supported_parameters": ["max_tokens", "temperature", "tools"],
                }
                for model in models
            ]
        }
    if persona.listing == "groq":
        rows = [row | {"active": True, "context_window": persona.context} for row in rows]
    if persona.listing == "mistral":
        abilities = {"completion_chat": True, "function_calling": True}
        rows = [row | {"capabilities": abilities, "max_context_length": persona.context, "aliases": []} for row in rows]
    if persona.listing == "gemini":
        rows = [{"id": f"models/{model}", "object": "model", "owned_by": "google"} for model in models]
    return {"object": "list", "data": rows}


def _choice(persona: Persona, index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text if not answer.tools else None}
    if answer.reasoning:
        message[persona.reasoning] = "".join(answer.reasoning)
    if answer.tools:
        message["tool_calls"] = [
            {"id": _call_id(index, n), "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(answer.tools)
        ]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}


def _deltas(persona: Persona, answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if answer.tools else ""}
    for piece in answer.reasoning:
        yield {persona.reasoning: piece}
    for piece in answer.pieces:
        yield {"content": piece}
    for n, (name, arguments) in enumerate(answer.tools):
        function = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": n, "id": _call_id(0, n), "type": "function", "function": function}]}
        half = len(arguments) // 2
        for part in (arguments[:half], arguments[half:]):
            if part:
                yield {"tool_calls": [{"index": n, "function": {"arguments": part}}]}


def _usage_at_finish(persona: Persona, envelope: Envelope, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    if usage is None:
        return {}
    if persona.usage == "finish":
        return {"usage": usage}
    if persona.usage == "x_groq":
        return {"x_groq": {"id": f"req_{envelope.id[-8:]}", "usage": usage}}
    return {}


def _call_id(choice: int, number: int) -> str:
    """Nine letters and digits, the only ids that Mistral accepts."""
    return f"call{choice:02d}{number:03d}"
