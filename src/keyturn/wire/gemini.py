"""The Gemini generateContent dialect: its entry in the table, relayed streams, lists of models."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from keyturn.core import Call, Usage

from . import gemini_shapes as shapes
from .dialect import Dialect
from .gemini_answer import read_answer, read_reply, write_answer
from .gemini_errors import error_body, error_event
from .gemini_fields import DIALECT, GeminiFields
from .gemini_parse import parse_count_tokens, parse_embed, parse_generate
from .gemini_render import write_request
from .gemini_request import read_request
from .gemini_stream import GeminiReader, GeminiWriter
from .jsontext import loose
from .sse import read_event, split
from .streaming import MAX_EVENT, StreamWatch

__all__ = [
    "GEMINI",
    "GeminiWatch",
    "count_body",
    "model_entry",
    "models_page",
    "parse_count_tokens",
    "parse_embed",
    "parse_generate",
]

_USED = b'"usageMetadata"'


class GeminiWatch(StreamWatch):
    """Relays a stream as it comes, or, with *array*, its events as the elements of one JSON array.

    *choices*: how many were asked for; each has to finish. Every chunk carries usage: only the last one's is read, when
    somebody asks.
    """

    marks = (b'"finishReason"', b'"error"', b'"thoughtSignature"', b'"promptFeedback"')

    def __init__(self, *, array: bool = False, choices: int = 1, max_event: int = MAX_EVENT) -> None:
        self._last = b""
        self._read: Usage | None = None
        super().__init__(max_event)
        self._array = array
        self._begun = False
        self._choices = choices
        self._ended: set[int] = set()

    @property
    def usage(self) -> Usage | None:
        """From the last chunk that carried it."""
        if self._last:
            for event in reversed(split(self._last)):
                if _USED in event and (usage := self._usage_of(event)) is not None:
                    self._read = usage
                    break
            self._last = b""
        return self._read

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._read = usage

    def take(self, name: str, data: bytes) -> bool:
        """Read one chunk."""
        chunk = shapes.read_chunk(data)
        if chunk is None:
            return False
        if chunk.error:
            self.fail(data)
            return False
        speaks = False
        for candidate in chunk.candidates or ():
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.thoughtSignature:
                    self.signatures.append(part.thoughtSignature)
                speaks = speaks or bool(part.text) or part.text is None
            if candidate.finishReason:
                self._ended.add(shapes.index_of(candidate))
                speaks = True
        if chunk.blocked:
            self.finished = True
        self.finished = self.finished or len(self._ended) >= self._choices
        return speaks or self.finished

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now. Raises TransportError `too_large`."""
        relayed = super().feed(chunk)
        if _USED in relayed:
            self._last = relayed
        return self._elements(relayed) if self._array else relayed

    def end(self) -> bool:
        """At the end of the bytes: True when the answer is complete, False when it was cut or failed."""
        whole = super().end()
        if _USED in self.tail:
            self._last = self.tail
        if self._array and whole:
            self.tail = self._elements(self.tail) + (b"]" if self._begun else b"[]")
        return whole

    def _elements(self, events: bytes) -> bytes:
        written = b""
        for event in split(events):
            data = read_event(event).data
            if data is not None:
                written += (b",\r\n" if self._begun else b"[") + data
                self._begun = True
        return written

    def _usage_of(self, event: bytes) -> Usage | None:
        data = read_event(event).data
        chunk = shapes.read_chunk(data) if data is not None else None
        return shapes.read_used(chunk.usageMetadata) if chunk is not None else None


def _watch(call: Call) -> GeminiWatch:
    config = loose(call.members.get("generationConfig", b"null"))
    choices = GeminiFields(config).get("candidateCount") if isinstance(config, dict) else None
    return GeminiWatch(array=call.form == "array", choices=choices if type(choices) is int and choices > 1 else 1)


def model_entry(model: str, provider: str, created: int) -> dict[str, object]:
    """The answer of `GET …/models/{model}`, and one entry of the list; it has no place for *created*."""
    return {
        "name": f"models/{model}",
        "version": "1",
        "displayName": model,
        "description": f"Served by {provider}.",
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def models_page(rows: Iterable[tuple[str, str, int]]) -> bytes:
    """The answer of `GET …/models` for rows of (id, provider, created): all of them on one page."""
    return msgspec.json.encode({"models": [model_entry(*row) for row in rows]})


def count_body(tokens: int) -> bytes:
    """The answer of a `:countTokens`."""
    return msgspec.json.encode({"totalTokens": tokens})


GEMINI = Dialect(
    DIALECT,
    read_request=read_request,
    write_answer=write_answer,
    writer=GeminiWriter,
    error_body=error_body,
    error_event=error_event,
    write_request=write_request,
    read_answer=read_answer,
    reader=GeminiReader,
    read_reply=read_reply,
    watch=_watch,
)
