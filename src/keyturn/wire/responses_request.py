"""A client's Responses request, read into the neutral one: instructions, tools, choice, shape, thinking, the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from keyturn.core import Call, Foreign, Message, Request, Shape, Text, Thinking, Tool, ToolChoice

from .fields import Fields, body_of, refuse
from .responses_input import read_input, whole
from .responses_parse import DIALECT
from .tools import flat_name

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
"""What `include` asks for logprobs with, and for thinking in a form that can be sent back."""
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES = ("auto", "concise", "detailed", "none")
_MODES: dict[str, Literal["auto", "any", "none"]] = {"auto": "auto", "required": "any", "none": "none"}
_READ = frozenset(
    """model input instructions tools tool_choice parallel_tool_calls text reasoning max_output_tokens temperature top_p
    top_logprobs prompt_cache_key user safety_identifier service_tier store stream""".split()
)
"""Members that have a place in the neutral request; the rest only Responses know."""


def read_request(call: Call) -> Request:
    """The whole request. Raises BadRequest that names the field."""
    body = Fields(body_of(call))
    others = {name: text for name, text in call.members.items() if name not in _READ and text != b"null"}
    tools, hosted = _tools(body, others)
    shape, verbosity = _shape(body, others)
    thinking = _thinking(body, others)
    include = body.texts("include")
    asked = {LOGPROBS, ENCRYPTED} if thinking is not None else {LOGPROBS}
    if include:
        others["include"] = msgspec.json.encode([each for each in include if each not in asked])
    if others.get("include") == b"[]":
        del others["include"]
    top_logprobs = body.whole("top_logprobs")
    return Request(
        DIALECT,
        call.model,
        (*_instructions(body), *read_input(body)),
        tools,
        hosted,
        _choice(body, tools, others),
        body.flag("parallel_tool_calls"),
        shape,
        thinking,
        body.whole("max_output_tokens"),
        body.number("temperature"),
        body.number("top_p"),
        logprobs=LOGPROBS in include or bool(top_logprobs),
        top_logprobs=top_logprobs,
        user=body.text("safety_identifier") or body.text("user"),
        cache_key=body.text("prompt_cache_key"),
        verbosity=verbosity,
        tier=body.text("service_tier"),
        stream=call.stream,
        others=others,
    )


def _instructions(body: Fields) -> Iterator[Message]:
    if text := body.text("instructions"):
        yield Message("system", (Text(text),))


def _tools(body: Fields, others: dict[str, bytes]) -> tuple[tuple[Tool, ...], tuple[Foreign, ...]]:
    tools: list[Tool] = []
    hosted: list[Foreign] = []
    for tool in body.objects("tools"):
        kind = tool.needed_text("type", "It is function, custom, namespace, or the name of a hosted tool.")
        if kind in ("function", "custom"):
            tools.append(_tool(tool, kind))
        elif kind == "namespace":
            name = tool.needed_text("name")
            if tool.text("description"):
                others[f"tools.{name}.description"] = tool.raw("description")
            for inner in tool.objects("tools"):
                inner_kind = inner.text("type", "function")
                if inner_kind not in ("function", "custom"):
                    refuse(inner.at("type"), f"cannot be {inner_kind[:80]!r}; a namespace holds function and custom.")
                tools.append(_tool(inner, inner_kind, name))
        else:
            hosted.append(Foreign(DIALECT, kind, whole(tool)))
    return tuple(tools), tuple(hosted)


def _tool(tool: Fields, kind: str, namespace: str = "") -> Tool:
    hint = ""
    if tool.get("function") is not None:
        hint = "Here a function's name, description and parameters stand in the tool itself, not under `function`."
    name = tool.needed_text("name", hint)
    free = kind == "custom"
    schema = tool.schema("format" if free else "parameters")
    return Tool(name, tool.text("description"), schema, tool.flag("strict"), free, namespace)


def _choice(body: Fields, tools: tuple[Tool, ...], others: dict[str, bytes]) -> ToolChoice | None:
    """One that speaks of tools other than functions is also kept among *others*, as is one that leaves out a namespace:
    the way back into Responses loses nothing of it."""
    given = body.get("tool_choice")
    if given is None:
        return None
    if isinstance(given, str):
        return ToolChoice(_mode(body, "tool_choice"))
    choice = Fields.of(given, "tool_choice")
    kind = choice.needed_text("type")
    mode: Literal["auto", "any", "none"] = "any" if kind in ("function", "custom") else "auto"
    given_tools = [choice] if mode == "any" else []
    if kind == "allowed_tools":
        mode, given_tools = _mode(choice, "mode"), list(choice.objects("tools"))
    listed = [each for each in given_tools if each.text("type") in ("function", "custom")]
    named = _named(tools)
    names = tuple(_chosen(each, named) for each in listed)
    if not listed or len(listed) < len(given_tools) or any(tool.namespace for tool in tools):
        others["tool_choice"] = whole(choice)
    return ToolChoice(mode, names)


def _mode(choice: Fields, name: str) -> Literal["auto", "any", "none"]:
    return _MODES[choice.one_of(name, _MODES) or "auto"]


def _named(tools: tuple[Tool, ...]) -> dict[tuple[str, str], str]:
    """The flat names of *tools* by name and namespace, and by what may stand for them: a namespace need not be stated,
    but a name that is whole without one goes before."""
    found: dict[tuple[str, str], str] = {}
    for tool in tools:
        flat = flat_name(tool.name, tool.namespace)
        found.setdefault((tool.name, tool.namespace), flat)
        found.setdefault((flat, ""), flat)
    for tool in tools:
        found.setdefault((tool.name, ""), flat_name(tool.name, tool.namespace))
    return found


def _chosen(choice: Fields, named: dict[tuple[str, str], str]) -> str:
    """The flat name of the tool that is meant."""
    name = choice.needed_text("name")
    flat = named.get((name, choice.text("namespace")))
    if flat is None:
        refuse(choice.at("name"), f"is {name[:80]!r}, and none of the `tools` is called so.")
    return flat


def _shape(body: Fields, others: dict[str, bytes]) -> tuple[Shape | None, str]:
    text = body.object("text")
    if text is None:
        return None, ""
    _keep(text, ("format", "verbosity"), others)
    verbosity = text.one_of("verbosity", ("low", "medium", "high"))
    form = text.object("format")
    kind = form.one_of("type", ("text", "json_object", "json_schema"), "text") if form else "text"
    if form is None or kind == "text":
        return None, verbosity
    if kind == "json_object":
        return Shape("object"), verbosity
    if form.get("json_schema") is not None:
        refuse(form.at("json_schema"), "is not known here: name, schema and strict stand in `text.format` itself.")
    schema = form.schema("schema")
    if not schema:
        refuse(form.at("schema"), "is missing. Send the JSON Schema of the answer.")
    return Shape("schema", schema, form.text("name"), form.text("description"), form.flag("strict")), verbosity


def _thinking(body: Fields, others: dict[str, bytes]) -> Thinking | None:
    given = body.object("reasoning")
    if given is None:
        return None
    effort = given.one_of("effort", _EFFORTS)
    summary = given.one_of("summary", _SUMMARIES) or given.one_of("generate_summary", _SUMMARIES)
    _keep(given, ("effort", "summary", "generate_summary"), others)
    if summary in ("concise", "detailed"):
        others["reasoning.summary"] = given.raw("summary") or given.raw("generate_summary")
    if not effort and not summary:
        return None
    return Thinking(effort, shown=summary != "none" if summary else None)  # type: ignore[arg-type]


def _keep(fields: Fields, known: tuple[str, ...], others: dict[str, bytes]) -> None:
    """Keep what else *fields* hold, under its place."""
    for name, value in fields.value.items():
        if name not in known and value is not None:
            others[fields.at(name)] = fields.raw(name)
