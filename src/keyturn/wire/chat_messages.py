"""The messages of an OpenAI Chat request, read into turns of the neutral conversation."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from keyturn.core import Foreign, Media, Message, Part, Reasoning, Refusal, Role, Text, ToolResult, ToolUse

from .chat_reasoning import read_thinking
from .fields import Fields, refuse
from .media import from_url, inline
from .signatures import unpack

DIALECT = "openai_chat"

_ROLES: dict[str, Role | None] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": None,
    "function": None,
}
_TTLS = ("5m", "30m", "1h", "12h")
_NEEDS_ID = "It names the call that the assistant made, such as call_abc."


def read_messages(body: Fields) -> tuple[Message, ...]:
    """All messages of *body*. Raises BadRequest that names the place.

    Neighbouring answers of tools become one user message; a user message behind them stays one of its own.
    """
    found: list[Message] = []
    results: list[ToolResult] = []
    calls: dict[str, ToolUse] = {}
    named: dict[str, ToolUse] = {}
    for given in body.objects("messages"):
        kind = given.needed_text("role", "Say who speaks: system, user, assistant or tool.")
        role = _ROLES[given.one_of("role", tuple(_ROLES))]
        if role is None:
            results.append(_result(given, _called(given, named) if kind == "function" else _answered(given, calls)))
            continue
        if results:
            found.append(Message("user", tuple(results)))
            results = []
        parts = tuple(_assistant(given, len(found)) if role == "assistant" else _content(given, role))
        if role == "assistant":
            calls = {part.id: part for part in parts if isinstance(part, ToolUse)}
            named = {call.name: call for call in reversed(calls.values())}
        if parts:  # an assistant that said nothing is left out
            found.append(Message(role, parts, given.text("name")))
    if results:
        found.append(Message("user", tuple(results)))
    return tuple(found)


def _content(given: Fields, role: str) -> Iterator[Part]:
    """`content` of a message that needs one: a string, or parts."""
    content = given.get("content")
    if content is None:
        refuse(given.at("content"), "is missing. Send a string, or a list of parts.")
    if isinstance(content, str):
        yield Text(content, _mark(given))
        return
    if not isinstance(content, list):
        refuse(given.at("content"), "must be a string, or a list of parts.")
    for part in given.objects("content"):
        yield from _part(part, role)


def _part(part: Fields, role: str) -> Iterator[Part]:
    kind = part.needed_text("type", "Name the kind of the part, such as text or image_url.")
    if kind == "text":
        yield Text(part.text("text"), _mark(part))
    elif kind == "refusal" and role == "assistant":
        yield Refusal(part.text("refusal"))
    elif kind == "thinking" and role == "assistant":  # Mistral
        if text := thoughts(part.get("thinking")):
            yield Reasoning(text)
    elif kind in _MEDIA and role == "user":
        media = _MEDIA[kind](part)
        yield structs.replace(media, cache=mark) if (mark := _mark(part)) else media
    else:
        known = ["text", *(_MEDIA if role == "user" else ("refusal", "thinking") if role == "assistant" else ())]
        refuse(part.at("type"), f"cannot be {kind[:80]!r} in a {role} message; known are {', '.join(known)}.")


def thoughts(given: object) -> str:
    """The text in Mistral's `thinking`: a list of text parts, or a string."""
    if isinstance(given, str):
        return given
    texts = [part.get("text") for part in given if isinstance(part, dict)] if isinstance(given, list) else []
    return "".join(text for text in texts if isinstance(text, str))


def _mark(part: Fields) -> str:
    """How long a prompt cache that ends here is to live: OpenAI's mark, or Anthropic's as OpenRouter takes it."""
    if (own := part.object("prompt_cache_breakpoint")) is not None:
        return own.one_of("ttl", _TTLS, "30m")
    if (other := part.object("cache_control")) is not None:
        return other.one_of("ttl", _TTLS, "5m")
    return ""


def _image(part: Fields) -> Media:
    given = part.get("image_url")
    if isinstance(given, str):  # not OpenAI's shape, but common
        return from_url(part.at("image_url"), given, "image")
    image = part.object("image_url")
    if image is None:
        refuse(part.at("image_url"), 'is missing. Send {"url": …}.')
    found = from_url(image.at("url"), image.needed_text("url"), "image")
    detail = image.text("detail")
    return structs.replace(found, detail=detail) if detail else found


def _video(part: Fields) -> Media:
    video = part.object("video_url")
    if video is None:
        refuse(part.at("video_url"), 'is missing. Send {"url": …}.')
    return from_url(video.at("url"), video.needed_text("url"), "video")


def _audio(part: Fields) -> Media:
    audio = part.object("input_audio")
    if audio is None:
        refuse(part.at("input_audio"), 'is missing. Send {"data": …, "format": "wav"}.')
    form = audio.needed_text("format", "Say wav or mp3.")
    return inline(audio.at("data"), audio.text("data"), f"audio/{form}", "audio")


def _file(part: Fields) -> Media:
    file = part.object("file")
    if file is None:
        refuse(part.at("file"), 'is missing. Send {"file_data": …, "filename": …}.')
    name = file.text("filename")
    if file_id := file.text("file_id"):
        return Media("document", file_id=file_id, name=name)
    data = file.needed_text("file_data", "Send a data: URL, or a `file_id`.")
    place = file.at("file_data")
    plain = ":" not in data[:16]
    return plain_text(
        structs.replace(inline(place, data, "") if plain else from_url(place, data, "document"), name=name)
    )


def plain_text(media: Media) -> Media:
    """A document that is text in base64, as that text; any other as it is."""
    if media.kind != "document" or not media.mime.startswith("text/") or not media.data:
        return media
    try:
        return structs.replace(media, text=b64decode(media.data).decode(), data="")
    except UnicodeDecodeError:
        return media


_MEDIA = {"image_url": _image, "input_audio": _audio, "file": _file, "video_url": _video}


def _called(given: Fields, calls: dict[str, ToolUse]) -> ToolUse:
    """The call that a message of the older role `function` answers: the first of that name."""
    name = given.needed_text("name", "It names the function that the assistant called.")
    call = calls.get(name)
    if call is None:
        refuse(given.at("name"), f"{name[:80]!r} answers no call of the last assistant message.")
    return call


def _answered(given: Fields, calls: dict[str, ToolUse]) -> ToolUse:
    """The call that a message of role `tool` answers."""
    call_id = given.needed_text("tool_call_id", _NEEDS_ID)
    call = calls.get(call_id)
    if call is None:
        refuse(
            given.at("tool_call_id"),
            f"{call_id[:80]!r} answers no tool call of the last assistant message. Send that message, with its "
            "`tool_calls`, before its answers.",
        )
    return call


def _result(given: Fields, call: ToolUse) -> ToolResult:
    """A message of role `tool` or `function`, which answers *call*."""
    content = () if given.get("content") is None else _content(given, "tool")
    parts = [part for part in content if isinstance(part, Text)]
    marks = [part.cache for part in parts if part.cache]
    texts = tuple(Text(part.text) for part in parts if part.text)
    return ToolResult(call.id, texts, call.name, free=call.free, cache=marks[-1] if marks else "")


def _assistant(given: Fields, turn: int) -> Iterator[Part]:
    """What the assistant said: its thinking, its words, its calls."""
    yield from read_thinking(given.value, unpack)  # type: ignore[arg-type]
    if given.get("content") is not None:
        yield from (part for part in _content(given, "assistant") if not isinstance(part, Text) or part.text)
    if refusal := given.text("refusal"):
        yield Refusal(refusal)
    if given.get("audio") is not None:
        yield Foreign(DIALECT, "audio", given.raw("audio"))
    for call in given.objects("tool_calls"):
        yield _call(call)
    if (legacy := given.object("function_call")) is not None and given.get("tool_calls") is None:
        yield ToolUse(f"call_{turn}", legacy.needed_text("name"), legacy.text("arguments") or "{}")


def _call(call: Fields) -> ToolUse:
    name = call.needed_text("id", "Tool answers refer to it.")
    kind = call.one_of("type", ("function", "custom"), "function") or "function"
    inner = call.object(kind)
    if inner is None:
        refuse(call.at(kind), 'is missing. Send {"name": …}.')
    if kind == "custom":
        return ToolUse(name, inner.needed_text("name"), inner.text("input"), free=True)
    return ToolUse(
        name,
        inner.needed_text("name"),
        inner.text("arguments") or "{}",
        signature=unpack(value, "gemini") if (value := google_signature(call.value)) else None,
    )


def google_signature(call: Any) -> str:
    """`extra_content.google.thought_signature` of a tool call (Google's OpenAI-compatible endpoint); else empty."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    value = google.get("thought_signature") if isinstance(google, dict) else None
    return value if isinstance(value, str) else ""
