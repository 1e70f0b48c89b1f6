"""A neutral request written for an upstream that speaks Responses."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from keyturn.core import Message, Request, Text, Thinking, Tool, ToolChoice
from keyturn.errors import Untranslatable

from .dialect import Target
from .lost import refuse_begun, refuse_lost
from .responses_items import ItemWriter
from .responses_parse import DIALECT
from .responses_request import ENCRYPTED, LOGPROBS
from .tools import flat_name

_LEAST_OUTPUT = 16
_LONGEST_USER = 64
_SHARED = ("metadata", "prompt_cache_options", "prompt_cache_retention")
"""Members of OpenAI Chat that mean the same here."""
_CAMEL = {"top_k": "topK", "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty"}
_MODES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = ("auto", "default", "flex", "priority", "scale", "fast")
_STOPS = {"anthropic": "stop_sequences", "gemini": "generationConfig.stopSequences"}
_EMPTY = b'{"type":"object","properties":{}}'

_read_list = msgspec.json.Decoder(list[str]).decode


def write_request(request: Request, target: Target, notes: list[str]) -> dict[str, object]:
    """The members of the body. What is dropped goes into *notes*. Raises Untranslatable.

    `store` is always false. Thinking is asked for in encrypted form too, since without kept responses it can only so
    be sent back.
    """
    _refuse_lost(request, target)
    body: dict[str, object] = {"model": target.model}
    messages = request.messages
    place = 0
    if text := _instructions(messages):
        body["instructions"] = text
        place = 1
    items = ItemWriter(request, target.origin, target.cache_marks, notes)
    body["input"] = items.write(messages[place:], place)
    if request.cache and not target.cache_marks:
        items.note_marks()
    body["store"] = False
    if request.stream:
        body["stream"] = True
    include: list[str] = []
    _put_tools(request, body, notes)
    _put_thinking(request.thinking, target, body, include, notes)
    _put_text(request, body)
    _put_limits(request, target, body, notes)
    _put_sampling(request, target, body, include, notes)
    _put_names(request, body, notes)
    _put_others(request, body, include, notes)
    if include:
        body["include"] = include
    return body


def _refuse_lost(request: Request, target: Target) -> None:
    """What the client must not lose, and Responses cannot say."""
    if request.stop:
        _lost(_STOPS.get(request.dialect, "stop"), "has no stop sequences")
    if request.n is not None and request.n > 1:
        _lost("generationConfig.candidateCount" if request.dialect == "gemini" else "n", "gives one answer")
    if request.shape is not None and request.shape.kind == "schema" and not target.schemas:
        _lost("response_format", "here takes no JSON Schema")
    refuse_lost(request, "OpenAI Responses")
    refuse_begun(request, target, "OpenAI Responses")


def _lost(name: str, why: str) -> NoReturn:
    raise Untranslatable(f"`{name}` cannot be translated: OpenAI Responses {why}. Leave it out.", param=name)


def _instructions(messages: tuple[Message, ...]) -> str:
    """The system prompt when it is one text, the first message alone, and bears no cache mark."""
    if not messages or messages[0].role != "system" or len(messages[0].parts) != 1:
        return ""
    part = messages[0].parts[0]
    if not isinstance(part, Text) or part.cache or (len(messages) > 1 and messages[1].role == "system"):
        return ""
    return part.text


def _put_tools(request: Request, body: dict[str, object], notes: list[str]) -> None:
    own = request.dialect == DIALECT
    tools: list[object] = []
    spaces: dict[str, list[object]] = {}
    for tool in request.tools:
        written = _tool(tool, own)
        if not tool.namespace:
            tools.append(written)
        elif tool.namespace in spaces:
            spaces[tool.namespace].append(written)
        else:
            spaces[tool.namespace] = [written]
            said = msgspec.Raw(request.others.get(f"tools.{tool.namespace}.description", b'""'))
            inner = spaces[tool.namespace]
            tools.append({"type": "namespace", "name": tool.namespace, "description": said, "tools": inner})
    for hosted in request.hosted:
        if hosted.dialect == DIALECT:
            tools.append(msgspec.Raw(hosted.raw))
        else:
            notes.append(f"dropped tools.{hosted.what}: only its own provider runs it")
    if tools:
        body["tools"] = tools
    if request.choice is not None and (tools or own):
        kept = request.others.get("tool_choice") if own else None
        body["tool_choice"] = msgspec.Raw(kept) if kept else _choice(request.choice, request.tools)
    if request.parallel is not None and tools:
        body["parallel_tool_calls"] = request.parallel


def _tool(tool: Tool, own: bool) -> dict[str, object]:
    """One tool. Responses are strict unless told otherwise, the other dialects are not."""
    written: dict[str, object] = {"type": "custom" if tool.free else "function", "name": tool.name}
    if tool.description:
        written["description"] = tool.description
    if tool.free:
        if tool.schema:
            written["format"] = msgspec.Raw(tool.schema)
        return written
    if tool.schema or not own:
        written["parameters"] = msgspec.Raw(tool.schema or _EMPTY)
    if tool.strict is not None or not own:
        written["strict"] = bool(tool.strict)
    return written


def _choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> object:
    mode = _MODES[choice.mode]
    if not choice.names or choice.mode == "none":
        return mode
    free = {flat_name(tool.name, tool.namespace) for tool in tools if tool.free}
    named = [{"type": "custom" if name in free else "function", "name": name} for name in choice.names]
    if len(named) == 1 and choice.mode == "any":
        return named[0]
    return {"type": "allowed_tools", "mode": mode, "tools": named}


def _put_thinking(
    thinking: Thinking | None, target: Target, body: dict[str, object], include: list[str], notes: list[str]
) -> None:
    if thinking is None:
        return
    if target.thinking == "none":
        notes.append("dropped reasoning: the model does not think")
        return
    effort = thinking.effort or _effort(thinking.budget)
    asked: dict[str, object] = {"effort": effort} if effort else {}
    if thinking.shown and effort != "none":
        asked["summary"] = "auto"
    if asked:
        body["reasoning"] = asked
    if effort != "none":
        include.append(ENCRYPTED)


def _effort(budget: int | None) -> str:
    if budget is None or budget < 0:
        return ""
    if budget == 0:
        return "none"
    if budget < 2048:
        return "low"
    if budget < 10_000:
        return "medium"
    return "high" if budget < 24_000 else "xhigh"


def _put_text(request: Request, body: dict[str, object]) -> None:
    text: dict[str, object] = {}
    shape = request.shape
    if shape is not None and shape.kind == "object":
        text["format"] = {"type": "json_object"}
    elif shape is not None:
        form: dict[str, object] = {"type": "json_schema", "name": shape.name or "answer"}
        if shape.description:
            form["description"] = shape.description
        text["format"] = {**form, "schema": msgspec.Raw(shape.schema), "strict": bool(shape.strict)}
    if request.verbosity:
        text["verbosity"] = request.verbosity
    if text:
        body["text"] = text


def _put_limits(request: Request, target: Target, body: dict[str, object], notes: list[str]) -> None:
    most = request.max_output
    if most is None:
        return
    word = {"anthropic": "max_tokens", "gemini": "maxOutputTokens"}.get(request.dialect, "max_output_tokens")
    if target.max_output and most > target.max_output:
        most = target.max_output
        notes.append(f"lowered {word} to {most}: the model's largest output")
    if most < _LEAST_OUTPUT:
        most = _LEAST_OUTPUT
        notes.append(f"raised {word} to {most}: OpenAI Responses takes no less")
    body["max_output_tokens"] = most


def _put_sampling(
    request: Request, target: Target, body: dict[str, object], include: list[str], notes: list[str]
) -> None:
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None and target.sampling:
            body[name] = value
        elif value is not None:
            notes.append(f"dropped {name}: the model does not take it")
    for name in ("top_k", "seed", "presence_penalty", "frequency_penalty"):
        if getattr(request, name) is not None:
            word = _CAMEL.get(name, name) if request.dialect == "gemini" else name
            notes.append(f"dropped {word}: OpenAI Responses has no counterpart")
    if request.logprobs:
        include.append(LOGPROBS)
        if request.top_logprobs is not None:
            body["top_logprobs"] = request.top_logprobs


def _put_names(request: Request, body: dict[str, object], notes: list[str]) -> None:
    if request.cache_key:
        body["prompt_cache_key"] = request.cache_key
    if 0 < len(request.user) <= _LONGEST_USER:
        body["safety_identifier"] = request.user
    elif request.user:
        notes.append(f"dropped user: OpenAI takes at most {_LONGEST_USER} characters")
    if request.tier in _TIERS or (request.tier and request.dialect == DIALECT):
        body["service_tier"] = request.tier
    elif request.tier:
        notes.append("dropped service_tier: OpenAI Responses has no counterpart")


def _put_others(request: Request, body: dict[str, object], include: list[str], notes: list[str]) -> None:
    """Members that only one dialect knows: ours go back, under `text` and `reasoning` too, others are told."""
    own = request.dialect == DIALECT
    for name, value in request.others.items():
        outer, _, inner = name.partition(".")
        if not own:
            if request.dialect == "openai_chat" and name in _SHARED:
                body[name] = msgspec.Raw(value)
            else:
                notes.append(f"dropped {name}: OpenAI Responses has no counterpart")
        elif name == "include":
            include[:0] = [each for each in _read_list(value) if each not in include]
        elif inner and outer in ("text", "reasoning"):
            held = body.setdefault(outer, {}) if outer == "text" else body.get(outer)
            if isinstance(held, dict):
                held[inner] = msgspec.Raw(value)
        elif outer not in ("tools", "tool_choice"):
            body[name] = msgspec.Raw(value)
