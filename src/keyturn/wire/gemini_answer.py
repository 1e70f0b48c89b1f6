"""Gemini's whole answers: read from upstreams, written for clients."""

from __future__ import annotations

from typing import Any

import msgspec

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Citation,
    Foreign,
    Kind,
    Media,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Signature,
    Text,
    ToolUse,
)

from . import gemini_shapes as shapes
from .dialect import Context
from .gemini_fields import DIALECT
from .gemini_shapes import encoded
from .gemini_signatures import pack_bytes
from .jsontext import loose
from .media import kind_of
from .signatures import marked_redacted
from .tools import flat_name


def read_answer(body: bytes, origin: Origin) -> Answer | bytes | None:
    """The whole answer; the body of an error; None for garbage. A refused prompt is an answer that was filtered."""
    chunk = shapes.read_chunk(body)
    if chunk is None:
        return None
    if chunk.error:
        return body
    usage = shapes.read_used(chunk.usageMetadata)
    identity, model = chunk.responseId or "", chunk.modelVersion or ""
    if chunk.blocked:
        return Answer((Choice((), "content_filter"),), identity, model, usage=usage)
    if chunk.candidates is None and usage is None and not identity:
        return None
    choices = tuple(_choice(candidate, origin) for candidate in chunk.candidates or ())
    return Answer(choices, identity, model, usage=usage)


def _choice(candidate: shapes.Candidate, origin: Origin) -> Choice:
    given = (candidate.content.parts if candidate.content else None) or []
    parts = [part for each in given if (part := _part(each, origin)) is not None]
    text = "".join(part.text for part in parts if isinstance(part, Text))
    if citations := shapes.read_citations(candidate.groundingMetadata, text):
        for index in range(len(parts) - 1, -1, -1):
            if isinstance(last := parts[index], Text):
                parts[index] = msgspec.structs.replace(last, citations=tuple(citations))
                break
    called = any(isinstance(part, ToolUse) for part in parts)
    stop = shapes.stop_of(candidate.finishReason, called) if candidate.finishReason else None
    return Choice(tuple(parts), stop, logprobs=shapes.read_logprobs(candidate.logprobsResult))


def _part(part: shapes.Part, origin: Origin) -> Part | None:
    signature = Signature(part.thoughtSignature, DIALECT, origin) if part.thoughtSignature else None
    if (call := part.functionCall) is not None:
        return ToolUse(call.id or "", call.name or "", shapes.args_of(call), signature=signature)
    if (blob := part.inlineData) is not None and blob.data:
        return Media(kind_of(blob.mimeType or ""), blob.mimeType or "", blob.data)
    if (foreign := part.foreign()) is not None:
        return Foreign(DIALECT, *foreign)
    text = part.text or ""
    if not text and signature is None:
        return None
    return Reasoning(text, signature) if part.thought else Text(text, signature=signature)


def read_reply(body: bytes, kind: Kind) -> Reply | bytes | None:
    """What a 200 holds, as far as relaying needs it: a Reply, the body of an error, or None for garbage."""
    if kind in ("embeddings", "count"):
        return _read_other(body, kind)
    chunk = shapes.read_chunk(body)
    if chunk is None:
        return None
    if chunk.error:
        return body
    usage, model = shapes.read_used(chunk.usageMetadata), chunk.modelVersion or ""
    if chunk.blocked:
        return Reply(stop="content_filter", usage=usage, model=model)
    if chunk.candidates is None and usage is None and not chunk.responseId:
        return None
    if not chunk.candidates:
        return Reply(usage=usage, model=model, empty=True)
    first = chunk.candidates[0]
    parts = (first.content.parts if first.content else None) or []
    calls = sum(part.functionCall is not None for part in parts)
    every = [part for each in chunk.candidates if each.content for part in each.content.parts or ()]
    return Reply(
        "".join(part.text for part in parts if part.text and not part.thought),
        shapes.stop_of(first.finishReason, calls > 0) if first.finishReason else None,
        usage,
        model,
        calls,
        signatures=tuple(part.thoughtSignature for part in every if part.thoughtSignature),
    )


def _read_other(body: bytes, kind: Kind) -> Reply | bytes | None:
    given = loose(body)
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
        if not (isinstance(given, dict) and given.get("error")):
            return None
    if not isinstance(given, dict):
        return None
    if given.get("error"):
        return body
    if kind == "count":
        return Reply() if isinstance(given.get("totalTokens"), (int, float)) else None
    try:
        usage = shapes.read_used(msgspec.convert(given.get("usageMetadata"), shapes.Used | None))
    except ValueError:
        usage = None
    vectors = given.get("embeddings", given.get("embedding"))
    if not isinstance(vectors, (list, dict)):
        return None
    return Reply(usage=usage, empty=not vectors)


# --- for clients ----------------------------------------------------------------------------------------------------


def shows_thoughts(call: Call) -> bool:
    """Whether the client asked to see the thinking (`includeThoughts`)."""
    config = loose(call.members.get("generationConfig", b"null"))
    for names in (("thinkingConfig", "thinking_config"), ("includeThoughts", "include_thoughts")):
        config = next((config[name] for name in names if name in config), None) if isinstance(config, dict) else None
    return config is True


def write_answer(answer: Answer, context: Context) -> bytes:
    """The body for a client. Thinking is left out unless it asked for it; calls without an id get one."""
    shown = shows_thoughts(context.call)
    body: dict[str, Any] = {"candidates": []}
    count = 0
    for index, choice in enumerate(answer.choices):
        parts = []
        for part in choice.parts:
            if isinstance(part, ToolUse) and not part.id:
                part = msgspec.structs.replace(part, id=f"call_{context.id}_{count}")
                count += 1
            if (written := write_part(part, shown)) is not None:
                parts.append(written)
        candidate: dict[str, Any] = {
            "content": {"parts": parts, "role": "model"},
            "finishReason": shapes.finish_of(choice),
            "index": index,
        }
        if choice.logprobs and (logprobs := shapes.write_logprobs(choice.logprobs)):
            candidate["logprobsResult"] = logprobs
        texts = [part for part in choice.parts if isinstance(part, Text)]
        citations: list[Citation] = [citation for part in texts for citation in part.citations]
        if grounding := shapes.write_citations(citations, "".join(part.text for part in texts)):
            candidate["groundingMetadata"] = grounding
        body["candidates"].append(candidate)
    if answer.usage is not None:
        body["usageMetadata"] = shapes.used_of(answer.usage)
    body["modelVersion"] = answer.model or context.model
    body["responseId"] = context.id
    return encoded(body)


def write_part(part: Part, shown: bool) -> dict[str, Any] | None:
    """One part for a client; None for what it does not see. *shown*: it sees the thinking."""
    signature = part.signature if isinstance(part, (Text, Reasoning, ToolUse)) else None
    signed = {"thoughtSignature": pack_bytes(signature)} if signature is not None else {}
    if isinstance(part, (Text, Refusal)):
        return {"text": part.text, **signed} if part.text or signed else None
    if isinstance(part, Reasoning):
        return write_thought(part.text, _held(part), shown)
    if isinstance(part, ToolUse):
        return write_call(part.id, flat_name(part.name, part.namespace), part.arguments, signed)
    if isinstance(part, Media):
        if part.data:
            return {"inlineData": {"mimeType": part.mime or "application/octet-stream", "data": part.data}}
        return {"fileData": {"fileUri": part.url, "mimeType": part.mime}} if part.url else None
    if isinstance(part, Foreign) and part.dialect == DIALECT:
        return loose(part.raw)  # type: ignore[no-any-return]
    return None


def _held(part: Reasoning) -> Signature | None:
    """The signature of a thought, as a client is to hold it."""
    return marked_redacted(part.signature) if part.redacted and part.signature is not None else part.signature


def write_thought(text: str, signature: Signature | None, shown: bool) -> dict[str, Any] | None:
    """A thought. When it stays hidden, what remains is a signature that proves something without its text."""
    if not shown:
        if signature is None or (text and signature.dialect != DIALECT):
            return None
        return {"text": "", "thought": True, "thoughtSignature": pack_bytes(signature)}
    if not text and signature is None:
        return None
    return {"text": text, "thought": True, **({"thoughtSignature": pack_bytes(signature)} if signature else {})}


def write_call(identity: str, name: str, arguments: str, signed: dict[str, str]) -> dict[str, Any]:
    """A call of a tool. Arguments that are no object (plain text, or JSON that was cut) stand under `input`."""
    args = loose(arguments.encode("utf-8", "replace")) if arguments.strip() else {}
    if not isinstance(args, dict):
        args = {"input": arguments}
    return {"functionCall": {"id": identity, "name": name, "args": args}, **signed}
