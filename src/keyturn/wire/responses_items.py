"""The neutral conversation written as the items of a Responses request's `input`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from keyturn.core import Foreign, Media, Message, Origin, Part, Reasoning, Refusal, Request, Text, ToolResult, ToolUse
from keyturn.errors import Untranslatable

from .media import data_url
from .notes import note as tell
from .responses_parse import DIALECT
from .signatures import accepted
from .unanswered import Unanswered

Item = dict[str, object]

_TTLS = {"12h": "12h"}
_UNSIGNED = "dropped reasoning: it is not signed"
_STRANGE = "dropped reasoning: signed by another provider"


class ItemWriter:
    """Writes one request's messages. *notes* gets each loss once."""

    def __init__(self, request: Request, origin: Origin, cache_marks: bool, notes: list[str]) -> None:
        self._request = request
        self._own = request.dialect == DIALECT
        self._origin = origin
        self._cache_marks = cache_marks
        self._notes = notes
        self._items: list[Item | msgspec.Raw] = []
        self._made: Unanswered[str] = Unanswered()
        """Made ids of calls that had no id and are not answered yet."""
        self._calls = 0

    def write(self, messages: Sequence[Message], place: int = 0) -> list[Item | msgspec.Raw]:
        """The items of *messages*, the first of which is number *place* of the request."""
        for number, message in enumerate(messages, place):
            if message.name:
                self.note("dropped name: OpenAI Responses has no counterpart")
            if message.role == "assistant":
                self._assistant(message.parts, f"messages[{number}]")
            else:
                role = "developer" if message.role == "system" else "user"
                self._said(role, message.parts, f"messages[{number}]")
        return self._items

    def note(self, text: str) -> None:
        tell(self._notes, text)

    def _said(self, role: str, parts: Sequence[Part], place: str) -> None:
        content: list[Item] = []
        for part in parts:
            if isinstance(part, ToolResult | Foreign):
                self._flush(role, content)
                content = []
                if isinstance(part, ToolResult):
                    self._result(part, place)
                else:
                    self._foreign(part)
            elif isinstance(part, Text | Media):
                content += self._content(part, place)
        self._flush(role, content)

    def _assistant(self, parts: Sequence[Part], place: str) -> None:
        content: list[Item] = []
        thoughts: list[Item] = []
        for part in parts:
            if isinstance(part, Text | Refusal):
                if not part.text:
                    continue
                self._items += thoughts
                thoughts = []
                content.append(self._answered(part))
                continue
            self._flush("assistant", content)
            content = []
            if isinstance(part, Reasoning):
                thoughts += self._reasoning(part)
            elif isinstance(part, ToolUse | Foreign):
                self._items += thoughts
                thoughts = []
                self._call(part) if isinstance(part, ToolUse) else self._foreign(part)
            elif isinstance(part, Media):
                raise Untranslatable(
                    "OpenAI Responses takes no media from the assistant. Send it in a user message.", param=place
                )
        self._flush("assistant", content)
        if thoughts:
            self.note("dropped reasoning: nothing follows that it belongs to")

    def _flush(self, role: str, content: list[Item]) -> None:
        if content:
            self._items.append({"type": "message", "role": role, "content": content})

    def _answered(self, part: Text | Refusal) -> Item:
        if isinstance(part, Refusal):
            return {"type": "refusal", "refusal": part.text}
        if part.cache:
            self._mark(part.cache, {})
        notes = [msgspec.Raw(each.raw) for each in part.citations if each.dialect == DIALECT and each.raw]
        return {"type": "output_text", "text": part.text, "annotations": notes}

    def _reasoning(self, part: Reasoning) -> list[Item]:
        if part.signature is None or not accepted(part.signature, DIALECT, self._origin):
            self.note(_UNSIGNED if part.signature is None else _STRANGE)
            return []
        item: Item = {"type": "reasoning", "summary": [], "encrypted_content": part.signature.value}
        if part.id.count("_") == 1:  # OpenAI's own; ours, made for a client, would not fit what is encrypted
            item["id"] = part.id
        if part.text and part.summary:
            item["summary"] = [{"type": "summary_text", "text": part.text}]
        elif part.text:
            item["content"] = [{"type": "reasoning_text", "text": part.text}]
        return [item]

    def _call(self, part: ToolUse) -> None:
        if part.signature is not None:
            self.note(_STRANGE)
        call_id = part.id
        if not call_id:
            call_id = f"call_{self._calls}"
            self._made.add(call_id, call_id, part.name)
        self._calls += 1
        item: Item = {"type": "custom_tool_call" if part.free else "function_call", "call_id": call_id}
        item["name"] = part.name
        if part.namespace:
            item["namespace"] = part.namespace
        item["input" if part.free else "arguments"] = part.arguments if part.free else part.arguments or "{}"
        self._items.append(item)

    def _result(self, part: ToolResult, place: str) -> None:
        call_id = part.id or self._found(part.name, place)
        content = [item for each in part.parts for item in self._content(each, place)]
        if part.failed:
            if content and content[0]["type"] == "input_text":
                content[0]["text"] = f"Error: {content[0]['text']}"
            else:
                content.insert(0, {"type": "input_text", "text": "Error:"})
        plain = not content or (len(content) == 1 and content[0].keys() == {"type", "text"})
        kind = "custom_tool_call_output" if part.free else "function_call_output"
        output = (content[0]["text"] if content else "") if plain else content
        self._items.append({"type": kind, "call_id": call_id, "output": output})

    def _found(self, name: str, place: str) -> str:
        """The id that was made for the call that a result without an id answers: the first open one of its name."""
        found = self._made.named(name) if name else self._made.oldest()
        if found is not None:
            return found
        raise Untranslatable(f"`{place}` answers a call of {name or 'a tool'} that was not made before.", param=place)

    def _foreign(self, part: Foreign) -> None:
        if part.dialect == DIALECT:
            self._items.append(msgspec.Raw(part.raw))
        else:
            self.note(f"dropped {part.what}: OpenAI Responses has no counterpart")

    def _content(self, part: Text | Media, place: str) -> list[Item]:
        if isinstance(part, Text):
            item: Item = {"type": "input_text", "text": part.text}
            return [self._mark(part.cache, item)]
        items: list[Item] = []
        if part.context:
            items.append({"type": "input_text", "text": part.context})
        if part.cited:
            self.note("dropped citations: OpenAI Responses cannot be told to cite")
        items.append(self._mark(part.cache, self._media(part, place)))
        return items

    def _media(self, part: Media, place: str) -> Item:
        if part.kind == "audio" and self._own and part.data:
            form = part.mime.partition("/")[2]
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}}
        if part.kind in ("audio", "video"):
            raise Untranslatable(f"OpenAI Responses takes no {part.kind}. Leave it out of `{place}`.", param=place)
        if part.file_id and not self._request.dialect.startswith("openai"):
            raise Untranslatable(
                f"`{place}` names a file of another provider by its id. Send the file itself.", param=place
            )
        if part.url.startswith("gs:"):
            raise Untranslatable(f"`{place}` has a gs:// address, which OpenAI Responses cannot fetch.", param=place)
        if part.text:
            return {"type": "input_text", "text": f"{part.name}\n{part.text}" if part.name else part.text}
        if part.kind == "image":
            where: Item = {"file_id": part.file_id} if part.file_id else {"image_url": data_url(part)}
            return {"type": "input_image", "detail": part.detail or "auto", **where}
        return {"type": "input_file", **_document(part)}

    def _mark(self, cache: str, item: Item) -> Item:
        """*item* with its cache mark, where the upstream takes one."""
        if not cache:
            return item
        if self._cache_marks and item:
            item["prompt_cache_breakpoint"] = {"mode": "explicit", "ttl": _TTLS.get(cache, "30m")}
        elif not self._cache_marks:
            self.note_marks()
        return item

    def note_marks(self) -> None:
        word = "cache_control" if self._request.dialect == "anthropic" else "prompt_cache_breakpoint"
        self.note(f"dropped {word}: the upstream places its cache marks itself")


def _document(part: Media) -> Item:
    named: Item = {"filename": part.name} if part.name else {}
    if part.file_id:
        return {"file_id": part.file_id, **named}
    if part.url:
        return {"file_url": part.url, **named}
    kind = part.mime.partition("/")[2].partition(";")[0].partition("+")[0]
    return {"file_data": data_url(part), "filename": part.name or f"document.{kind or 'bin'}"}
