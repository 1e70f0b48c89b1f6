"""Output items of a Responses stream while they are open: a message, thoughts, a call of a tool."""

from __future__ import annotations

import msgspec

from .signatures import MARK
from .tools import ToolName

_encode = msgspec.json.encode
UNSIGNED = f"{MARK}."
"""The encrypted content of thoughts that nobody signed. It marks them as foreign to OpenAI, which refuses reasoning
items without any: "Item with id … not found. Items are not persisted when `store` is set to false"."""
_WRAPPED = msgspec.json.Decoder(dict[str, str])


class Sink:
    """The events under way, their numbers, and the items that are complete."""

    __slots__ = ("events", "id", "items", "number")

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.events: list[bytes] = []
        self.number = 0
        """Of the next event."""
        self.items: list[object] = []
        """By output index; None while open."""

    def emit(self, kind: str, **members: object) -> None:
        """One event."""
        data = _encode({"type": kind, "sequence_number": self.number, **members})
        self.number += 1
        self.events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))

    def delta(self, frame: tuple[bytes, bytes], said: str, tail: bytes = b"") -> None:
        """One event of *frame*, a delta; *tail* follows the text."""
        head, middle = frame
        self.events.append(b"%b%d%b%b%b}\n\n" % (head, self.number, middle, _encode(said), tail))
        self.number += 1

    def taken(self) -> bytes:
        """The bytes of all events since the last time."""
        events, self.events = self.events, []
        return events[0] if len(events) == 1 else b"".join(events)

    def opened(self, prefix: str) -> tuple[str, int]:
        """Id and output index of a new item."""
        index = len(self.items)
        self.items.append(None)
        return f"{prefix}_{self.id}_{index}", index

    def closed(self, index: int, item: object) -> None:
        """Item number *index* is complete."""
        self.items[index] = item
        self.emit("response.output_item.done", output_index=index, item=item)

    def whole(self, item: object) -> None:
        """An item that comes complete."""
        _, index = self.opened("")
        self.emit("response.output_item.added", output_index=index, item=item)
        self.closed(index, item)


def _frame(kind: str, **members: object) -> tuple[bytes, bytes]:
    """A delta event around its number and its text."""
    where = b"".join(b",%b:%b" % (_encode(name), _encode(value)) for name, value in members.items())
    return b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind.encode(), kind.encode()), where + b',"delta":'


class OpenMessage(msgspec.Struct, frozen=True):
    """A message that is open where a stream was cut: its id, output index, parts so far, and the text that is open,
    None when no part is."""

    id: str
    index: int
    parts: list[dict[str, object]]
    said: str | None


class Message:
    """A message of the assistant: parts of text and refusals, one open at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._id, self.index = sink.opened("msg")
        self._parts: list[dict[str, object]] = []
        self._kind = ""
        self._said: list[str] = []
        self.length = 0
        """Characters of the open part."""
        self._notes: list[object] = []
        self._logprobs: list[msgspec.Raw] = []
        self._frame = (b"", b"")
        sink.emit("response.output_item.added", output_index=self.index, item=self._item("in_progress"))

    @classmethod
    def going_on(cls, sink: Sink, begun: OpenMessage) -> Message:
        """A message that the client has the beginning of."""
        message = cls.__new__(cls)
        message._sink, message._id, message.index = sink, begun.id, begun.index
        message._parts, message._notes, message._logprobs = begun.parts, [], []
        message._said, message.length, message._kind = [], 0, ""
        message._frame = (b"", b"")
        if begun.said is not None:
            message._kind, message._said, message.length = "output_text", [begun.said], len(begun.said)
            message._frame = _frame("response.output_text.delta", **message._where())
        return message

    def text(self, text: str, logprobs: list[msgspec.Raw]) -> None:
        """More text."""
        if self._kind != "output_text":
            self._begin("output_text", "response.output_text.delta")
        self._said.append(text)
        self.length += len(text)
        self._logprobs += logprobs
        tail = b',"logprobs":%b' % _encode(logprobs) if logprobs else b',"logprobs":[]'
        self._sink.delta(self._frame, text, tail)

    def refuse(self, text: str) -> None:
        """More of a refusal."""
        if self._kind != "refusal":
            self._begin("refusal", "response.refusal.delta")
        self._said.append(text)
        self.length += len(text)
        self._sink.delta(self._frame, text)

    def cite(self, note: object) -> None:
        """A source of the text so far; None is none."""
        if note is None:
            return
        if self._kind != "output_text":
            self._begin("output_text", "response.output_text.delta")
        self._sink.emit(
            "response.output_text.annotation.added", **self._where(), annotation_index=len(self._notes), annotation=note
        )
        self._notes.append(note)

    def close_part(self) -> None:
        """The open part is complete; more text is a new one."""
        if not self._kind:
            return
        said, where = "".join(self._said), self._where()
        if self._kind == "refusal":
            self._sink.emit("response.refusal.done", **where, refusal=said)
        else:
            self._sink.emit("response.output_text.done", **where, text=said, logprobs=self._logprobs)
        part = self._part(said)
        self._sink.emit("response.content_part.done", **where, part=part)
        self._parts.append(part)
        self._kind = ""

    def close(self, status: str = "completed") -> None:
        """The message is complete, or cut off."""
        self.close_part()
        self._sink.closed(self.index, self._item(status))

    def _begin(self, kind: str, event: str) -> None:
        self.close_part()
        self._kind, self._said, self._notes, self._logprobs = kind, [], [], []
        self.length = 0
        self._sink.emit("response.content_part.added", **self._where(), part=self._part(""))
        self._frame = _frame(event, **self._where())

    def _where(self) -> dict[str, object]:
        return {"item_id": self._id, "output_index": self.index, "content_index": len(self._parts)}

    def _part(self, said: str) -> dict[str, object]:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": said}
        return {"type": "output_text", "text": said, "annotations": self._notes, "logprobs": self._logprobs}

    def _item(self, status: str) -> dict[str, object]:
        return {"type": "message", "id": self._id, "status": status, "role": "assistant", "content": self._parts}


class Thoughts:
    """A reasoning item: parts of a summary, parts of the thinking itself, and the signature as encrypted content."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._id, self.index = sink.opened("rs")
        self._summary: list[dict[str, str]] = []
        self._content: list[dict[str, str]] = []
        self._kind = ""
        self._said: list[str] = []
        self._frame = (b"", b"")
        self.encrypted = ""
        sink.emit("response.output_item.added", output_index=self.index, item=self._item("in_progress"))

    @property
    def empty(self) -> bool:
        """Whether no text has come."""
        return not (self._kind or self._summary or self._content)

    def think(self, text: str, summary: bool) -> None:
        """More thinking, or more of its *summary*."""
        kind = "summary_text" if summary else "reasoning_text"
        if kind != self._kind:
            self._begin(kind)
        self._said.append(text)
        self._sink.delta(self._frame, text)

    def close(self, status: str = "completed") -> None:
        """The thoughts are complete, or cut off."""
        self._close_part()
        self.encrypted = self.encrypted or UNSIGNED
        self._sink.closed(self.index, self._item(status))

    def _begin(self, kind: str) -> None:
        self._close_part()
        self._kind, self._said = kind, []
        where, part = self._where(), {"type": kind, "text": ""}
        if kind == "summary_text":
            self._sink.emit("response.reasoning_summary_part.added", **where, part=part)
            self._frame = _frame("response.reasoning_summary_text.delta", **where)
        else:
            self._sink.emit("response.content_part.added", **where, part=part)
            self._frame = _frame("response.reasoning_text.delta", **where)

    def _close_part(self) -> None:
        if not self._kind:
            return
        said, where = "".join(self._said), self._where()
        part = {"type": self._kind, "text": said}
        if self._kind == "summary_text":
            self._sink.emit("response.reasoning_summary_text.done", **where, text=said)
            self._sink.emit("response.reasoning_summary_part.done", **where, part=part)
            self._summary.append(part)
        else:
            self._sink.emit("response.reasoning_text.done", **where, text=said)
            self._sink.emit("response.content_part.done", **where, part=part)
            self._content.append(part)
        self._kind = ""

    def _where(self) -> dict[str, object]:
        place = {"item_id": self._id, "output_index": self.index}
        if self._kind == "summary_text":
            return {**place, "summary_index": len(self._summary)}
        return {**place, "content_index": len(self._content)}

    def _item(self, status: str) -> dict[str, object]:
        item: dict[str, object] = {"type": "reasoning", "id": self._id, "summary": self._summary, "status": status}
        if self._content:
            item["content"] = self._content
        if self.encrypted:
            item["encrypted_content"] = self.encrypted
        return item


class Call:
    """A call of one of the client's tools. *wrapped*: a free tool was called with an object that holds its text."""

    def __init__(self, sink: Sink, call_id: str, named: ToolName, wrapped: bool) -> None:
        self._sink = sink
        self._named = named
        self._wrapped = wrapped
        self._id, self.index = sink.opened("ctc" if named.free else "fc")
        self._call_id = call_id or f"call_{sink.id}_{self.index}"
        self._said: list[str] = []
        self._event = "response.custom_tool_call_input" if named.free else "response.function_call_arguments"
        self._where: dict[str, object] = {"item_id": self._id, "output_index": self.index}
        self._frame = _frame(f"{self._event}.delta", **self._where)
        sink.emit("response.output_item.added", output_index=self.index, item=self._item("", "in_progress"))

    def more(self, arguments: str) -> None:
        """More of the arguments. Those that are to be unwrapped are held back until all are there."""
        if arguments:
            self._said.append(arguments)
            if not self._wrapped:
                self._sink.delta(self._frame, arguments)

    def close(self, status: str = "completed") -> None:
        """The arguments are complete, or cut off."""
        said = "".join(self._said)
        if self._wrapped:
            said = _unwrapped(said)
            self._sink.delta(self._frame, said)
        elif not said and not self._named.free and status == "completed":
            said = "{}"
            self._sink.delta(self._frame, said)
        done: dict[str, object] = {"input" if self._named.free else "arguments": said}
        if not self._named.free:
            done["name"] = self._named.name
        self._sink.emit(f"{self._event}.done", **self._where, **done)
        self._sink.closed(self.index, self._item(said, status))

    def _item(self, said: str, status: str) -> dict[str, object]:
        name, namespace, free = self._named
        item: dict[str, object] = {"type": "custom_tool_call" if free else "function_call", "id": self._id}
        item |= {"call_id": self._call_id, "name": name, "input" if free else "arguments": said, "status": status}
        if namespace:
            item["namespace"] = namespace
        return item


def _unwrapped(arguments: str) -> str:
    """The text in `{"input": …}`, the only member of an object; else the arguments as they are."""
    try:
        found = _WRAPPED.decode(arguments)
    except (ValueError, RecursionError):
        return arguments
    return found["input"] if found.keys() == {"input"} else arguments
