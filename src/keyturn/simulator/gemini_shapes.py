"""How answers are put on the wire in Gemini's own format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import signatures
from .answers import Answer, vector
from .reply import Reply, error_of, to_json

DIMENSIONS = 64
_FINISH = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS"}


def content(reply: Reply) -> dict[str, Any]:
    """A whole answer."""
    candidates = [
        _candidate(reply, index, list(_parts(reply, answer)), answer) for index, answer in enumerate(reply.answers)
    ]
    return ({"candidates": candidates} if candidates else {}) | _tail(reply, reply.counts.output)


def stream(reply: Reply) -> Iterator[bytes]:
    """The chunks of a streamed answer: events with CR LF, or the pieces of one JSON array."""
    chunks = list(_chunks(reply))
    for place, chunk in enumerate(chunks):
        if reply.events:
            yield b"data: " + to_json(chunk) + b"\r\n\r\n"
        else:
            opening = b"[" if place == 0 else b",\r\n"
            yield opening + to_json(chunk) + (b"]" if place == len(chunks) - 1 else b"")


def error_events(reply: Reply, body: bytes, status: int, sent: int) -> bytes:
    """An error inside a stream, *sent* chunks after its beginning."""
    error = to_json({"error": error_of(body)})
    if reply.events:
        return b"data: " + error + b"\r\n\r\n"
    return (b",\r\n" if sent else b"[") + error + b"]"


def count(reply: Reply) -> dict[str, Any]:
    """The answer of `countTokens`."""
    total = reply.question.tokens
    return {"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]}


def embeddings(reply: Reply) -> dict[str, Any]:
    """The answer of `embedContent` (one `embedding`) or `batchEmbedContents` (`embeddings`)."""
    rows = [
        {"values": vector(turn.text, request.get("outputDimensionality") or DIMENSIONS)}
        for turn, request in zip(reply.question.turns, reply.question.more["requests"], strict=True)
    ]
    if reply.action == "embedContent":
        return {"embedding": rows[0]}
    return {"embeddings": rows, "usageMetadata": {"promptTokenCount": reply.question.tokens}}


def models_list(models: Sequence[str]) -> dict[str, Any]:
    """`GET /v1beta/models`."""
    return {"models": [model_row(model) for model in models]}


def model_row(model: str) -> dict[str, Any]:
    """`GET /v1beta/models/{id}`."""
    methods = ["embedContent"] if "embed" in model else ["generateContent", "countTokens"]
    return {
        "name": f"models/{model}",
        "version": "001",
        "displayName": model.replace("-", " ").title(),
        "description": "Simulated.",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": methods,
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "maxTemperature": 2,
    }


def _tail(reply: Reply, output: int) -> dict[str, Any]:
    usage = {"usageMetadata": _usage(reply, output)} if reply.told else {}
    return usage | {"modelVersion": reply.model, "responseId": reply.id}


def _usage(reply: Reply, output: int) -> dict[str, Any]:
    counts = reply.counts
    usage: dict[str, Any] = {"promptTokenCount": counts.input}
    thoughts = min(output, counts.reasoning)
    if output > thoughts:
        usage["candidatesTokenCount"] = output - thoughts
    usage["totalTokenCount"] = counts.input + output
    if counts.cached:
        usage["cachedContentTokenCount"] = counts.cached
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": counts.input}]
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return usage


def _candidate(reply: Reply, index: int, parts: Sequence[Mapping[str, Any]], finished: Answer | None) -> dict[str, Any]:
    spoken: dict[str, Any] = {"parts": parts} if parts else {}
    candidate: dict[str, Any] = {"content": spoken | {"role": "model"}}
    if finished is not None:
        candidate["finishReason"] = _FINISH[finished.finish]
        if finished.tools and _signs(reply):
            candidate["finishMessage"] = "Model generated function call(s)."
    return candidate | {"index": index}


def _chunks(reply: Reply) -> Iterator[dict[str, Any]]:
    if not reply.answers:
        yield _tail(reply, reply.counts.output)
    output = 0
    for index, answer in enumerate(reply.answers):
        for part in _streamed(reply, answer):
            output = min(output + 1, reply.counts.output)
            yield {"candidates": [_candidate(reply, index, [part], None)]} | _tail(reply, output)
        last = {"candidates": [_candidate(reply, index, [{"text": ""}], answer)]}
        yield last | _tail(reply, reply.counts.output if index == len(reply.answers) - 1 else output)


def _streamed(reply: Reply, answer: Answer) -> Iterator[dict[str, Any]]:
    if reply.question.shown:
        for piece in answer.reasoning:
            yield {"text": piece, "thought": True}
    for piece in answer.pieces:
        yield {"text": piece}
    if answer.pieces and answer.reasoning and _signs(reply):  # behind a text, it comes on an empty one
        yield {"text": "", "thoughtSignature": _signature(reply, answer)}
    yield from _calls(reply, answer)


def _parts(reply: Reply, answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.reasoning and reply.question.shown:
        yield {"text": answer.thought, "thought": True}
    if answer.pieces:
        signed = answer.reasoning and _signs(reply)
        yield {"text": answer.text} | ({"thoughtSignature": _signature(reply, answer)} if signed else {})
    yield from _calls(reply, answer)


def _calls(reply: Reply, answer: Answer) -> Iterator[dict[str, Any]]:
    for number, call in enumerate(answer.tools):
        given = {"input": call.arguments} if call.free else json.loads(call.arguments)
        function: dict[str, Any] = {"name": call.name, "args": given}
        if _signs(reply):  # older models give no ids
            function = {"id": f"{reply.id}{number}"} | function
        part: dict[str, Any] = {"functionCall": function}
        if number == 0 and _signs(reply):
            part["thoughtSignature"] = _signature(reply, answer)
        yield part


def _signs(reply: Reply) -> bool:
    return "gemini-3" in reply.model


def _signature(reply: Reply, answer: Answer) -> str:
    return signatures.of_call(reply.owner, reply.model, answer.thought or reply.id)
