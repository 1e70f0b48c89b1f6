"""The items of a Responses request's `input`, read into messages of the neutral conversation."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from keyturn.core import (
    Citation,
    Foreign,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Signature,
    Text,
    ToolResult,
    ToolUse,
)

from .fields import Fields, refuse
from .media import from_url, inline
from .responses_parse import DIALECT
from .signatures import unmarked, unpack

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_PLAIN = ("input_text", "output_text", "text")
_FOREIGN = frozenset(
    """mcp_list_tools mcp_approval_request mcp_approval_response tool_search_output program program_output compaction
    compaction_summary compaction_trigger context_compaction additional_tools""".split()
)
"""Items of tools that the provider runs, and of its own housekeeping, that are not called `…_call` or `…_output`."""
_TTLS = ("30m", "12h")


class _Turns:
    """Messages under way: neighbouring items of one speaker become one message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._parts: list[Part] = []
        self._role: Role | None = None
        self.calls: dict[str, str] | None = {}
        """Names of the tools called so far, by call id; None once earlier calls may be hidden in a compaction."""
        self._text: int | None = None
        """Where in the parts the last text stands."""
        self.pending: Reasoning | None = None
        """Reasoning that is nothing but a signature of Gemini's, for the next call or the text before it."""

    def message(self, role: Role, parts: Iterable[Part]) -> None:
        """A whole message. Those of the assistant are joined, others are not."""
        if role == "assistant":
            self.assistant(*parts)
            return
        self.flush()
        self.messages.append(Message(role, tuple(parts)))

    def assistant(self, *parts: Part) -> None:
        if self._role != "assistant":
            self.flush()
            self._role = "assistant"
        for part in parts:
            if isinstance(part, ToolUse) and self.pending is not None:
                part = structs.replace(part, signature=self.pending.signature)
                self.pending = None
            if isinstance(part, Text):
                self._text = len(self._parts)
            self._parts.append(part)

    def result(self, part: ToolResult) -> None:
        if self._role != "user":
            self.flush()
            self._role = "user"
        self._parts.append(part)

    def sign(self, reasoning: Reasoning) -> None:
        """A signature of Gemini's: it belongs to the call that follows, or else to the text before."""
        self.assistant()
        self._sign_text()
        self.pending = reasoning

    def flush(self) -> None:
        self._sign_text()
        if self._role is not None and self._parts:
            self.messages.append(Message(self._role, tuple(self._parts)))
        self._parts, self._role, self._text = [], None, None

    def _sign_text(self) -> None:
        signed, self.pending = self.pending, None
        if signed is None or self._role != "assistant" or self._text is None:
            return
        part = self._parts[self._text]
        if isinstance(part, Text) and part.signature is None:
            self._parts[self._text] = structs.replace(part, signature=signed.signature)


def read_input(body: Fields) -> list[Message]:
    """The conversation in `input`. Raises BadRequest that names the item's place."""
    given = body.get("input")
    if isinstance(given, str):
        return [Message("user", (Text(given),))]
    turns = _Turns()
    for item in body.objects("input"):
        _read_item(item, turns)
    turns.flush()
    return turns.messages


def _read_item(item: Fields, turns: _Turns) -> None:
    kind = item.text("type", "message" if "role" in item.value else "")
    if kind == "message":
        _read_message(item, turns)
    elif kind == "reasoning":
        _read_reasoning(item, turns)
    elif kind in ("function_call", "custom_tool_call"):
        _read_call(item, kind == "custom_tool_call", turns)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        _read_output(item, kind == "custom_tool_call_output", turns)
    elif kind == "item_reference" or (not kind and "id" in item.value):
        refuse(item.place, "refers to an item by id, and Keyturn keeps none. Send the item itself, with `store` false.")
    elif kind in _FOREIGN or kind.endswith(("_call", "_call_output")):
        if "compaction" in kind:
            turns.calls = None
        foreign = Foreign(DIALECT, kind, whole(item))
        if kind.endswith("_output") or kind == "mcp_approval_response":
            turns.message("user", [foreign])
        else:
            turns.assistant(foreign)
    elif not kind:
        refuse(item.at("type"), 'is missing. An item is a message {"role": …, "content": …} or states its type.')
    else:
        refuse(
            item.at("type"),
            f"cannot be {kind[:80]!r}; known are message, reasoning, function_call, function_call_output, "
            "custom_tool_call, custom_tool_call_output, and the calls of hosted tools.",
        )


def whole(item: Fields) -> bytes:
    """The whole object as JSON text."""
    return Fields({"item": item.value}).raw("item")


def _read_message(item: Fields, turns: _Turns) -> None:
    given = item.needed_text("role", "It is user, assistant, system or developer.")
    if given not in _ROLES:
        hint = " The answer of a tool is an item of type function_call_output." if given in ("tool", "function") else ""
        refuse(item.at("role"), f"cannot be {given[:80]!r}; known are {', '.join(_ROLES)}.{hint}")
    role = _ROLES[given]
    content = item.get("content")
    if isinstance(content, str):
        turns.message(role, [Text(content)])
        return
    if content is None:
        refuse(item.at("content"), "is missing. Send a string or a list of parts.")
    turns.message(role, [_read_part(part, role) for part in item.objects("content")])


def _read_part(part: Fields, role: Role) -> Part:
    kind = part.text("type")
    if kind in _PLAIN:
        return Text(_said(part, "text"), _cache(part), tuple(_citations(part)))
    if role == "assistant":
        if kind == "refusal":
            return Refusal(part.text("refusal"))
        refuse(
            part.at("type"), f"cannot be {kind[:80]!r} in a message of the assistant; known are output_text, refusal."
        )
    if role == "system" and kind in ("input_image", "input_file", "input_audio"):
        refuse(part.at("type"), "cannot be media here: a system or developer message holds text only.")
    return _read_media(part, kind)


def _said(part: Fields, name: str) -> str:
    if part.get(name) is None:
        refuse(part.at(name), "is missing.")
    return part.text(name)


def _read_media(part: Fields, kind: str) -> Media:
    if kind not in ("input_image", "input_file", "input_audio"):
        hint = {"image_url": " An image is {type: input_image, image_url: <address>} here."}.get(kind, "")
        known = "input_text, input_image, input_file, input_audio"
        refuse(part.at("type"), f"cannot be {kind[:80]!r}; known are {known}.{hint}")
    if kind == "input_image":
        return structs.replace(_image(part), detail=part.text("detail"), cache=_cache(part))
    if kind == "input_file":
        return structs.replace(_file(part), name=part.text("filename"), cache=_cache(part))
    sound = part.object("input_audio") or part
    form = sound.needed_text("format", "It is wav or mp3.")
    return inline(sound.at("data"), sound.needed_text("data"), f"audio/{form}", "audio")


def _image(part: Fields) -> Media:
    if file_id := part.text("file_id"):
        return Media("image", file_id=file_id)
    url = part.needed_text("image_url", "Send an address, a data: URL, or a file_id.")
    return from_url(part.at("image_url"), url, "image")


def _file(part: Fields) -> Media:
    if data := part.text("file_data"):
        place = part.at("file_data")
        return from_url(place, data, "document") if data[:5].lower() == "data:" else inline(place, data, "")
    if file_id := part.text("file_id"):
        return Media("document", file_id=file_id)
    url = part.needed_text("file_url", "Send file_data, file_url or file_id.")
    return from_url(part.at("file_url"), url, "document")


def _cache(part: Fields) -> str:
    mark = part.object("prompt_cache_breakpoint")
    return mark.one_of("ttl", _TTLS, "30m") if mark else ""


def _citations(part: Fields) -> Iterable[Citation]:
    for note in part.objects("annotations"):
        yield read_citation(note.value)


def read_citation(note: object) -> Citation:
    """An annotation. Never raises."""
    if not isinstance(note, dict):
        return Citation(dialect=DIALECT)
    start, end = note.get("start_index"), note.get("end_index")
    url, title = note.get("url"), note.get("title") or note.get("filename")
    return Citation(
        url if isinstance(url, str) else "",
        title if isinstance(title, str) else "",
        start=start if type(start) is int else None,
        end=end if type(end) is int else None,
        dialect=DIALECT,
        raw=Fields({"note": note}).raw("note"),
    )


def _read_reasoning(item: Fields, turns: _Turns) -> None:
    summary = "\n\n".join(text for part in item.objects("summary") if (text := part.text("text")))
    content = "\n\n".join(text for part in item.objects("content") if (text := part.text("text")))
    signature, redacted = _signature(item)
    gemini = signature is not None and signature.dialect == "gemini"
    name = item.text("id")
    if content:
        own = None if gemini or summary else signature
        turns.assistant(Reasoning(content, own, id=name, summary=False))
    if summary:
        turns.assistant(Reasoning(summary, None if gemini else signature, id=name))
    if signature is not None and gemini:
        turns.sign(Reasoning("", signature))
    elif signature is not None and not content and not summary:
        redacted = redacted or signature.dialect == DIALECT
        turns.assistant(Reasoning("", signature, redacted, name))


def _signature(item: Fields) -> tuple[Signature | None, bool]:
    """The encrypted content, and whether it is marked as redacted; None for our mark of thoughts that nobody signed."""
    given = item.text("encrypted_content")
    signature = unpack(given, DIALECT) if given else None
    if signature is None or not signature.value:
        return None, False
    return unmarked(signature)


def _read_call(item: Fields, free: bool, turns: _Turns) -> None:
    call_id = item.needed_text("call_id", "The output of the call names it too.")
    name = item.needed_text("name")
    arguments = item.text("input") if free else item.text("arguments") or "{}"
    if turns.calls is not None:
        turns.calls[call_id] = name
    turns.assistant(ToolUse(call_id, name, arguments, free, item.text("namespace")))


def _read_output(item: Fields, free: bool, turns: _Turns) -> None:
    call_id = item.needed_text("call_id", "It is that of the call which this answers.")
    if turns.calls is not None and call_id not in turns.calls:
        refuse(item.at("call_id"), f"is {call_id[:80]!r}, and no call before has it. Send the call before its output.")
    output = item.get("output")
    if output is None:
        refuse(item.at("output"), "is missing. Send a string or a list of parts.")
    parts: list[Text | Media] = []
    if isinstance(output, str):
        parts.append(Text(output))
    else:
        for part in item.objects("output"):
            kind = part.text("type")
            plain = kind in _PLAIN
            parts.append(Text(_said(part, "text"), _cache(part)) if plain else _read_media(part, kind))
    turns.result(ToolResult(call_id, tuple(parts), (turns.calls or {}).get(call_id, ""), free=free))
