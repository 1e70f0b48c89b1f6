"""OpenAI Chat answers that are not streamed, read whole and written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from keyturn.core import Answer, Choice, Citation, Media, Origin, Part, Reasoning, Refusal, Signature, Text, ToolUse

from .chat_messages import DIALECT, google_signature, thoughts
from .chat_reasoning import Sign, read_thinking, write_thinking
from .chat_values import (
    FINISHES,
    annotation,
    arguments_in,
    citations_in,
    created_in,
    free_tools,
    is_legacy,
    read_json,
    stop_of,
    text_in,
    unwrap,
    unwrapped,
    usage_of,
)
from .dialect import Context
from .media import data_url
from .signatures import pack
from .tools import flat_name
from .usage import read_usage


def read_answer(body: bytes, origin: Origin) -> Answer | bytes | None:
    """The whole answer; the body of an error to classify; None for garbage. Never raises. Reads what `read_reply`
    takes for an answer or an error as such."""
    found = read_json(body)
    answer = unwrap(found)
    if not isinstance(answer, dict):
        return None
    if answer.get("error") or answer.get("object") == "error":
        return body
    choices = answer.get("choices")
    if answer is not found or not isinstance(choices, list):
        return None

    def sign(value: str, dialect: str) -> Signature:
        return Signature(value, dialect, origin)

    return Answer(
        tuple(_choice(choice, sign) for choice in choices if isinstance(choice, dict)),
        id=text_in(answer, "id"),
        model=text_in(answer, "model"),
        created=created_in(answer),
        usage=read_usage(answer.get("usage")),
        tier=text_in(answer, "service_tier"),
    )


def _choice(choice: dict[str, Any], sign: Sign) -> Choice:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    parts: list[Part] = [*read_thinking(message, sign), *_content(message)]
    citations = citations_in(message.get("annotations"))
    if citations:
        parts = _cited(parts, citations)
    if refusal := text_in(message, "refusal"):
        parts.append(Refusal(refusal))
    calls = message.get("tool_calls")
    uses = [_call(call, sign) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    legacy = message.get("function_call")
    if not uses and isinstance(legacy, dict) and text_in(legacy, "name"):
        uses = [ToolUse("", text_in(legacy, "name"), arguments_in(legacy.get("arguments")) or "{}")]
    parts += (use for use in uses if use is not None)
    finish = choice.get("finish_reason")
    logprobs = choice.get("logprobs")
    return Choice(
        tuple(parts),
        stop_of(finish, len(uses)) if finish else None,
        logprobs=msgspec.json.encode(logprobs) if isinstance(logprobs, dict) else b"",
    )


def _content(message: dict[str, Any]) -> Iterable[Part]:
    content = message.get("content")
    if isinstance(content, str) and content:
        yield Text(content)
    for part in content if isinstance(content, list) else ():  # Mistral
        if not isinstance(part, dict):
            continue
        if text := text_in(part, "text"):
            yield Text(text)
        elif text := thoughts(part.get("thinking")):
            yield Reasoning(text)
    audio = message.get("audio")
    if not content and isinstance(audio, dict) and (text := text_in(audio, "transcript")):
        yield Text(text)
    images = message.get("images")  # OpenRouter
    for image in images if isinstance(images, list) else ():
        inner = image.get("image_url") if isinstance(image, dict) else None
        if isinstance(inner, dict) and (url := text_in(inner, "url")):
            yield _image(url)


def _image(url: str) -> Media:
    head, mark, data = url.partition(";base64,")
    if head.startswith("data:") and mark:
        return Media("image", head.removeprefix("data:"), data)
    return Media("image", url=url)


def _cited(parts: list[Part], citations: list[Citation]) -> list[Part]:
    """*parts* with the citations on the last text."""
    for index in range(len(parts) - 1, -1, -1):
        part = parts[index]
        if isinstance(part, Text):
            return [*parts[:index], Text(part.text, citations=tuple(citations)), *parts[index + 1 :]]
    return parts


def _call(call: dict[str, Any], sign: Sign) -> ToolUse | None:
    custom, function = call.get("custom"), call.get("function")
    if isinstance(custom, dict):
        return ToolUse(text_in(call, "id"), text_in(custom, "name"), text_in(custom, "input"), free=True)
    if not isinstance(function, dict) or not text_in(function, "name"):
        return None
    value = google_signature(call)
    return ToolUse(
        text_in(call, "id"),
        text_in(function, "name"),
        arguments_in(function.get("arguments")) or "{}",
        signature=sign(value, "gemini") if value else None,
    )


# --- written --------------------------------------------------------------------------------------------------------


def write_answer(answer: Answer, context: Context) -> bytes:
    """The body of a chat completion."""
    body: dict[str, object] = {
        "id": f"chatcmpl-{context.id}",
        "object": "chat.completion",
        "created": answer.created or context.created,
        "model": answer.model or context.model,
        "choices": [_written(index, choice, context) for index, choice in enumerate(answer.choices)],
    }
    if answer.usage is not None:
        body["usage"] = usage_of(answer.usage)
    if answer.tier:
        body["service_tier"] = answer.tier
    return msgspec.json.encode(body)


def _written(index: int, choice: Choice, context: Context) -> dict[str, object]:
    legacy = is_legacy(context.call)
    calls = [part for part in choice.parts if isinstance(part, ToolUse)]
    stop = choice.stop or ("tool_calls" if calls else "stop")
    finish = FINISHES[stop]
    return {
        "index": index,
        "message": _message(choice, calls, context, legacy=legacy),
        "logprobs": msgspec.Raw(choice.logprobs) if choice.logprobs else None,
        "finish_reason": "function_call" if legacy and finish == "tool_calls" else finish,
    }


def _message(choice: Choice, calls: list[ToolUse], context: Context, *, legacy: bool) -> dict[str, object]:
    parts = choice.parts
    texts = [part for part in parts if isinstance(part, Text)]
    refusal = "".join(part.text for part in parts if isinstance(part, Refusal))
    text = "".join(part.text for part in texts)
    message: dict[str, object] = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
    }
    message |= write_thinking(part for part in parts if isinstance(part, Reasoning))
    if any(part.citations for part in texts):
        message["annotations"] = _annotations(texts)
    if images := [part for part in parts if isinstance(part, Media) and part.kind == "image"]:
        message["images"] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    if calls and legacy:
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        free = free_tools(context.call)
        message["tool_calls"] = [_use(call, free, f"call_{context.id}_{n}") for n, call in enumerate(calls)]
    return message


def _annotations(texts: list[Text]) -> list[object]:
    found = []
    at = 0
    for part in texts:
        end = at + len(part.text)
        found += [annotation(each, at, end) for each in part.citations if each.url or each.dialect == DIALECT]
        at = end
    return found


def _use(call: ToolUse, free: frozenset[str], made: str) -> dict[str, object]:
    name = flat_name(call.name, call.namespace)
    written: dict[str, object] = {"id": call.id or made, "type": "function"}
    if call.free or name in free:
        text = call.arguments if call.free else unwrapped(call.arguments)
        return written | {"type": "custom", "custom": {"name": name, "input": text}}
    written["function"] = {"name": name, "arguments": call.arguments}
    if call.signature is not None and call.signature.dialect == "gemini":
        written["extra_content"] = {"google": {"thought_signature": pack(call.signature)}}
    return written
