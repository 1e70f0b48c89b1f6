"""Turns of the neutral conversation, written as the messages of an OpenAI Chat request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from keyturn.core import Foreign, Media, Message, Part, Reasoning, Refusal, Request, Text, ToolResult, ToolUse
from keyturn.errors import Untranslatable

from .chat_messages import DIALECT, plain_text
from .dialect import Target
from .media import data_url
from .notes import note as tell
from .signatures import accepted
from .tools import flat_name
from .unanswered import Unanswered

_AUDIO = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
    "audio/mpga": "mp3",
}
_TTLS = {"12h": "12h"}
"""OpenAI knows 30m and 12h; what is not as long as the latter is the former."""

Members = dict[str, object]


class Turns:
    """Writes one conversation for *target*."""

    def __init__(self, request: Request, target: Target, notes: list[str]) -> None:
        self._own = request.dialect == DIALECT
        self._by_id = request.dialect.startswith("openai_")
        self._origin = target.origin
        self._marks = target.cache_marks
        self._notes = notes
        self._media = 0
        """Media of tool results so far: they are numbered."""
        self._unnamed: Unanswered[str] = Unanswered()
        """The ids that calls without one got and that are not answered yet."""
        self._made = 0

    def write(self, messages: Iterable[Message]) -> list[Members]:
        """All messages. Raises Untranslatable."""
        written: list[Members] = []
        for index, message in _joined(messages):
            place = f"messages[{index}]"
            if message.role == "system":
                written.extend(self._system(message, place))
            elif message.role == "user":
                written.extend(self._user(message, place))
            else:
                written.append(self._assistant(message))
        return written

    # --- system and user --------------------------------------------------------------------------------------------

    def _system(self, message: Message, place: str) -> Iterator[Members]:
        parts = [part for part in message.parts if isinstance(part, Text)]
        if len(parts) < len(message.parts):
            raise _refused(place, "holds more than text; OpenAI Chat takes only text in a system message")
        if parts:
            yield self._message("system", message.name, self._content(parts, place))

    def _user(self, message: Message, place: str) -> Iterator[Members]:
        """The results of tools, a message each; then what else there is, behind the media of the results."""
        media: list[Part] = []
        others: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                yield self._result(part, media)
            elif isinstance(part, Foreign):
                self._lost(part)
            elif isinstance(part, (Text, Media)):
                others.append(part)
            else:
                raise _refused(place, "holds a part that only an assistant can say")
        if media or others:
            yield self._message("user", message.name, self._content([*media, *others], place))

    def _result(self, result: ToolResult, media: list[Part]) -> Members:
        """The message of one tool. It takes only text: media go behind all results, and their numbers in here."""
        texts = []
        for part in result.parts:
            if isinstance(part, Media):
                part = plain_text(part)
                if part.text:
                    texts.append(_document(part))
                    continue
                self._media += 1
                label = f"[{part.kind} {self._media}]"
                texts.append(label)
                media += (Text(label), part)
            elif part.text:
                texts.append(part.text)
        text = "\n".join(texts)
        return {
            "role": "tool",
            "tool_call_id": result.id or self._answered(result.name),
            "content": f"Error: {text}" if result.failed else text,
        }

    def _content(self, parts: list[Part] | list[Text], place: str) -> object:
        """Text alone as one string, which every server takes; else parts."""
        if all(isinstance(part, Text) and not (self._marks and part.cache) for part in parts):
            return "\n\n".join(part.text for part in parts if isinstance(part, Text))
        return [self._part(part, place) for part in parts if not isinstance(part, Text) or part.text]

    def _part(self, part: Part, place: str) -> Members:
        if isinstance(part, Media):
            written = self._media_part(plain_text(part), place)
        else:
            assert isinstance(part, Text)
            written = {"type": "text", "text": part.text}
        if self._marks and part.cache:
            written["prompt_cache_breakpoint"] = {"mode": "explicit", "ttl": _TTLS.get(part.cache, "30m")}
        return written

    def _media_part(self, media: Media, place: str) -> Members:
        if media.cited:
            self._note("dropped citations: OpenAI Chat cannot be told to cite")
        if media.kind == "image" and not media.file_id and not media.url.startswith("gs:"):
            detail = {"detail": media.detail} if media.detail else {}
            return {"type": "image_url", "image_url": {"url": data_url(media), **detail}}
        if media.kind == "document" and media.text:
            return {"type": "text", "text": _document(media)}
        if media.kind == "document" and media.data:
            file = {"filename": media.name or "document.pdf", "file_data": data_url(media)}
            return {"type": "file", "file": file}
        if media.kind == "document" and media.file_id and self._by_id:
            return {"type": "file", "file": {"file_id": media.file_id}}
        if media.kind == "audio" and media.data and media.mime in _AUDIO:
            return {"type": "input_audio", "input_audio": {"data": media.data, "format": _AUDIO[media.mime]}}
        if media.kind == "video":
            problem = "a video, which OpenAI Chat does not take"
        elif media.kind == "audio":
            problem = f"{media.mime or 'a sound by address'}; OpenAI Chat takes wav and mp3 in base64"
        else:
            how = "the id of a file of another provider" if media.file_id else "its address"
            problem = f"{_A[media.kind]} by {how}; send it in base64, as OpenAI Chat takes it"
        raise _refused(place, f"holds {problem}")

    # --- the assistant ----------------------------------------------------------------------------------------------

    def _assistant(self, message: Message) -> Members:
        texts, refusals = [], []
        calls: list[Members] = []
        written: Members = {}
        for part in message.parts:
            match part:
                case Text():
                    texts.append(part.text)
                case ToolUse():
                    calls.append(self._call(part))
                case Refusal():
                    refusals.append(part.text)
                case Reasoning():
                    if part.signature is not None or part.text:
                        why = "it is not signed" if part.signature is None else "signed by another provider"
                        self._note(f"dropped reasoning: {why}")
                case Foreign(dialect="openai_chat", what="audio") if self._own:
                    written["audio"] = msgspec.Raw(part.raw)
                case Foreign():
                    self._lost(part)
                case Media():
                    self._note(f"dropped {part.kind}: OpenAI Chat takes none from an assistant")
        text = "".join(texts)
        written["content"] = text if text or not (calls or refusals or written) else None
        if refusals:
            written["refusal"] = "".join(refusals)
        if calls:
            written["tool_calls"] = calls
        named = {"name": message.name} if message.name else {}
        return {"role": "assistant", **named, **written}

    def _call(self, call: ToolUse) -> Members:
        name = flat_name(call.name, call.namespace)
        written: Members = {"id": call.id or self._make(call.name), "type": "function"}
        if call.free and self._own:
            written |= {"type": "custom", "custom": {"name": name, "input": call.arguments}}
            return written
        arguments = wrapped(call.arguments) if call.free else call.arguments
        written["function"] = {"name": name, "arguments": arguments}
        if call.signature is not None and accepted(call.signature, "gemini", self._origin):
            written["extra_content"] = {"google": {"thought_signature": call.signature.value}}
        return written

    # --- the small things -------------------------------------------------------------------------------------------

    def _message(self, role: str, name: str, content: object) -> Members:
        named = {"name": name} if name else {}
        return {"role": role, **named, "content": content}

    def _make(self, name: str) -> str:
        """An id for a call that has none."""
        made = f"call_{self._made}"
        self._made += 1
        self._unnamed.add(made, made, name)
        return made

    def _answered(self, name: str) -> str:
        """The made id of the first call of that name that is not answered; else of the first call at all."""
        found = self._unnamed.named(name) or self._unnamed.oldest()
        if found is None:
            found = self._make(name)
            self._unnamed.with_id(found)
        return found

    def _lost(self, part: Foreign) -> None:
        self._note(f"dropped {part.what}: only {part.dialect} knows it")

    def _note(self, note: str) -> None:
        tell(self._notes, note)


_A = {"image": "an image", "document": "a document"}


def wrapped(text: str) -> str:
    """The input of a free tool as the arguments of a function that stands for it."""
    return msgspec.json.encode({"input": text}).decode()


def _joined(messages: Iterable[Message]) -> Iterator[tuple[int, Message]]:
    """The messages by number; what the assistant says right behind its calls is one with them, since only answers may
    follow those."""
    began, name, parts = 0, "", list[Part]()
    for index, message in enumerate(messages):
        own = message.role == "assistant"
        if parts and own:
            parts += message.parts
            continue
        if parts:
            yield began, Message("assistant", tuple(parts), name)
            parts = []
        if own and any(isinstance(part, ToolUse) for part in message.parts):
            began, name, parts = index, message.name, [*message.parts]
        else:
            yield index, message
    if parts:
        yield began, Message("assistant", tuple(parts), name)


def _document(media: Media) -> str:
    """A document's text, under its title."""
    lead = [line for line in (media.name, media.context) if line]
    return "\n\n".join(("\n".join(lead), media.text)) if lead else media.text


def _refused(place: str, problem: str) -> Untranslatable:
    return Untranslatable(f"`{place}` {problem}.", param=place)
