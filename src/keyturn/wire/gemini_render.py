"""The neutral request written as a Gemini generateContent body."""

from __future__ import annotations

from typing import Any

import msgspec

from keyturn.core import Request, Tool
from keyturn.errors import Untranslatable

from .dialect import Target
from .gemini_fields import DIALECT
from .gemini_schema import to_openapi
from .gemini_turns import TurnWriter, split_system, system_texts
from .lost import refuse_begun, refuse_lost
from .tools import flat_name

_LEVELS = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
"""Tokens of thinking for an effort, on models that are told a budget (docs: OpenAI compatibility)."""
_SMALL = 1024
"""Tokens that are left for the answer itself when a small `max_tokens` is raised."""
_MOST_STOPS = 5
_FREE = msgspec.Raw(
    b'{"type":"object","properties":{"input":{"type":"string","description":"The tool\'s input, as plain text."}},'
    b'"required":["input"]}'
)
_WORDS = {
    "thinking": {"openai_chat": "reasoning_effort", "openai_responses": "reasoning"},
    "max_output": {"openai_chat": "max_completion_tokens", "openai_responses": "max_output_tokens"},
    "tier": {"openai_chat": "service_tier", "openai_responses": "service_tier", "anthropic": "service_tier"},
    "user": {"anthropic": "metadata.user_id"},
    "cache": {
        "openai_chat": "prompt_cache_breakpoint",
        "openai_responses": "prompt_cache_breakpoint",
        "anthropic": "cache_control",
    },
    "cache_key": {"openai_chat": "prompt_cache_key", "openai_responses": "prompt_cache_key"},
    "parallel": {
        "openai_chat": "parallel_tool_calls",
        "openai_responses": "parallel_tool_calls",
        "anthropic": "tool_choice.disable_parallel_tool_use",
    },
}
"""What other dialects call a field."""


def write_request(request: Request, target: Target, notes: list[str]) -> dict[str, object]:
    """The members of the body; model and streaming stand in the path. *notes* gets what is lost.

    A small output limit is raised by what the thinking asked for may take, since the API counts thinking in it and
    would answer nothing. Raises BadRequest, and Untranslatable for what the client must not lose.
    """
    refuse_begun(request, target, "Gemini")
    body: dict[str, Any] = {}
    system, rest = split_system(request.messages)
    instruction = system_texts(system, notes)
    contents = TurnWriter(target, notes).write(rest)
    if not contents:  # `contents` must not be empty
        contents, instruction = [{"role": "user", "parts": instruction or [{"text": ""}]}], []
    body["contents"] = contents
    if instruction:
        body["systemInstruction"] = {"parts": instruction}
    _tools(request, target, body, notes)
    config = _sampling(request, target, notes)
    _shape(request, target, config)
    _thinking(request, target, config, notes)
    _note_losses(request, notes)
    body["generationConfig"] = config
    if request.dialect == DIALECT:
        for place, text in request.others.items():
            _put(body, place, msgspec.Raw(text))
    if not body["generationConfig"]:
        del body["generationConfig"]
    return body


def _word(request: Request, field: str) -> str:
    """What the client calls *field*."""
    return _WORDS.get(field, {}).get(request.dialect, field)


def _put(body: dict[str, Any], place: str, value: msgspec.Raw) -> None:
    *above, name = place.split(".") if place.startswith(("generationConfig.", "toolConfig.")) else [place]
    for step in above:
        body = body.setdefault(step, {})
    body[name] = value


def _tools(request: Request, target: Target, body: dict[str, Any], notes: list[str]) -> None:
    tools: list[Any] = []
    if request.tools:
        tools.append({"functionDeclarations": [_declared(tool, target) for tool in request.tools]})
        if any(tool.strict for tool in request.tools):
            notes.append("dropped strict: Gemini has no counterpart")
    for hosted in request.hosted:
        if hosted.dialect == DIALECT:
            tools.append(msgspec.Raw(hosted.raw))
        elif hosted.what.startswith("web_search") and not request.tools:
            tools.append({"googleSearch": {}})
        elif hosted.what.startswith("web_search"):
            notes.append(f"dropped tool {hosted.what}: Gemini does not search beside functions")
        else:
            notes.append(f"dropped tool {hosted.what}: Gemini has no counterpart")
    if tools:
        body["tools"] = tools
    if request.parallel is False:
        notes.append(f"dropped {_word(request, 'parallel')}: Gemini has no counterpart")
    if request.choice is not None and request.tools:
        mode, names = request.choice.mode, request.choice.names
        calling: dict[str, Any] = {"mode": mode.upper()}
        if names:
            calling["allowedFunctionNames"] = list(names)
            if mode == "auto":
                calling["mode"] = "VALIDATED"  # AUTO takes no list of names
        body["toolConfig"] = {"functionCallingConfig": calling}


def _declared(tool: Tool, target: Target) -> dict[str, Any]:
    name = flat_name(tool.name, tool.namespace)
    found: dict[str, Any] = {"name": name, "description": tool.description}
    if tool.free:
        if tool.schema:
            found["description"] = f"{tool.description}\nFormat of the input: {tool.schema.decode()}".strip()
        found["parametersJsonSchema"] = _FREE
        if not target.schemas:
            found["parameters"] = to_openapi(bytes(found.pop("parametersJsonSchema")), f"tools.{name}")
    elif tool.schema and target.schemas:
        found["parametersJsonSchema"] = msgspec.Raw(tool.schema)
    elif tool.schema:
        schema = to_openapi(tool.schema, f"tools.{name}")
        if schema.get("properties"):  # an object without properties is refused
            found["parameters"] = schema
    return found


def _sampling(request: Request, target: Target, notes: list[str]) -> dict[str, Any]:
    given = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "candidateCount": request.n,
        "maxOutputTokens": request.max_output,
        "stopSequences": list(request.stop) or None,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "seed": request.seed,
        "responseLogprobs": request.logprobs or None,
        "logprobs": request.top_logprobs or None,
    }
    if not target.sampling:
        for name in ("temperature", "topP", "topK"):
            if given.pop(name) is not None:
                notes.append(f"dropped {name}: {target.model} does not take it")
    if len(request.stop) > _MOST_STOPS:
        raise Untranslatable(
            f"`stop` has {len(request.stop)} sequences; Gemini takes at most {_MOST_STOPS}.", param="stop"
        )
    if isinstance(temperature := given.get("temperature"), float) and temperature > 2:
        given["temperature"] = 2.0
        notes.append("lowered temperature to 2: Gemini's highest")
    return {name: value for name, value in given.items() if value is not None}


def _shape(request: Request, target: Target, config: dict[str, Any]) -> None:
    if request.shape is None:
        return
    config["responseMimeType"] = "application/json"
    if request.shape.kind == "schema" and request.shape.schema:
        if target.schemas:
            config["responseJsonSchema"] = msgspec.Raw(request.shape.schema)
        else:
            config["responseSchema"] = to_openapi(request.shape.schema, "response_format")


def _thinking(request: Request, target: Target, config: dict[str, Any], notes: list[str]) -> None:
    asked = request.thinking
    if asked is None:
        return
    word = _word(request, "thinking")
    effort, budget = asked.effort, asked.budget
    if target.thinking == "none":
        if effort not in ("", "none") or budget:
            notes.append(f"dropped {word}: {target.model} does not think")
        return
    found: dict[str, Any] = {}
    if target.thinking == "effort":
        effort = effort or _effort(budget)
        if effort:
            found["thinkingLevel"] = _LEVELS[effort]
        if effort == "none":
            notes.append(f"changed {word} none to minimal: Gemini 3 cannot stop thinking")
    elif budget is not None or effort:
        found["thinkingBudget"] = budget if budget is not None else BUDGETS[effort]
    elif request.dialect != DIALECT:
        found["thinkingBudget"] = -1
    if asked.shown:
        found["includeThoughts"] = True
    if found:
        config["thinkingConfig"] = found
    reserve = budget if budget is not None else BUDGETS[effort] if effort else 0
    limit = request.max_output
    if limit and reserve and limit < reserve + _SMALL and request.dialect != DIALECT:
        raised = limit + reserve
        if target.max_output:
            raised = max(limit, min(raised, target.max_output))
        config["maxOutputTokens"] = raised
        notes.append(f"raised {_word(request, 'max_output')} from {limit} to {raised}: Gemini counts thinking in it")


def _effort(budget: int | None) -> Any:
    """The effort that *budget* stands for; empty without one."""
    if budget is None:
        return ""
    steps = ((1, "none"), (1024, "minimal"), (2048, "low"), (10240, "medium"))
    return next((effort for below, effort in steps if budget < below), "high")


def _note_losses(request: Request, notes: list[str]) -> None:
    """Tell what the API has no counterpart for. Raises Untranslatable for audio, which the client waits for."""
    for field in ("user", "cache_key", "verbosity", "tier"):
        if getattr(request, field):
            notes.append(f"dropped {_word(request, field)}: Gemini has no counterpart")
    marked = any(getattr(part, "cache", "") for message in request.messages for part in message.parts)
    if request.cache or marked or any(tool.cache for tool in request.tools):
        notes.append(f"dropped {_word(request, 'cache')}: Gemini caches prompts without marks")
    if request.dialect == DIALECT:
        return
    refuse_lost(request, "Gemini")
    for name in request.others:
        notes.append(f"dropped {name}: Gemini has no counterpart")
