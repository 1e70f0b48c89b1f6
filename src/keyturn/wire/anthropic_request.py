"""A client's Messages request read into a Request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from keyturn.core import (
    Call,
    Citation,
    Effort,
    Foreign,
    Media,
    MediaKind,
    Message,
    Part,
    Reasoning,
    Request,
    Role,
    Shape,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)

from .anthropic_blocks import DIALECT, encode, read_citation
from .fields import Fields, body_of, refuse
from .media import from_url, inline
from .signatures import unpack

_MEMBERS = frozenset(
    """model messages system tools tool_choice thinking output_config max_tokens temperature top_p top_k stop_sequences
    stream metadata service_tier cache_control""".split()
)
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_EFFORTS: dict[str, Effort] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_TIERS = {"auto": "auto", "standard_only": "default"}
_TTLS = ("5m", "1h")
_BILLING = "x-anthropic-billing-header:"
"""How a system block of Claude Code begins that is not for the model; it changes often, and with it prompt caches."""
_TOOL_MEMBERS = frozenset({"name", "description", "input_schema", "strict", "cache_control", "type"})
_SERVED = ("_tool_use", "_tool_result")
_SERVED_ALONE = frozenset({"container_upload", "compaction", "fallback"})
"""With the endings above: blocks that belong to tools and features of Anthropic's own."""


def read_request(call: Call) -> Request:
    """The whole request. Raises BadRequest that names the field.

    What has no neutral counterpart goes into `others` under its name, inner members as `output_config.task_budget`,
    `metadata.team` or `tools.<name of the tool>` (the members of a tool that only Anthropic knows). Not kept: `caller`
    of a tool call, and how a text stood, as a string or a block. A search result becomes a text.
    """
    body = Fields(body_of(call))
    others = {name: raw for name, raw in call.members.items() if name not in _MEMBERS and body.get(name) is not None}
    messages = _system(body) + _messages(body)
    tools, hosted = _tools(body, others)
    choice, parallel = _choice(body)
    shape = _shape(body)
    thinking = _thinking(body, others)
    metadata = body.object("metadata") or Fields({}, "metadata")
    _keep(metadata, {"user_id"}, others)
    tier = body.text("service_tier")
    if tier not in _TIERS and tier:
        others["service_tier"] = encode(tier)
    max_output = body.whole("max_tokens")
    if max_output is not None and max_output < 0:
        refuse("max_tokens", "must be a whole number of tokens from 0, such as 1024.")
    return Request(
        DIALECT,
        call.model,
        tuple(messages),
        tools=tools,
        hosted=hosted,
        choice=choice,
        parallel=parallel,
        shape=shape,
        thinking=thinking,
        max_output=max_output,
        temperature=body.number("temperature"),
        top_p=body.number("top_p"),
        top_k=body.whole("top_k"),
        stop=body.texts("stop_sequences"),
        user=metadata.text("user_id"),
        cache=_cache(body),
        tier=_TIERS.get(tier, ""),
        stream=call.stream,
        others=others,
    )


# --- prompt ---------------------------------------------------------------------------------------------------------


def _system(body: Fields) -> list[Message]:
    given = body.get("system")
    if given is None:
        return []
    if isinstance(given, str):
        parts: list[Part] = [Text(given)] if given else []
    elif isinstance(given, list):
        parts = [_text(block) for block in body.objects("system")]
    else:
        refuse("system", "must be a string or a list of text blocks.")
    parts = [part for part in parts if not (isinstance(part, Text) and part.text.startswith(_BILLING))]
    return [Message("system", tuple(parts))] if parts else []


@dataclass(slots=True)
class _Turns:
    """What later messages are judged by."""

    asked: set[str] = field(default_factory=set)
    """The ids of the tool calls of the latest assistant turn."""
    role: str = ""


def _messages(body: Fields) -> list[Message]:
    given = list(body.objects("messages"))
    if not given:
        refuse("messages", 'is empty. Send at least one message, such as {"role": "user", "content": "Hi"}.')
    turns = _Turns()
    read = []
    for number, message in enumerate(given):
        role = _ROLES.get(message.needed_text("role", 'Write "user", "assistant" or "system".'))
        if role is None:
            refuse(message.at("role"), "must be user, assistant or system.")
        if role == "assistant" and turns.role != "assistant":
            turns.asked.clear()
        if role != "system":
            turns.role = role
        read.append(Message(role, _content(message, role, turns, last=number == len(given) - 1)))
    return read


def _content(message: Fields, role: Role, turns: _Turns, *, last: bool) -> tuple[Part, ...]:
    content = message.get("content")
    place = message.at("content")
    if content is None:
        refuse(place, "is missing. Send a string or a list of content blocks.")
    if not isinstance(content, (str, list)):
        refuse(place, "must be a string or a list of content blocks.")
    if not content and not (last and role == "assistant"):
        refuse(place, "is empty. Only the last message may be, when it is the assistant's.")
    if isinstance(content, str):
        return (Text(content),) if content else ()
    parts: list[Part] = []
    for block in message.objects("content"):
        parts += _block(block, role, turns)
    return tuple(_hand_over(parts))


def _block(block: Fields, role: Role, turns: _Turns) -> list[Part]:
    """One content block as parts: a document with images inside is several."""
    kind = block.needed_text("type", "Each content block has one, such as text.")
    if kind == "text":
        return [_text(block)]
    if role == "system":
        refuse(block.at("type"), f"cannot be {kind[:80]!r} in a system message; only text can.")
    owner = _OWNERS.get(kind)
    if owner and owner != role:
        refuse(block.at("type"), f"cannot be {kind!r} in a message of the {role}; it belongs to the {owner}.")
    match kind:
        case "image" | "document":
            return _media(block, kind)
        case "search_result":
            return [_search_result(block)]
        case "tool_use":
            return [_tool_use(block, turns)]
        case "tool_result":
            return [_tool_result(block, turns)]
        case "thinking":
            value = block.text("signature")
            return [Reasoning(block.text("thinking"), unpack(value, DIALECT) if value else None)]
        case "redacted_thinking":
            return [Reasoning(signature=unpack(block.needed_text("data"), DIALECT), redacted=True)]
    if kind.endswith(_SERVED) or kind in _SERVED_ALONE:
        return [Foreign(DIALECT, kind, msgspec.json.encode(block.value))]
    return refuse(
        block.at("type"),
        f"cannot be {kind[:80]!r}; known are text, image, document, search_result, tool_use, tool_result, thinking, "
        "redacted_thinking, and the blocks of Anthropic's own tools.",
    )


_OWNERS = {"tool_use": "assistant", "tool_result": "user", "thinking": "assistant", "redacted_thinking": "assistant"}
"""Who may say what."""


def _text(block: Fields) -> Text:
    if block.text("type", "text") != "text":
        refuse(block.at("type"), "must be text.")
    citations: tuple[Citation, ...] = tuple(read_citation(dict(each.value)) for each in block.objects("citations"))
    return Text(block.needed_text("text", "Leave out blocks without text."), _cache(block), citations)


def _cache(holder: Fields) -> str:
    """For how long `cache_control` marks the end of a cached prefix; empty without it."""
    mark = holder.object("cache_control")
    if mark is None:
        return ""
    mark.one_of("type", ("ephemeral",))
    return mark.one_of("ttl", _TTLS) or "5m"


def _media(block: Fields, kind: MediaKind) -> list[Part]:
    source = block.object("source")
    if source is None:
        refuse(block.at("source"), "is missing. Send an object such as {type: base64, media_type: …, data: …}.")
    known = _SOURCES if kind == "document" else _SOURCES[:3]
    how = source.one_of("type", known) or refuse(source.at("type"), f"is missing; known are {', '.join(known)}.")
    inside: list[Part] = []
    match how:
        case "base64":
            media = inline(source.at("data"), source.needed_text("data"), source.text("media_type"), kind)
        case "url":
            media = from_url(source.at("url"), source.needed_text("url"), kind)
        case "file":
            media = Media(kind, "", file_id=source.needed_text("file_id"))
        case "text":
            media = Media(kind, "text/plain", text=source.needed_text("data"))
        case _:
            text, inside = _document(source)
            media = Media(kind, "", text=text)
    citations = block.object("citations")
    if kind == "document":
        media = msgspec.structs.replace(
            media,
            name=block.text("title"),
            context=block.text("context"),
            cited=bool(citations and citations.flag("enabled")),
        )
    return [msgspec.structs.replace(media, cache=_cache(block)), *inside]


_SOURCES = ("base64", "url", "file", "text", "content")


def _document(source: Fields) -> tuple[str, list[Part]]:
    """The text of a document made of blocks, and its images."""
    content = source.get("content")
    if isinstance(content, str) and content:
        return content, []
    texts: list[str] = []
    images: list[Part] = []
    for block in source.objects("content"):
        if block.one_of("type", ("text", "image")) == "image":
            images += _media(block, "image")
        else:
            texts.append(block.needed_text("text"))
    if not texts and not images:
        refuse(source.at("content"), "is empty. Send a string or a list of text and image blocks.")
    return "\n\n".join(texts), images


def _search_result(block: Fields) -> Text:
    texts = [each.text("text") for each in block.objects("content")]
    lines = [block.text("title"), block.text("source"), "", *texts]
    return Text("\n".join(lines).strip() or "(an empty search result)", _cache(block))


def _tool_use(block: Fields, turns: _Turns) -> ToolUse:
    identity = block.needed_text("id")
    turns.asked.add(identity)
    given = block.object("input")
    arguments = encode(given.value if given else {}).decode()
    return ToolUse(identity, block.needed_text("name"), arguments, cache=_cache(block))


def _tool_result(block: Fields, turns: _Turns) -> ToolResult:
    identity = block.needed_text("tool_use_id")
    if identity not in turns.asked:
        refuse(
            block.at("tool_use_id"),
            f"is {identity[:80]!r}, but the assistant's turn before has no tool_use block with this id.",
        )
    content = block.get("content")
    parts: list[Text | Media] = []
    if isinstance(content, str):
        parts = [Text(content)] if content else []
    else:
        for each in block.objects("content"):
            parts += _result_part(each)
    return ToolResult(identity, tuple(parts), failed=bool(block.flag("is_error")), cache=_cache(block))


def _result_part(block: Fields) -> list[Text | Media]:
    kind = block.needed_text("type")
    match kind:
        case "text":
            return [Text(block.text("text"), _cache(block))] if block.text("text") else []
        case "image" | "document":
            return [part for part in _media(block, kind) if isinstance(part, (Text, Media))]
        case "search_result":
            return [_search_result(block)]
        case "tool_reference":
            return [Text(f"Found the tool {block.needed_text('tool_name')}.")]
    return refuse(block.at("type"), f"cannot be {kind[:80]!r}; known are text, image, document, search_result.")


def _hand_over(parts: list[Part]) -> list[Part]:
    """Give a Gemini signature back to the call that it was made for: see `AnthropicWriter`."""
    read: list[Part] = []
    for part in parts:
        last = read[-1] if read else None
        if (
            isinstance(part, ToolUse)
            and isinstance(last, Reasoning)
            and last.signature is not None
            and last.signature.dialect == "gemini"
        ):
            part = msgspec.structs.replace(part, signature=last.signature)
            read[-1:] = [Reasoning(last.text)] if last.text else []
        read.append(part)
    return read


# --- tools and settings ---------------------------------------------------------------------------------------------


def _tools(body: Fields, others: dict[str, bytes]) -> tuple[tuple[Tool, ...], tuple[Foreign, ...]]:
    tools, hosted = [], []
    for tool in body.objects("tools"):
        kind = tool.text("type", "custom")
        if kind != "custom":
            hosted.append(Foreign(DIALECT, kind, msgspec.json.encode(tool.value)))
            continue
        name = tool.needed_text("name")
        schema = tool.schema("input_schema")
        tools.append(Tool(name, tool.text("description"), schema, tool.flag("strict"), cache=_cache(tool)))
        rest = {key: value for key, value in tool.value.items() if key not in _TOOL_MEMBERS and value is not None}
        if rest:
            others[f"tools.{name}"] = msgspec.json.encode(rest)
    return tuple(tools), tuple(hosted)


def _choice(body: Fields) -> tuple[ToolChoice | None, bool | None]:
    given = body.object("tool_choice")
    if given is None:
        return None, None
    alone = given.flag("disable_parallel_tool_use")
    parallel = None if alone is None else not alone
    kind = given.one_of("type", ("auto", "any", "tool", "none"))
    match kind:
        case "tool":
            return ToolChoice("any", (given.needed_text("name"),)), parallel
        case "auto" | "any" | "none":
            return ToolChoice(kind), parallel
    return refuse(given.at("type"), "is missing; known are auto, any, tool, none.")


def _shape(body: Fields) -> Shape | None:
    config = body.object("output_config")
    form = config.object("format") if config else None
    if form is None:
        return None
    form.one_of("type", ("json_schema",))
    return Shape("schema", form.schema("schema") or refuse(form.at("schema"), "is missing. Send a JSON Schema."))


def _thinking(body: Fields, others: dict[str, bytes]) -> Thinking | None:
    """How much to think. A kind of thinking that only Anthropic knows is kept whole in *others*."""
    config = body.object("output_config") or Fields({}, "output_config")
    _keep(config, {"effort", "format"}, others)
    word = config.text("effort")
    if word and word not in _EFFORTS:
        refuse(config.at("effort"), f"cannot be {word[:80]!r}; known are {', '.join(_EFFORTS)}.")
    effort = _EFFORTS.get(word, "")
    given = body.object("thinking")
    if given is None:
        return Thinking(effort) if effort else None
    display = given.text("display")
    shown = {"summarized": True, "omitted": False}.get(display)
    match given.needed_text("type", "Known are adaptive, enabled and disabled."):
        case "adaptive":
            return Thinking(effort, shown=shown)
        case "enabled":
            budget = given.whole("budget_tokens")
            if budget is None or budget < 0:
                refuse(given.at("budget_tokens"), "must be a whole number of tokens, such as 4096.")
            return Thinking(effort, budget, shown)
        case "disabled":
            if effort:
                others["output_config.effort"] = encode(effort)
            return Thinking("none")
    others["thinking"] = encode(given.value)
    return Thinking(effort, shown=shown)


def _keep(holder: Fields, known: set[str], others: dict[str, bytes]) -> None:
    """Put what *holder* has besides *known* into *others*."""
    rest: dict[str, Any] = {name: value for name, value in holder.value.items() if name not in known}
    others.update((holder.at(name), msgspec.json.encode(value)) for name, value in rest.items() if value is not None)
