"""Where a stream stands that a client has the beginning of, in each dialect: its names and numbers, for who goes on."""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec

from keyturn.core import Usage

from .dialect import Context, StreamWriter
from .jsontext import loose
from .sse import read_event

_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
_NAMES = ("id", "created_at", "model", "previous_response_id", "store", "metadata")
"""What a response says of itself from the beginning, and says once more at its end."""
_DELTA = b"event: content_block_delta"


class Place(Protocol):
    """Reads the events that a client gets. What it has read is never changed by a writer that goes on."""

    @property
    def open_text(self) -> bool:
        """A part of the answer that holds text is open."""
        ...

    @property
    def open_other(self) -> bool:
        """Another part is: thinking, which is signed as a whole, or what only one provider knows."""
        ...

    def take(self, event: bytes) -> None:
        """The client was given *event*."""
        ...

    def writer(self, context: Context, said: int) -> StreamWriter:
        """What writes the rest, behind *said* characters of text."""
        ...


def place_of(dialect: str) -> Place:
    """The place in a stream of *dialect*, before its first event."""
    places: dict[str, type[ChatPlace | AnthropicPlace | GeminiPlace | ResponsesPlace]] = {
        "openai_chat": ChatPlace,
        "anthropic": AnthropicPlace,
        "gemini": GeminiPlace,
        "openai_responses": ResponsesPlace,
    }
    return places[dialect]()


class ChatPlace:
    """OpenAI Chat: all chunks bear one id, and the role is told once."""

    open_text = open_other = False

    def __init__(self) -> None:
        self._first: dict[str, Any] | None = None

    def take(self, event: bytes) -> None:
        if self._first is None:
            chunk = _object(event)
            self._first = chunk if chunk.get("choices") else None

    def writer(self, context: Context, said: int) -> StreamWriter:
        from .chat_writer import ChatWriter

        writer = ChatWriter(context)
        if self._first is not None:
            created = self._first.get("created")
            number = int(created) if isinstance(created, (int, float)) else context.created
            writer.go_on(_text(self._first, "id"), _text(self._first, "model"), number, said)
        return writer


class AnthropicPlace:
    """Anthropic: blocks are numbered, and one may be open."""

    def __init__(self) -> None:
        self._begun = False
        self._index = -1
        self._kind = ""
        self._usage: Usage | None = None

    @property
    def open_text(self) -> bool:
        return self._kind == "text"

    @property
    def open_other(self) -> bool:
        return self._kind not in ("", "text")

    def take(self, event: bytes) -> None:
        if event.startswith(_DELTA):
            return
        told = _object(event)
        kind = told.get("type")
        if kind == "message_start":
            from .anthropic_blocks import merge_usage

            message = told.get("message")
            self._begun = True
            self._usage = merge_usage({}, message.get("usage")) if isinstance(message, dict) else None
        elif kind == "content_block_start":
            block = told.get("content_block")
            self._index = _whole(told, "index", self._index + 1)
            self._kind = _text(block, "type") if isinstance(block, dict) else ""
        elif kind == "content_block_stop":
            self._kind = ""

    def writer(self, context: Context, said: int) -> StreamWriter:
        from .anthropic_writer import AnthropicWriter

        writer = AnthropicWriter(context)
        if self._begun:
            writer.go_on(self._index, self._kind, self._usage)
        return writer


class GeminiPlace:
    """Gemini: chunks bear one id; nothing is numbered."""

    open_text = open_other = False

    def __init__(self) -> None:
        self._first: dict[str, Any] | None = None

    def take(self, event: bytes) -> None:
        if self._first is None:
            self._first = _object(event) or None

    def writer(self, context: Context, said: int) -> StreamWriter:
        from .gemini_stream import GeminiWriter

        writer = GeminiWriter(context)
        if self._first is not None:
            writer.go_on(_text(self._first, "responseId"), _text(self._first, "modelVersion"))
        return writer


class ResponsesPlace:
    """OpenAI Responses: events are numbered, items and their parts too, and each is told once more when it is done."""

    def __init__(self) -> None:
        self._number = 0
        self._response: dict[str, Any] = {}
        self._items: dict[int, object] = {}
        """By output index; None while open."""
        self._message: tuple[str, int] | None = None
        """Id and output index of the message that is open."""
        self._parts: list[dict[str, object]] = []
        self._said: list[str] | None = None
        """The text that is open; None when no part of it is."""
        self._other = False

    @property
    def open_text(self) -> bool:
        return self._message is not None

    @property
    def open_other(self) -> bool:
        return self._other

    def take(self, event: bytes) -> None:
        if (found := _NUMBER.search(event)) is not None:
            self._number = int(found[1]) + 1
        told = _object(event)
        kind = told.get("type")
        if kind == "response.output_text.delta":
            self._begin(told)
            assert self._said is not None
            self._said.append(_text(told, "delta"))
        elif kind == "response.created":
            response = told.get("response")
            self._response = response if isinstance(response, dict) else {}
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._item(told, done=kind.endswith("done"))
        elif kind == "response.content_part.added" and self._message is not None:
            self._said = []
        elif kind == "response.content_part.done" and self._message is not None:
            part = told.get("part")
            self._parts.append(part if isinstance(part, dict) else {})
            self._said = None

    def _item(self, told: dict[str, Any], *, done: bool) -> None:
        item = told.get("item")
        index = _whole(told, "output_index", len(self._items))
        if not isinstance(item, dict):
            return
        self._items[index] = msgspec.Raw(msgspec.json.encode(item)) if done else None
        self._other = not done and item.get("type") != "message"
        if item.get("type") == "message":
            self._message = None if done else (_text(item, "id"), index)
            self._parts, self._said = [], None

    def _begin(self, told: dict[str, Any]) -> None:
        """Text comes: of servers that tell no items and parts, its own members say where."""
        if self._message is None:
            index = _whole(told, "output_index", len(self._items))
            self._message, self._parts = (_text(told, "item_id"), index), []
            self._items[index] = None
        if self._said is None:
            self._said = []

    def writer(self, context: Context, said: int) -> StreamWriter:
        from .responses_open import OpenMessage
        from .responses_writer import ResponsesWriter

        writer = ResponsesWriter(context)
        if not self._response and not self._number:
            return writer
        items = [self._items.get(index) for index in range(max(self._items, default=-1) + 1)]
        message = None
        if self._message is not None:
            text = None if self._said is None else "".join(self._said)
            message = OpenMessage(*self._message, list(self._parts), text)
        same = {name: self._response[name] for name in _NAMES if name in self._response}
        writer.go_on(self._number, items, same, message)
        return writer


def _object(event: bytes) -> dict[str, Any]:
    """The JSON object that *event* carries; empty when it carries none."""
    data = read_event(event).data
    found = loose(data) if data is not None else None
    return found if isinstance(found, dict) else {}


def _text(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _whole(holder: dict[str, Any], name: str, default: int) -> int:
    value = holder.get(name)
    return int(value) if isinstance(value, (int, float)) and 0 <= value < 100_000 else default
