"""An OpenAI Chat request, read whole into the neutral conversation."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from keyturn.core import Call, Foreign, Request, Shape, Thinking, Tool, ToolChoice

from .chat_messages import DIALECT, read_messages
from .fields import Fields, body_of, refuse

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_CHOICES: dict[str, Literal["auto", "any", "none"]] = {"auto": "auto", "required": "any", "none": "none"}
_READ = frozenset(
    """model messages tools functions tool_choice function_call parallel_tool_calls response_format reasoning_effort
    reasoning max_completion_tokens max_tokens temperature top_p top_k stop seed presence_penalty frequency_penalty n
    logprobs top_logprobs user safety_identifier prompt_cache_key verbosity service_tier stream
    stream_options""".split()
)
"""Members with a place in the neutral request; all others are OpenAI's own."""


def read_request(call: Call) -> Request:
    """The whole request. Raises BadRequest that names the place."""
    body = Fields(body_of(call))
    legacy = body.get("functions") is not None and body.get("tools") is None
    tools, hosted = _tools(body)
    return Request(
        DIALECT,
        call.model,
        read_messages(body),
        tools,
        hosted,
        choice=_choice(body),
        parallel=False if legacy else body.flag("parallel_tool_calls"),
        shape=_shape(body),
        thinking=_thinking(body),
        max_output=call.max_output,
        **sampling(body),
        top_k=body.whole("top_k"),
        logprobs=bool(body.flag("logprobs")),
        top_logprobs=body.whole("top_logprobs"),
        user=body.text("safety_identifier") or body.text("user"),
        cache_key=body.text("prompt_cache_key"),
        verbosity=body.text("verbosity"),
        tier=body.text("service_tier"),
        stream=call.stream,
        wants_usage=call.wants_usage,
        others=others(call, _READ),
    )


def _thinking(body: Fields) -> Thinking | None:
    """`reasoning_effort`, or `reasoning` as OpenRouter has it (docs: reasoning tokens), which also asks to see it."""
    effort: Any = body.one_of("reasoning_effort", _EFFORTS)
    asked = body.object("reasoning")
    if asked is None:
        return Thinking(effort) if effort else None
    effort = asked.one_of("effort", _EFFORTS) or effort
    if asked.flag("enabled") is False:
        effort = "none"
    return Thinking(effort or "", asked.whole("max_tokens"), shown=not asked.flag("exclude"))


def sampling(body: Fields) -> dict[str, Any]:
    """The fields of a Request that chat and legacy completions name alike."""
    n = body.whole("n")
    if n is not None and n < 1:
        refuse("n", "must be at least 1.")
    return {
        "temperature": body.number("temperature"),
        "top_p": body.number("top_p"),
        "stop": tuple(text for text in body.texts("stop") if text),
        "seed": body.whole("seed"),
        "presence_penalty": body.number("presence_penalty"),
        "frequency_penalty": body.number("frequency_penalty"),
        "n": n,
    }


def others(call: Call, known: frozenset[str]) -> dict[str, bytes]:
    """The members of *call* that are not *known*, as they were written."""
    return {name: text for name, text in call.members.items() if name not in known and text != b"null"}


def _tools(body: Fields) -> tuple[tuple[Tool, ...], tuple[Foreign, ...]]:
    tools, hosted = [], []
    for tool in body.objects("tools"):
        kind = tool.text("type", "function")
        if kind not in ("function", "custom"):
            hosted.append(Foreign(DIALECT, kind, msgspec.json.encode(tool.value)))
            continue
        inner = tool.object(kind)
        if inner is None:
            refuse(tool.at(kind), 'is missing. Send {"name": …}.')
        tools.append(_custom(inner) if kind == "custom" else _function(inner))
    if body.get("tools") is None:
        tools = [_function(function) for function in body.objects("functions")]
    return tuple(tools), tuple(hosted)


def _function(given: Fields) -> Tool:
    return Tool(
        given.needed_text("name"), given.text("description"), given.schema("parameters"), strict=given.flag("strict")
    )


def _custom(given: Fields) -> Tool:
    """A tool that takes plain text. Its format is kept flat, as OpenAI Responses writes it."""
    form = given.object("format")
    inner = form.object("grammar") if form is not None and form.get("type") == "grammar" else None
    schema = b"" if form is None else msgspec.json.encode(form.value)
    if inner is not None:
        schema = msgspec.json.encode({"type": "grammar", **inner.value})
    return Tool(given.needed_text("name"), given.text("description"), schema, free=True)


def _choice(body: Fields) -> ToolChoice | None:
    name = "tool_choice"
    given = body.get(name)
    if given is None and isinstance(body.get("function_call"), str):
        name = "function_call"
        given = body.get(name)
    if isinstance(given, str):
        return ToolChoice(_mode(body, name))
    if given is None:
        legacy = body.object("function_call")
        return None if legacy is None else ToolChoice("any", (legacy.needed_text("name"),))
    choice = Fields.of(given, name)
    kind = choice.needed_text("type", "Name the kind of the choice, such as function.")
    if kind in ("function", "custom"):
        return ToolChoice("any", (_name(choice),))
    if kind != "allowed_tools":
        refuse(choice.at("type"), f"cannot be {kind[:80]!r}; known are function, custom, allowed_tools.")
    allowed = choice.object("allowed_tools") or choice  # flat, as OpenAI Responses writes it
    mode: Literal["auto", "any", "none"] = (
        "auto" if allowed.get("mode") is None else _mode(allowed, "mode", ("auto", "required"))
    )
    return ToolChoice(mode, tuple(_name(tool) for tool in allowed.objects("tools")))


def _mode(holder: Fields, name: str, known: tuple[str, ...] = tuple(_CHOICES)) -> Literal["auto", "any", "none"]:
    """How tools are to be chosen; an empty string is none of the ways."""
    holder.needed_text(name, f"Known are {', '.join(known)}.")
    return _CHOICES[holder.one_of(name, known)]


def _name(tool: Fields) -> str:
    """The name of a tool in a choice: inside its kind, or flat."""
    inner = tool.object(tool.text("type", "function"))
    return (tool if inner is None else inner).needed_text("name")


def _shape(body: Fields) -> Shape | None:
    form = body.object("response_format")
    if form is None:
        return None
    kind = form.one_of("type", ("text", "json_object", "json_schema"), "text")
    if kind != "json_schema":
        return Shape("object") if kind == "json_object" else None
    given = form.object("json_schema")
    if given is None:
        refuse(form.at("json_schema"), 'is missing. Send {"name": …, "schema": …}.')
    schema = given.schema("schema")
    if not schema:
        return Shape("object")
    return Shape("schema", schema, given.text("name"), given.text("description"), given.flag("strict"))
