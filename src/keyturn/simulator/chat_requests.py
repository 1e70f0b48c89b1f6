"""Requests of OpenAI's older endpoints: Chat Completions, legacy completions, embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import signatures
from .answers import IMAGE_TOKENS, MESSAGE_TOKENS, Medium, Offer, Question, Result, Said, Unusable, tokens
from .checks import Asking, decoded, linked


def read_chat(body: Mapping[str, Any], asking: Asking) -> Question:
    """What a chat request asks for. Raises Unusable for what every provider refuses."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Unusable("Invalid 'messages': empty array. Expected an array with minimum length 1.")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise Unusable("Invalid type for 'messages[0]': expected an object with a role.")
    _check_calls(messages)
    if asking.persona.native == "gemini":
        _check_signed(messages, asking)
    turns = [_turn(message, place) for place, message in enumerate(messages)]
    tools = [_offer(tool, place) for place, tool in enumerate(body.get("tools") or [])]
    question = Question(turns, _tokens_of(body, messages), [tool for tool in tools if tool is not None], more=body)
    _choose(body.get("tool_choice"), question)
    _shape(body.get("response_format") or {}, question)
    question.parallel = body.get("parallel_tool_calls") is not False
    question.bound = max_output(body)
    question.stop = _stops(body.get("stop"))
    question.thinking = body.get("reasoning_effort") not in (None, "none")
    question.shown = asking.persona.name != "openai"  # which thinks, but does not show it here
    question.choices = body.get("n") or 1
    question.include_usage = (body.get("stream_options") or {}).get("include_usage") is True
    return question


def read_completion(body: Mapping[str, Any], asking: Asking) -> Question:
    """What a legacy completion asks for: text to go on from, or several."""
    prompt = body.get("prompt", "")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    texts = [text if isinstance(text, str) else json.dumps(text) for text in prompts]
    question = Question([Said("user", texts[-1] if texts else "")], sum(map(tokens, texts)), more=body)
    question.bound = max_output(body)
    question.stop = _stops(body.get("stop"))
    question.choices = (body.get("n") or 1) * max(1, len(texts))
    question.include_usage = (body.get("stream_options") or {}).get("include_usage") is True
    return question


def read_embeddings(body: Mapping[str, Any], asking: Asking) -> Question:
    if "input" not in body:
        raise Unusable("you must provide an input", "input")
    given = body["input"]
    items = given if isinstance(given, list) else [given]
    texts = [item if isinstance(item, str) else json.dumps(item) for item in items]
    return Question([], sum(map(tokens, texts)), more=body)


def max_output(body: Mapping[str, Any]) -> int | None:
    """The output bound that the request states."""
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    return bound if isinstance(bound, int) else None


def _check_calls(messages: Sequence[Mapping[str, Any]]) -> None:
    """Every call has its tool messages right behind it, and every tool message its call."""
    open_calls: list[str] = []
    for place, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise Unusable(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    f"messages.[{place}].role",
                )
            open_calls.remove(message["tool_call_id"])
            continue
        _check_answered(open_calls, place)
        calls = message.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and calls):
            raise Unusable(
                f"Invalid 'messages[{place}].tool_calls': empty array. Expected an array with minimum length 1.",
                f"messages[{place}].tool_calls",
            )
        for number, call in enumerate(calls or []):
            _check_call(call, f"messages[{place}].tool_calls[{number}]")
            open_calls.append(call["id"])
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: Sequence[str], place: int) -> None:
    if open_calls:
        raise Unusable(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}",
            f"messages.[{place}].role",
        )


def _check_call(call: Any, place: str) -> None:
    inner = call.get(call.get("type", "function")) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(call.get("id"), str) or not inner.get("name"):
        raise Unusable(f"Invalid value for '{place}': expected an id, a type and a function with a name.", place)
    given = inner.get("input") if call.get("type") == "custom" else inner.get("arguments")
    if not isinstance(given, str):
        raise Unusable(f"Invalid type for '{place}.function.arguments': expected a string.", place)


def _check_signed(messages: Sequence[Mapping[str, Any]], asking: Asking) -> None:
    """Gemini's thought signatures, which its OpenAI-compatible endpoint carries in `extra_content` of a call."""
    began = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=0)
    for place, message in enumerate(messages):
        for number, call in enumerate(message.get("tool_calls") or []):
            signature = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
            if signature is not None and not signatures.fits_call(asking.owner, asking.model, signature):
                raise Unusable("Corrupted thought signature.")
            if signature is None and number == 0 and place > began and "gemini-3" in asking.model:
                raise Unusable(
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                    "work correctly, and missing thought_signature may lead to degraded model performance."
                )


def _turn(message: Mapping[str, Any], place: int) -> Said:
    text = " ".join(_texts(message))
    media = tuple(_media(message, place))
    if message["role"] != "tool":
        role = "system" if message["role"] == "developer" else message["role"]
        return Said(role, text, (), media)
    if media:
        raise Unusable(
            f"Invalid 'messages[{place}]'. Image URLs are only allowed for messages with role 'user', but this message "
            "with role 'tool' contains an image URL.",
            f"messages.[{place}]",
        )
    return Said("user", "", (Result(text),))


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _media(message: Mapping[str, Any], place: int) -> Iterator[Medium]:
    content = message.get("content")
    for number, part in enumerate(content if isinstance(content, list) else []):
        if not isinstance(part, dict) or part.get("type") in ("text", "refusal", None):
            continue
        where = f"messages[{place}].content[{number}]"
        kind = part["type"]
        inner = part.get(kind)
        if kind not in ("image_url", "input_audio", "file", "video_url") or not isinstance(inner, dict):
            raise Unusable(f"Invalid value: '{kind}' at '{where}'.", where)
        medium = _medium(kind, inner)
        if medium is None:
            raise Unusable(
                f"Invalid '{where}.{kind}.url'. Expected a base64-encoded data URL with an image MIME type (e.g. "
                "'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), or an address.",
                where,
            )
        yield medium


def _medium(kind: str, inner: Mapping[str, Any]) -> Medium | None:
    if kind == "input_audio":
        content = decoded(inner.get("data"))
        return Medium("audio", f"audio/{inner.get('format')}", len(content)) if content else None
    if kind == "file":
        if "file_id" in inner:
            return Medium("document", "", where=str(inner["file_id"]))
        return linked("document", str(inner.get("file_data")))
    return linked("video" if kind == "video_url" else "image", str(inner.get("url")))


def _tokens_of(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> int:
    total = tokens(json.dumps(body["tools"])) if body.get("tools") else 0
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        images = sum(isinstance(part, dict) and part.get("type") not in ("text", None) for part in parts)
        total += MESSAGE_TOKENS + sum(map(tokens, _texts(message))) + IMAGE_TOKENS * images
        if message.get("tool_calls"):
            total += tokens(json.dumps(message["tool_calls"]))
    return total


def _offer(tool: Any, place: int) -> Offer | None:
    if not isinstance(tool, dict):
        raise Unusable(f"Invalid type for 'tools[{place}]': expected an object.", f"tools[{place}]")
    inner = tool.get(str(tool.get("type", "function")))
    if not isinstance(inner, dict) or not inner.get("name"):
        raise Unusable(f"Missing required parameter: 'tools[{place}].function'.", f"tools[{place}].function")
    return Offer(str(inner["name"]), inner.get("parameters"), tool.get("type") == "custom")


def _choose(choice: Any, question: Question) -> None:
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools")
        if isinstance(allowed, dict):
            question.mode = "any" if allowed.get("mode") == "required" else "auto"
            rows = allowed.get("tools") or []
        else:
            question.mode, rows = "any", [choice]
        question.names = [str((row.get("function") or row.get("custom") or {}).get("name")) for row in rows]
    elif choice == "none":
        question.mode = "none"
    elif choice == "required":
        question.mode = "any"


def _shape(wanted: Mapping[str, Any], question: Question) -> None:
    if wanted.get("type") == "json_object":
        question.json = True
    if wanted.get("type") == "json_schema":
        inner = wanted.get("json_schema") or {}
        question.schema = inner.get("schema") or {}


def _stops(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])
