"""How answers are put on the wire in OpenAI's older formats: chat and legacy completions, embeddings, model lists."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import signatures
from .answers import Answer, Called, Counts, vector
from .personas import Persona
from .reply import Reply, event, to_json

DONE = b"data: [DONE]\n\n"
DIMENSIONS = 64
"""Length of an embedding when the request does not state one."""


def usage_of(counts: Counts) -> dict[str, Any]:
    """The usage object of a chat completion."""
    return {
        "prompt_tokens": counts.input,
        "completion_tokens": counts.output,
        "total_tokens": counts.input + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }


def completion(reply: Reply) -> dict[str, Any]:
    """A whole chat completion."""
    persona = reply.persona
    whole: dict[str, Any] = {
        "id": f"{persona.id_prefix}{reply.id}",
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [_choice(reply, index, answer) for index, answer in enumerate(reply.answers)],
    }
    if reply.told:
        whole["usage"] = usage_of(reply.counts)
    if persona.name == "groq":
        whole["x_groq"] = {"id": f"req_{reply.id[-8:]}"}
    if persona.name == "openrouter":
        whole["provider"] = "Fictive"
    return whole


def stream(reply: Reply) -> Iterator[bytes]:
    """The events of a streamed chat completion, `[DONE]` included."""
    persona, include_usage = reply.persona, reply.question.include_usage
    usage = usage_of(reply.counts) if reply.told else None
    nothing_yet: dict[str, Any] = {"usage": None} if include_usage or persona.name == "deepseek" else {}
    for index, answer in enumerate(reply.answers):
        for position, delta in enumerate(_deltas(reply, answer)):
            more = nothing_yet
            opening = persona.opening if position == 0 and index == 0 else b""
            if persona.usage == "x_groq" and position == 0 and index == 0:
                more = more | {"x_groq": {"id": f"req_{reply.id[-8:]}"}}
            choice = {"index": index, "delta": delta, "finish_reason": None}
            yield opening + event(_chunk(reply, [choice], **more))
        finish: dict[str, Any] = {"index": index, "delta": {}, "finish_reason": answer.finish}
        if persona.name == "openrouter":
            finish["native_finish_reason"] = answer.finish
        yield event(_chunk(reply, [finish], **(nothing_yet | _usage_at_finish(persona, reply, usage))))
        if persona.usage == "repeat" and usage is not None:
            yield event(_chunk(reply, [finish], usage=usage))
    if usage is not None and include_usage and persona.usage in ("option", "x_groq"):
        yield event(_chunk(reply, [], usage=usage))
    yield DONE


def _chunk(reply: Reply, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    head = {
        "id": f"{reply.persona.id_prefix}{reply.id}",
        "object": "chat.completion.chunk",
        "created": reply.created,
        "model": reply.model,
    }
    if reply.persona.name == "openrouter":
        head["provider"] = "Fictive"
    return head | {"choices": choices} | more


def text_completion(reply: Reply) -> dict[str, Any]:
    """A whole legacy completion."""
    choices = [
        {"text": answer.text, "index": index, "logprobs": None, "finish_reason": answer.finish}
        for index, answer in enumerate(reply.answers)
    ]
    usage = {"usage": usage_of(reply.counts)} if reply.told else {}
    return _text_head(reply) | {"choices": choices} | usage


def text_stream(reply: Reply) -> Iterator[bytes]:
    """The events of a streamed legacy completion."""
    for index, answer in enumerate(reply.answers):
        for piece in answer.pieces:
            choice = {"text": piece, "index": index, "logprobs": None, "finish_reason": None}
            yield event(_text_head(reply) | {"choices": [choice]})
        choice = {"text": "", "index": index, "logprobs": None, "finish_reason": answer.finish}
        yield event(_text_head(reply) | {"choices": [choice]})
    if reply.told and reply.question.include_usage:
        yield event(_text_head(reply) | {"choices": [], "usage": usage_of(reply.counts)})
    yield DONE


def _text_head(reply: Reply) -> dict[str, Any]:
    head = {"id": f"cmpl-{reply.id}", "object": "text_completion", "created": reply.created}
    return head | {"model": reply.model}


def error_events(reply: Reply, body: bytes, status: int, sent: int) -> bytes:
    """An error inside a stream whose 200 has been sent, the way the persona does it."""
    persona = reply.persona
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
        return event(_chunk(reply, [choice], error=error["error"])) + DONE
    return event(error) + (DONE if persona.stream_error == "done" else b"")


def embeddings(reply: Reply) -> dict[str, Any]:
    """Vectors for `input`, as floats or as base64 of little-endian 32-bit floats, which the OpenAI SDK asks for."""
    body, prompt = reply.question.more, reply.question.tokens
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
    return {"object": "list", "data": rows, "model": reply.model, "usage": usage}


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
    if persona.listing == "g4f":  # the upstreams behind it stand in the same list
        rows = [row | {"image": False, "vision": False, "provider": False} for row in rows]
        rows += [row | {"id": "SimulatedUpstream", "provider": True} for row in rows[:1]]
    if persona.listing == "mistral":
        abilities = {"completion_chat": True, "function_calling": True}
        rows = [row | {"capabilities": abilities, "max_context_length": persona.context, "aliases": []} for row in rows]
    if persona.listing == "gemini":
        rows = [{"id": f"models/{model}", "object": "model", "owned_by": "google"} for model in models]
    return {"object": "list", "data": rows}


def _choice(reply: Reply, index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text if not answer.tools else None}
    if answer.reasoning and reply.question.shown:
        message[reply.persona.reasoning] = answer.thought
    if answer.tools:
        message["tool_calls"] = [_call(reply, call, index, n) for n, call in enumerate(answer.tools)]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}


def _deltas(reply: Reply, answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if answer.tools else ""}
    for piece in answer.reasoning if reply.question.shown else ():
        yield {reply.persona.reasoning: piece}
    for piece in answer.pieces:
        yield {"content": piece}
    for n, call in enumerate(answer.tools):
        kind, member = ("custom", "input") if call.free else ("function", "arguments")
        yield {"tool_calls": [{"index": n} | _call(reply, call._replace(arguments=""), 0, n)]}
        half = len(call.arguments) // 2
        for part in (call.arguments[:half], call.arguments[half:]):
            if part:
                yield {"tool_calls": [{"index": n, kind: {member: part}}]}


def _call(reply: Reply, call: Called, choice: int, number: int) -> dict[str, Any]:
    kind, member = ("custom", "input") if call.free else ("function", "arguments")
    row = {"id": call_id(reply, choice, number), "type": kind, kind: {"name": call.name, member: call.arguments}}
    if number == 0 and reply.persona.native == "gemini" and "gemini-3" in reply.model:
        signature = signatures.of_call(reply.owner, reply.model, reply.id)
        row["extra_content"] = {"google": {"thought_signature": signature}}
    return row


def _usage_at_finish(persona: Persona, reply: Reply, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    if usage is None:
        return {}
    if persona.usage == "finish":
        return {"usage": usage}
    if persona.usage == "x_groq":
        return {"x_groq": {"id": f"req_{reply.id[-8:]}", "usage": usage}}
    return {}


def call_id(reply: Reply, choice: int, number: int) -> str:
    """Nine letters and digits, the only ids that Mistral accepts; another one in each answer of a conversation."""
    return f"c{int(reply.id.removeprefix('sim')) % 100_000:05d}{choice:01d}{number:02d}"
