"""What a client has of a streamed answer, read from the events that it gets: what may be held back, what may follow."""

from __future__ import annotations

from keyturn.core import (
    Call,
    Cited,
    Delta,
    ForeignPart,
    Origin,
    ReasoningDelta,
    RefusalDelta,
    Signed,
    Stopped,
    TextDelta,
    ToolDelta,
    ToolStarted,
)

from .bridge import dialect
from .dialect import Context, StreamWriter
from .jsontext import loose
from .places import place_of
from .sse import read_event, split

IDLE, FRAME, THOUGHT, TEXT, CALL = range(5)
"""What an event brings: nothing (a comment, a ping), what is around the answer, thinking, text, a part of a call."""
_NOBODY = Origin("", "", "")
_TOOLS = (b'"tool_calls"', b'"function_call"')


class Told:
    """Follows one stream on its way to the client of *call*, whoever writes it.

    Its text is kept up to *most* characters; nobody can add to a longer one.
    """

    def __init__(self, call: Call, most: int) -> None:
        self._most = most
        self._dialect = call.dialect
        self._array = call.form == "array"
        self._place = place_of(call.dialect)
        self._texts: list[str] = []
        self._deltas: list[Delta] = []
        self._found = IDLE
        self.size = 0
        """Characters of text."""
        self.begun = False
        """The client has more than comments."""
        self._spoke = False
        """It has a part of the answer that is no text and no call."""
        self.called = False
        """It has a part of a call of a tool."""
        self.ends = False
        """The event that was looked at last says why the answer ended."""
        self.stopped = False
        """The client has such an event."""
        self.barred = ""
        """Why no other model can add to what it has; empty when one can."""
        self.renew()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def in_text(self) -> bool:
        """Text was told, or a part of the answer that is to hold text is open."""
        return self.size > 0 or self._spoke or self._place.open_text

    @property
    def in_other(self) -> bool:
        """A part of the answer is open that nobody else can add to: thinking, or a tool of the provider's own."""
        return self._place.open_other

    def renew(self) -> None:
        """Somebody else goes on: what the one before had begun to say is over."""
        reader = dialect(self._dialect).reader
        assert reader is not None
        self._reader = reader(_NOBODY)

    def pieces(self, block: bytes) -> list[bytes]:
        """The events in *block*. Elements of a JSON array come together as they are."""
        if self._array or block.find(b"\n\n") == len(block) - 2:  # nearly always it is one
            return [block]
        return split(block)

    def is_idle(self, event: bytes) -> bool:
        """Whether *event* is a comment or a ping, which says nothing of the answer."""
        return not self._array and (event[:1] == b":" or event.isspace() or event.startswith(b"event: ping"))

    def look(self, event: bytes) -> int:
        """What *event* would bring to the client, the most telling of it. Followed by `took` when it gets it."""
        self._found = self._look(event)
        return self._found

    def _look(self, event: bytes) -> int:
        self._deltas, self.ends = [], False
        if self.is_idle(event):
            return IDLE
        found = FRAME
        self._deltas = self._read(event) if self._array else self._reader.feed(event)
        for delta in self._deltas:
            found = max(found, _kind(delta))
            self.ends = self.ends or type(delta) is Stopped
        if self._dialect == "openai_chat" and found < CALL and _has_call(event):  # its name is still to come
            return CALL
        if self._dialect == "anthropic" and found == FRAME and _opens_text(event):
            return TEXT
        return found

    def took(self, event: bytes) -> None:
        """The client gets *event*, which was looked at last."""
        if self._found == IDLE:
            return
        self.begun = True
        self.called = self.called or self._found == CALL
        for delta in self._deltas:
            kind = type(delta)
            if kind is TextDelta:
                self.size += len(delta.text)  # type: ignore[union-attr]
                if self.size <= self._most:
                    self._texts.append(delta.text)  # type: ignore[union-attr]
                if delta.logprobs:  # type: ignore[union-attr]
                    self.barred = "log probabilities were told"
            elif kind is Stopped:
                self.stopped = True
            elif kind in _BARRING:
                self.barred = _BARRING[kind]
                self._spoke = self._spoke or kind is RefusalDelta or kind is ForeignPart
            if getattr(delta, "choice", 0):
                self.barred = "there are several answers"
        if self.size > self._most:
            self.barred = f"its text has more than {self._most} characters"
            return
        if self._array:
            for each in self._elements(event):
                self._place.take(each)
        else:
            self._place.take(event)

    def writer(self, context: Context) -> StreamWriter:
        """What writes the rest: with the names and numbers that the client has seen."""
        return self._place.writer(context, self.size)

    def _read(self, event: bytes) -> list[Delta]:
        out: list[Delta] = []
        for each in self._elements(event):
            out += self._reader.feed(each)
        return out

    def _elements(self, event: bytes) -> list[bytes]:
        """The elements of a JSON array as events."""
        return [b"data: " + each + b"\r\n\r\n" for each in elements(event)]


def elements(piece: bytes) -> list[bytes]:
    """The objects in a piece of a JSON array: what stands between its brackets and commas."""
    text = piece.strip().lstrip(b"[,").rstrip()
    whole = text[:-1] if text.endswith(b"]") else text
    found = loose(b"[" + whole + b"]")
    return [_encoded(each) for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _encoded(value: object) -> bytes:
    from .gemini_shapes import encoded

    return encoded(value)


_BARRING: dict[type, str] = {
    Signed: "a signature of reasoning was told",
    Cited: "sources were told",
    ForeignPart: "a part was told that only its own model can go on from",
    RefusalDelta: "a refusal was told",
}


def _kind(delta: Delta) -> int:
    if type(delta) is TextDelta:
        return TEXT if delta.text else FRAME
    if isinstance(delta, (ToolStarted, ToolDelta)):
        return CALL
    if isinstance(delta, (RefusalDelta, ForeignPart)):
        return TEXT
    return THOUGHT if isinstance(delta, (ReasoningDelta, Signed)) else FRAME


def _has_call(event: bytes) -> bool:
    """Whether a chunk of OpenAI Chat has any part of a call, even without a name."""
    if not any(mark in event for mark in _TOOLS):
        return False
    data = read_event(event).data
    chunk = loose(data) if data is not None else None
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        delta = (choice.get("delta") or choice.get("message")) if isinstance(choice, dict) else None
        if isinstance(delta, dict) and (delta.get("tool_calls") or delta.get("function_call")):
            return True
    return False


def _opens_text(event: bytes) -> bool:
    """Whether a block of text begins, still empty."""
    if b"content_block_start" not in event:
        return False
    data = read_event(event).data
    told = loose(data) if data is not None else None
    block = told.get("content_block") if isinstance(told, dict) else None
    return isinstance(block, dict) and block.get("type") == "text"
