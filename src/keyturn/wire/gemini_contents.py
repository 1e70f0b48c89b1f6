"""Gemini's `contents` read into messages: turns, parts, and results matched to the calls that they answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from keyturn.core import Foreign, Media, Message, Part, Reasoning, Role, Signature, Text, ToolResult, ToolUse
from keyturn.errors import BadRequest

from .fields import refuse
from .gemini_fields import DIALECT, GeminiFields
from .gemini_signatures import unpack_bytes
from .media import inline, kind_of
from .signatures import unmarked
from .unanswered import Unanswered

_ROLES: dict[str, Role] = {"user": "user", "model": "assistant", "function": "user"}
_FOREIGN = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_WORDS = ("output", "result", "error")
"""Members of a tool's `response` that hold its text; `output` and `error` are the API's convention."""
_MIMES = {
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "mp4": "video/mp4",
    "mov": "video/mov",
    "webm": "video/webm",
}
_LONGEST_EXTENSION = max(map(len, _MIMES))
_OWN_FILES = "https://generativelanguage.googleapis.com/"
_YOUTUBE = re.compile(r"https?://(?:www\.|m\.)?(?:youtube\.com/|youtu\.be/)")


def mime_by_name(address: str) -> str:
    """The type of the file at *address* by its extension; empty when that tells nothing."""
    path = address.partition("#")[0].partition("?")[0]
    _, dot, extension = path.rpartition("/")[2].rpartition(".")
    return _MIMES.get(extension.lower(), "") if dot and len(extension) <= _LONGEST_EXTENSION else ""


def read_system(body: GeminiFields) -> tuple[Message, ...]:
    """`systemInstruction`: a Content, or a string."""
    given = body.get("systemInstruction")
    if given is None:
        return ()
    if isinstance(given, str):
        return (Message("system", (Text(given),)),) if given else ()
    content = body.inner("systemInstruction")
    assert content is not None
    texts = tuple(Text(text) for part in content.inners("parts") if (text := part.text("text")))
    return (Message("system", texts),) if texts else ()


def read_contents(body: GeminiFields) -> list[Message]:
    """All turns. Neighbouring `model` turns become one message: that is how SDKs keep a streamed answer."""
    given = body.get("contents")
    if given is None or given == []:
        refuse(body.at("contents"), 'is missing. Send a list such as [{"role": "user", "parts": [{"text": "Hi"}]}].')
    reading = _Reading()
    turns: list[tuple[Role, list[Part]]] = []
    for content in body.inners("contents"):
        given_role = content.text("role") or "user"
        role = _ROLES.get(given_role)
        if role is None:
            refuse(
                content.at("role"),
                f"cannot be {given_role[:80]!r}; it is `user` or `model`. System prompts go into `systemInstruction`.",
            )
        if role == "user" and not content.get("parts"):
            refuse(content.at("parts"), 'is missing. Send a list such as [{"text": "Hi"}].')
        parts = reading.parts(content, role)
        if not parts:
            continue
        if role == "assistant" and turns and turns[-1][0] == "assistant":
            turns[-1][1].extend(parts)
        else:
            turns.append((role, parts))
    if not turns:
        refuse(body.at("contents"), "hold no part that a model could answer.")
    return [Message(role, tuple(_joined(parts) if role == "assistant" else parts)) for role, parts in turns]


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Fragments of one thought or one text put together; a signature ends what it signs."""
    joined: list[Part] = []
    said: list[str] = []  # by the last of them
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Reasoning) and isinstance(last, Reasoning) and not (last.signature or part.redacted):
            said.append(part.text)
            joined[-1] = part
        elif isinstance(part, Text) and isinstance(last, Text) and last.signature is part.signature is None:
            said.append(part.text)
        else:
            _speak(joined, said)
            said = [part.text] if isinstance(part, (Text, Reasoning)) else []
            joined.append(part)
    _speak(joined, said)
    return joined


def _speak(joined: list[Part], said: list[str]) -> None:
    """The last of *joined* is of several fragments: it says all of them."""
    if len(said) > 1:
        joined[-1] = msgspec.structs.replace(joined[-1], text="".join(said))


class _Reading:
    """Reads parts in order and remembers the calls that still wait for their result."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: Unanswered[ToolUse] = Unanswered()

    def parts(self, content: GeminiFields, role: Role) -> list[Part]:
        """The parts of one turn; results of tools first."""
        parts = [part for given in content.inners("parts") if (part := self._part(given, role)) is not None]
        if role == "assistant":
            return parts
        return sorted(parts, key=lambda part: not isinstance(part, ToolResult))

    def _part(self, part: GeminiFields, role: Role) -> Part | None:
        signature = _signature(part)
        if (call := part.inner("functionCall")) is not None:
            return self._call(call, signature)
        if (response := part.inner("functionResponse")) is not None:
            return self._result(response)
        if part.get("inlineData") is not None or part.get("fileData") is not None:
            return _media(part)
        for name in _FOREIGN:
            if part.get(name) is not None:
                return Foreign(DIALECT, name, msgspec.json.encode(part.value))
        given = part.get("text")
        if given is None and signature is None and part.get("thought") is None:
            known = "text, inlineData, fileData, functionCall, functionResponse"
            refuse(part.place, f"has no field that is known. Each part has one of: {known}.")
        text = part.text("text")
        if part.flag("thought"):
            signature, redacted = unmarked(signature) if signature is not None else (None, False)
            return Reasoning(text, signature, redacted) if text or signature else None
        if not text and signature is None and role == "assistant":
            return None
        return Text(text, signature=signature)

    def _call(self, call: GeminiFields, signature: Signature | None) -> ToolUse:
        name = call.needed_text("name", "Name the function that was called.")
        call.object("args")  # its type
        use = ToolUse(
            call.text("id") or f"call_{self._count}", name, (call.raw("args") or b"{}").decode(), signature=signature
        )
        self._count += 1
        self._waiting.add(use, use.id, name)
        return use

    def _result(self, given: GeminiFields) -> ToolResult:
        name, identity = given.text("name"), given.text("id")
        use = self._answered(given, name, identity)
        text, failed = _response(given)
        parts: list[Text | Media] = [Text(text)]
        for part in given.inners("parts"):
            media = _media(part)
            if isinstance(media, Foreign):
                continue
            parts.append(media)
        return ToolResult(use.id, tuple(parts), use.name, failed)

    def _answered(self, given: GeminiFields, name: str, identity: str) -> ToolUse:
        """The call that *given* answers: by id, or else the first that waits under its name."""
        use = self._waiting.with_id(identity) if identity else None
        if use is None and name:
            use = self._waiting.named(name)
        if use is None:
            raise _unasked(given, name or identity)
        return use


def _unasked(given: GeminiFields, what: str) -> BadRequest:
    if not what:
        place = given.at("name")
        return BadRequest(f"`{place}` is missing. Name the function that answers.", param=place)
    problem = f"answers no `functionCall` before it: none of {what[:80]!r} waits for a result."
    return BadRequest(f"`{given.place}` {problem}", param=given.place)


def _signature(part: GeminiFields) -> Signature | None:
    text = part.text("thoughtSignature")
    return unpack_bytes(text) if text else None


def _response(given: GeminiFields) -> tuple[str, bool]:
    """The text of a result, and whether it tells of a failure."""
    found = given.object("response")
    if found is None:
        return "", False
    if len(found.value) == 1:
        ((name, text),) = found.value.items()
        if name in _WORDS and isinstance(text, str):
            return text, name == "error"
    return msgspec.json.encode(found.value).decode(), False


def _media(part: GeminiFields) -> Media | Foreign:
    """Inline or linked media. With `videoMetadata`, which no other dialect knows, it stays as it came."""
    if part.get("videoMetadata") is not None:
        return Foreign(DIALECT, "videoMetadata", msgspec.json.encode(part.value))
    if (blob := part.inner("inlineData")) is not None:
        media = inline(blob.at("data"), blob.needed_text("data", "Send the file in base64."), blob.text("mimeType"))
        return msgspec.structs.replace(media, name=blob.text("displayName"))
    file = part.inner("fileData")
    if file is None:
        refuse(part.place, "has no media: it needs `inlineData` or `fileData`.")
    address = file.needed_text("fileUri", "Give the file's address.")
    mime = file.text("mimeType") or mime_by_name(address)
    kind = kind_of(mime)
    if not mime and _YOUTUBE.match(address):
        kind = "video"
    if re.match(r"https?://[^\s]+\Z", address) and not address.startswith(_OWN_FILES):
        return Media(kind, mime, url=address, name=file.text("displayName"))
    return Media(kind, mime, file_id=address, name=file.text("displayName"))
