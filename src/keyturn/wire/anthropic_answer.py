"""Anthropic's complete answers: read into an Answer or, for relaying, a Reply; and an Answer written as a Message."""

from __future__ import annotations

from typing import Any

from keyturn.core import (
    Answer,
    Choice,
    Foreign,
    Kind,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Signature,
    Text,
    ToolUse,
    Usage,
)

from .anthropic_blocks import (
    DIALECT,
    STOPS,
    encode,
    read_citation,
    read_usage,
    stop_details,
    stop_reason,
    string,
    tool_id,
    write_usage,
)
from .dialect import Context
from .jsontext import loose
from .signatures import pack
from .tools import flat_name


def read_answer(body: bytes, origin: Origin) -> Answer | bytes | None:
    """The whole Message; the body of an error to classify; None for garbage. Never raises.

    The explanation of a refusal becomes a Refusal. Blocks of Anthropic's own tools are Foreign.
    """
    given = _message(body)
    if not isinstance(given, dict):
        return given
    parts: list[Part] = []
    at = 0
    for block in given["content"]:
        if isinstance(block, dict) and (part := _read_block(block, origin, at)) is not None:
            parts.append(part)
            at += len(part.text) if isinstance(part, Text) else 0
    stop = given.get("stop_reason")
    details = given.get("stop_details")
    if stop == "refusal" and isinstance(details, dict) and (why := string(details.get("explanation"))):
        parts.append(Refusal(why))
    choice = Choice(
        tuple(parts),
        STOPS.get(stop, "other") if isinstance(stop, str) else None,
        string(given.get("stop_sequence")),
    )
    usage = given.get("usage")
    return Answer(
        (choice,) if parts or choice.stop else (),
        string(given.get("id")),
        string(given.get("model")),
        usage=read_usage(usage if isinstance(usage, dict) else None),
    )


def read_reply(body: bytes, kind: Kind) -> Reply | bytes | None:
    """What a 200 holds, as `read_answer`. Of kind `count` it is `{"input_tokens": …}`, which uses no tokens."""
    if kind == "count":
        counted = loose(body)
        if not isinstance(counted, dict):
            return None
        if type(counted.get("input_tokens")) is int:
            return Reply()
        return body if _is_error(counted) else None
    given = _message(body)
    if not isinstance(given, dict):
        return given
    blocks = [block for block in given["content"] if isinstance(block, dict)]
    stop = given.get("stop_reason")
    usage = given.get("usage")
    return Reply(
        text="".join(string(block.get("text")) for block in blocks if block.get("type") == "text"),
        stop=STOPS.get(stop, "other") if isinstance(stop, str) else None,
        usage=read_usage(usage if isinstance(usage, dict) else None),
        model=string(given.get("model")),
        tool_calls=sum(block.get("type") == "tool_use" for block in blocks),
        empty=not blocks and not stop,
        signatures=tuple(value for block in blocks if (value := signature_of(block))),
    )


def write_answer(answer: Answer, context: Context) -> bytes:
    """*answer* as a Message; of several choices the first. Parts that only another dialect knows are left out."""
    choice = answer.choices[0] if answer.choices else Choice(())
    content = _write_parts(choice.parts, context)
    refusals = [part.text for part in choice.parts if isinstance(part, Refusal)]
    refused = bool(refusals) or choice.stop == "content_filter"
    reason = stop_reason(choice.stop, tools=any(block.get("type") == "tool_use" for block in content), refused=refused)
    return encode(
        {
            "id": f"msg_{context.id}",
            "type": "message",
            "role": "assistant",
            "model": answer.model or context.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": choice.stop_sequence if reason == "stop_sequence" else None,
            "stop_details": stop_details(reason, "".join(refusals)),
            "usage": write_usage(answer.usage or Usage(context.input_tokens)),
        }
    )


def signature_of(block: dict[str, Any]) -> str:
    """The signature in a decoded content block; empty when it has none."""
    kind = block.get("type")
    return string(block.get("signature" if kind == "thinking" else "data")) if kind in _THINKING else ""


_THINKING = ("thinking", "redacted_thinking")


def _message(body: bytes) -> dict[str, Any] | bytes | None:
    """A decoded Message; the body of an error; None for what is neither."""
    given = loose(body)
    if not isinstance(given, dict):
        return None
    if _is_error(given):
        return body
    return given if isinstance(given.get("content"), list) else None


def _is_error(given: dict[str, Any]) -> bool:
    return given.get("type") == "error" or bool(given.get("error"))


def _read_block(block: dict[str, Any], origin: Origin, at: int) -> Part | None:
    """One content block; *at* is where its text begins in the whole. None for one that says nothing."""
    kind = block.get("type")
    if kind == "text":
        text = string(block.get("text"))
        given = block.get("citations")
        cited = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else ()
        return Text(text, citations=tuple(read_citation(each, at, at + len(text)) for each in cited)) if text else None
    if kind == "thinking":
        text, value = string(block.get("thinking")), string(block.get("signature"))
        return Reasoning(text, Signature(value, DIALECT, origin) if value else None) if text or value else None
    if kind == "redacted_thinking":
        value = string(block.get("data"))
        return Reasoning(signature=Signature(value, DIALECT, origin), redacted=True) if value else None
    if kind == "tool_use":
        given = block.get("input")
        arguments = encode(given if isinstance(given, dict) else {}).decode()
        return ToolUse(string(block.get("id")), string(block.get("name")), arguments)
    return Foreign(DIALECT, string(kind), encode(block)) if isinstance(kind, str) else None


def _write_parts(parts: tuple[Part, ...], context: Context) -> list[dict[str, object]]:
    """Content blocks. Another dialect's signature of a call or text travels in a thinking block of its own before the
    first call, or in the one that stands directly before the call.
    """
    blocks: list[dict[str, object]] = []
    calls = 0
    for part in parts:
        match part:
            case Text(text=text) if text:
                cited = [loose(each.raw) for each in part.citations if each.dialect == DIALECT and each.raw]
                blocks.append({"type": "text", "text": text, "citations": cited or None})
                if part.signature is not None and not calls:
                    blocks.append(_thinking("", part.signature))
            case Refusal(text=text) if text:
                blocks.append({"type": "text", "text": text, "citations": None})
            case Reasoning(redacted=True, signature=Signature() as signature) if not part.text:
                blocks.append({"type": "redacted_thinking", "data": pack(signature)})
            case Reasoning() if part.text or part.signature:
                blocks.append(_thinking(part.text, part.signature))
            case ToolUse():
                if part.signature is not None:
                    _sign(blocks, part.signature, calls)
                blocks.append(_tool_use(part, f"call_{context.id}_{calls}"))
                calls += 1
            case Foreign(dialect="anthropic") if isinstance(block := loose(part.raw), dict):
                blocks.append(block)
    return blocks


def _sign(blocks: list[dict[str, object]], signature: Signature, calls: int) -> None:
    """Carry the signature of the call that is about to follow."""
    last = blocks[-1] if blocks else {}
    if last.get("type") == "thinking":
        last["signature"] = last["signature"] or pack(signature)
    elif not calls:
        blocks.append(_thinking("", signature))


def _thinking(text: str, signature: Signature | None) -> dict[str, object]:
    return {"type": "thinking", "thinking": text, "signature": pack(signature) if signature else ""}


def _tool_use(part: ToolUse, default_id: str) -> dict[str, object]:
    given = {"input": part.arguments} if part.free else loose(part.arguments.encode("utf-8", "replace") or b"{}")
    return {
        "type": "tool_use",
        "id": tool_id(part.id) or default_id,
        "name": flat_name(part.name, part.namespace),
        "input": given if isinstance(given, dict) else {"input": given if given is not None else part.arguments},
    }
