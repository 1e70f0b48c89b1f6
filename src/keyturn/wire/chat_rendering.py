"""A request of any dialect, written for an upstream that speaks OpenAI Chat."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from keyturn.core import Request, Shape, Thinking, Tool, ToolChoice
from keyturn.errors import Untranslatable

from .beginning import mark_begun
from .chat_messages import DIALECT
from .chat_turns import Turns
from .dialect import Target
from .lost import refuse_begun, refuse_lost
from .tools import flat_name

_NO_ARGUMENTS = Raw(b'{"type":"object","properties":{}}')
_FREE = Raw(b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}')
"""The arguments of a function that stands for a tool that takes plain text."""
_BUDGETS = ((1, "none"), (2048, "low"), (10_000, "medium"), (24_000, "high"))
"""Below so many tokens of thinking, this effort."""
_WORDS = {
    "anthropic": {"thinking": "thinking", "top_k": "top_k", "marks": "cache_control", "max_output": "max_tokens"},
    "gemini": {
        "thinking": "generationConfig.thinkingConfig",
        "top_k": "generationConfig.topK",
        "top_p": "generationConfig.topP",
        "temperature": "generationConfig.temperature",
        "max_output": "generationConfig.maxOutputTokens",
    },
    "openai_responses": {"thinking": "reasoning", "max_output": "max_output_tokens"},
}
_OWN = {"thinking": "reasoning_effort", "marks": "prompt_cache_breakpoint", "max_output": "max_completion_tokens"}


def write_request(request: Request, target: Target, notes: list[str]) -> dict[str, object]:
    """The members of the body for *target*. What is dropped goes into *notes*. Raises Untranslatable."""
    body: dict[str, object] = {"model": target.model, "messages": Turns(request, target, notes).write(request.messages)}
    _tools(request, body, notes)
    if request.shape is not None:
        body["response_format"] = _shape(request.shape, target)
    _thinking(request, target, body, notes)
    if request.max_output is not None:
        body["max_completion_tokens"] = _max_output(request, request.max_output, target, notes)
    _sampling(request, target, body, notes)
    for name, value in (
        ("stop", list(request.stop)),
        ("seed", request.seed),
        ("presence_penalty", request.presence_penalty),
        ("frequency_penalty", request.frequency_penalty),
        ("n", request.n),
        ("logprobs", request.logprobs or None),
        ("top_logprobs", request.top_logprobs if request.logprobs else None),
        ("user", request.user),
        ("prompt_cache_key", request.cache_key),
        ("verbosity", request.verbosity),
        ("service_tier", request.tier),
    ):
        if value not in (None, "", []):
            body[name] = value
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    _others(request, target, body, notes)
    if request.begun:
        refuse_begun(request, target, "OpenAI Chat")
        mark_begun(body, target)
    return body


def word(request: Request, field: str) -> str:
    """What the client itself calls a field of the neutral request."""
    return _WORDS.get(request.dialect, {}).get(field) or _OWN.get(field, field)


def effort_of(thinking: Thinking) -> str:
    """How much to think, as a level; empty: as the model likes."""
    if thinking.effort or thinking.budget is None:
        return thinking.effort
    return next((effort for below, effort in _BUDGETS if thinking.budget < below), "xhigh")


def _thinking(request: Request, target: Target, body: dict[str, object], notes: list[str]) -> None:
    effort = effort_of(request.thinking) if request.thinking is not None else ""
    if not effort:
        return
    if target.thinking != "none":
        body["reasoning_effort"] = effort
    elif effort != "none":
        notes.append(f"dropped {word(request, 'thinking')}: this model does not think")


def _max_output(request: Request, given: int, target: Target, notes: list[str]) -> int:
    if not target.max_output or given <= target.max_output:
        return given
    notes.append(f"lowered {word(request, 'max_output')} to {target.max_output}: the model's largest output")
    return target.max_output


def _sampling(request: Request, target: Target, body: dict[str, object], notes: list[str]) -> None:
    for name, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is not None and target.sampling:
            body[name] = value
        elif value is not None:
            notes.append(f"dropped {word(request, name)}: this model refuses it")
    if request.top_k is not None:
        notes.append(f"dropped {word(request, 'top_k')}: OpenAI Chat has no counterpart")


def _shape(shape: Shape, target: Target) -> dict[str, object]:
    if shape.kind == "object":
        return {"type": "json_object"}
    if not target.schemas:
        raise Untranslatable("`response_format` asks for a JSON Schema, which this model cannot answer by.")
    form: dict[str, object] = {"name": shape.name or "answer", "schema": Raw(shape.schema)}
    if shape.description:
        form["description"] = shape.description
    if shape.strict is not None:
        form["strict"] = shape.strict
    return {"type": "json_schema", "json_schema": form}


def _tools(request: Request, body: dict[str, object], notes: list[str]) -> None:
    own = request.dialect == DIALECT
    choice = request.choice
    tools = request.tools
    if choice is not None and choice.names and not own:  # other servers do not know `allowed_tools`
        names = {*choice.names}
        named = (t for t in tools if t.name in names or flat_name(t.name, t.namespace) in names)
        tools = tuple(named) or tools
        choice = ToolChoice(choice.mode, (tools[0].name,) if len(tools) == 1 and choice.mode == "any" else ())
    written = [_tool(tool, own=own) for tool in tools]
    for hosted in request.hosted:
        if own and hosted.dialect == DIALECT:
            written.append(Raw(hosted.raw))
        else:
            notes.append(f"dropped {hosted.what}: OpenAI Chat has no counterpart of a provider's own tool")
    if not written:
        return
    body["tools"] = written
    if choice is not None:
        body["tool_choice"] = _choice(choice, tools)
    if request.parallel is not None:
        body["parallel_tool_calls"] = request.parallel


def _tool(tool: Tool, *, own: bool) -> Any:
    function: dict[str, object] = {"name": flat_name(tool.name, tool.namespace)}
    if tool.description:
        function["description"] = tool.description
    if tool.free and own:
        if tool.schema:
            function["format"] = _format(tool.schema)
        return {"type": "custom", "custom": function}
    if tool.free:
        grammar = msgspec.json.decode(tool.schema) if tool.schema else {}
        if isinstance(grammar, dict) and isinstance(rules := grammar.get("definition"), str):
            lead = f"{tool.description}\n\n" if tool.description else ""
            function["description"] = f"{lead}`input` follows this grammar:\n{rules}"
        function["parameters"] = _FREE
    else:
        function["parameters"] = Raw(tool.schema) if tool.schema else _NO_ARGUMENTS
        if tool.strict is not None:
            function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _format(schema: bytes) -> object:
    """A free tool's format: OpenAI Chat nests what OpenAI Responses writes flat."""
    flat = msgspec.json.decode(schema)
    if not isinstance(flat, dict) or flat.get("type") != "grammar":
        return Raw(schema)
    return {"type": "grammar", "grammar": {name: value for name, value in flat.items() if name != "type"}}


def _choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> object:
    mode = "required" if choice.mode == "any" else choice.mode
    if not choice.names:
        return mode
    free = {tool.name for tool in tools if tool.free}
    flat = {tool.name: flat_name(tool.name, tool.namespace) for tool in tools}
    named: list[dict[str, object]] = []
    for name in choice.names:
        kind = "custom" if name in free else "function"
        named.append({"type": kind, kind: {"name": flat.get(name, name)}})
    if len(named) == 1 and choice.mode == "any":
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


def _others(request: Request, target: Target, body: dict[str, object], notes: list[str]) -> None:
    if request.dialect != DIALECT:
        refuse_lost(request, "OpenAI Chat")
    for name, value in request.others.items():
        if request.dialect == DIALECT:
            body.setdefault(name, Raw(value))
        else:
            notes.append(f"dropped {name}: OpenAI Chat has no counterpart")
    marked = request.cache or any(getattr(part, "cache", "") for turn in request.messages for part in turn.parts)
    if not target.cache_marks and (marked or any(tool.cache for tool in request.tools)):
        notes.append(f"dropped {word(request, 'marks')}: prompts are cached without marks here")
