"""Gemini generateContent requests read whole, into the neutral request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from keyturn.core import Call, Effort, Foreign, Request, Shape, Thinking, Tool, ToolChoice
from keyturn.errors import BadRequest

from .fields import body_of, refuse
from .gemini_contents import read_contents, read_system
from .gemini_fields import DIALECT, GeminiFields, camel, camel_members
from .gemini_schema import to_json_schema

_READ = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "model"})
_CONFIG = frozenset(
    """temperature topP topK candidateCount maxOutputTokens stopSequences responseLogprobs logprobs presencePenalty
    frequencyPenalty seed responseMimeType responseSchema responseJsonSchema responseFormat thinkingConfig""".split()
)
"""Members of `generationConfig` that are translated."""
_THINKING = frozenset({"includeThoughts", "thinkingBudget", "thinkingLevel"})
_MODES = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
_LEVELS: dict[str, Effort] = {
    "THINKING_LEVEL_UNSPECIFIED": "",
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
    "XHIGH": "xhigh",
}
_JSON = "application/json"


def read_request(call: Call) -> Request:
    """The whole request of *call*, also that of a `countTokens`. Raises BadRequest that names the field."""
    try:
        return _read(call)
    except RecursionError:
        raise BadRequest("The request is nested too deeply. Flatten it.") from None


def _read(call: Call) -> Request:
    given = body_of(call)
    inner = given.get("generateContentRequest")
    if inner is None:
        body = GeminiFields(given)
    else:
        body = GeminiFields(GeminiFields.of(inner, "generateContentRequest").value, "generateContentRequest")
    others = {
        name: msgspec.json.encode(value)
        for name, value in camel_members(body.value).items()
        if name not in _READ and value is not None
    }
    tools, hosted = _tools(body)
    config = body.inner("generationConfig") or GeminiFields({}, body.at("generationConfig"))
    _keep_others("generationConfig", config.value, _CONFIG, others)
    max_output = config.whole("maxOutputTokens")
    if max_output is not None and max_output < 1:
        refuse(config.at("maxOutputTokens"), "must be at least 1.")
    return Request(
        DIALECT,
        call.model,
        (*read_system(body), *read_contents(body)),
        tools=tools,
        hosted=hosted,
        choice=_choice(body, others),
        shape=_shape(config, others),
        thinking=_thinking(config, others),
        max_output=max_output,
        temperature=config.number("temperature"),
        top_p=config.number("topP"),
        top_k=config.whole("topK"),
        stop=config.texts("stopSequences"),
        seed=config.whole("seed"),
        presence_penalty=config.number("presencePenalty"),
        frequency_penalty=config.number("frequencyPenalty"),
        n=config.whole("candidateCount"),
        logprobs=bool(config.flag("responseLogprobs")),
        top_logprobs=config.whole("logprobs"),
        stream=call.stream,
        others=others,
    )


def _keep_others(place: str, given: Mapping[str, Any], known: frozenset[str], others: dict[str, bytes]) -> None:
    """Put the members that nobody else knows into *others*, each by its whole place."""
    for name, value in camel_members(given).items():
        if name not in known and value is not None:
            others[f"{place}.{name}"] = msgspec.json.encode(value)


def _tools(body: GeminiFields) -> tuple[tuple[Tool, ...], tuple[Foreign, ...]]:
    tools: list[Tool] = []
    hosted: list[Foreign] = []
    for given in body.inners("tools"):
        for declared in given.inners("functionDeclarations"):
            name = declared.needed_text("name", "Name the function.")
            schema = declared.schema("parametersJsonSchema")
            if not schema and (parameters := declared.object("parameters")) is not None:
                schema = to_json_schema(declared.at("parameters"), parameters.value)
            tools.append(Tool(name, declared.text("description"), schema))
        for name, value in given.value.items():
            if camel(name) != "functionDeclarations" and value is not None:
                hosted.append(Foreign(DIALECT, camel(name), msgspec.json.encode({camel(name): value})))
    return tuple(tools), tuple(hosted)


def _choice(body: GeminiFields, others: dict[str, bytes]) -> ToolChoice | None:
    config = body.inner("toolConfig")
    if config is None:
        return None
    _keep_others("toolConfig", config.value, frozenset({"functionCallingConfig"}), others)
    calling = config.inner("functionCallingConfig")
    if calling is None:
        return None
    place = "toolConfig.functionCallingConfig"
    _keep_others(place, calling.value, frozenset({"mode", "allowedFunctionNames"}), others)
    mode = calling.text("mode").upper()
    if mode and mode not in _MODES:
        refuse(calling.at("mode"), f"cannot be {mode[:80]!r}; known are AUTO, ANY, NONE, VALIDATED.")
    names = calling.texts("allowedFunctionNames")
    if mode in ("", "MODE_UNSPECIFIED"):
        return ToolChoice("auto", names) if names else None
    if mode == "VALIDATED":  # it asks for arguments that fit their schema; otherwise it is AUTO
        others[f"{place}.mode"] = b'"VALIDATED"'
    return ToolChoice("any" if mode == "ANY" else "none" if mode == "NONE" else "auto", names)


def _shape(config: GeminiFields, others: dict[str, bytes]) -> Shape | None:
    mime = config.text("responseMimeType")
    schema = config.schema("responseJsonSchema")
    older = config.object("responseSchema")
    if not schema and older is not None:
        schema = to_json_schema(config.at("responseSchema"), older.value)
    if mime not in ("", "text/plain", _JSON):  # text/x.enum: an answer in plain text
        others["generationConfig.responseMimeType"] = msgspec.json.encode(mime)
        if older is not None:
            others["generationConfig.responseSchema"] = msgspec.json.encode(older.value)
        return None
    if schema:
        return Shape("schema", schema)
    if config.get("responseFormat") is not None:
        formats = config.inners("responseFormat")
        texts = [text for each in formats if (text := each.inner("text")) is not None]
        if len(texts) != len(formats):
            others["generationConfig.responseFormat"] = config.raw("responseFormat")
        for text in texts:
            if schema := text.schema("jsonSchema") or text.schema("schema"):
                return Shape("schema", schema)
            mime = mime or text.text("mimeType")
    return Shape("object") if mime.lower() in (_JSON, "application_json") else None


def _thinking(config: GeminiFields, others: dict[str, bytes]) -> Thinking | None:
    given = config.inner("thinkingConfig")
    if given is None:
        return None
    _keep_others("generationConfig.thinkingConfig", given.value, _THINKING, others)
    budget, level, shown = (
        given.whole("thinkingBudget"),
        given.text("thinkingLevel").upper(),
        given.flag("includeThoughts"),
    )
    if level and level not in _LEVELS:
        refuse(given.at("thinkingLevel"), f"cannot be {level[:80]!r}; known are {', '.join(list(_LEVELS)[1:])}.")
    effort = _LEVELS.get(level, "")
    if effort and budget is not None:
        refuse(given.place, "has both `thinkingLevel` and `thinkingBudget`. Send one of them.")
    if budget is not None and budget < 0:  # -1: as much as the model likes
        others["generationConfig.thinkingConfig.thinkingBudget"] = b"-1"
        budget = None
    if not effort and budget is None and shown is None:
        return Thinking() if others.get("generationConfig.thinkingConfig.thinkingBudget") else None
    return Thinking(effort, budget, shown)
