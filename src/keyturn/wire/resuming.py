"""A stream that takes up another one where that was cut: its client sees one answer that goes on."""

from __future__ import annotations

import msgspec

from keyturn.core import Cited, Delta, Origin, Ping, ReasoningDelta, Signed, Started, TextDelta, Usage, Used

from .bridge import Translation, dialect
from .dialect import Context
from .overlap import Overlap
from .told import Told

ANEW = msgspec.json.encode(
    {"error": {"message": "the model did not go on with the answer, but began anew", "type": "server_error"}}
)


class GoingOn(Translation):
    """Reads one upstream's answer and writes the rest of what the client was *told*.

    *before*: the text that the upstream was given as its beginning; what it says of that once more is left out, and so
    is its thinking. Empty: it answers from the start, of which the client has no text. *spent*: what the attempts
    before used, added to what the client is told of usage.
    """

    __slots__ = ("_after_text", "_error", "_overlap", "_spent")

    def __init__(self, upstream: str, origin: Origin, context: Context, told: Told, before: str, spent: Usage | None):
        reader = dialect(upstream).reader
        assert reader is not None, upstream
        super().__init__(reader(origin), told.writer(context), context.id)
        self._after_text = told.in_text
        self._overlap = Overlap(told.text, told.text[len(before) :]) if before else None
        self._spent = spent
        self._error: bytes | None = None

    @property
    def error(self) -> bytes | None:
        """The JSON of an error event."""
        return self._error or self._reader.error

    def feed(self, chunk: bytes) -> bytes:
        """The client's events for *chunk*; none once the model has turned out to begin anew."""
        piece = super().feed(chunk) if self._error is None else b""
        return piece if self._error is None else b""

    def end(self) -> bool:
        """At the end of the bytes: whether the answer is complete."""
        return super().end() and self._error is None

    def _end(self) -> bytes:
        held = self._overlap.end() if self._overlap is not None and not self._ended else ""
        return (super()._written([TextDelta(held)]) if held else b"") + super()._end()

    def _written(self, deltas: list[Delta]) -> bytes:
        own = self.usage
        rest: list[Delta] = []
        for delta in deltas:
            kind = type(delta)
            if kind is Used or kind is Started:
                own = delta.usage or own  # type: ignore[union-attr]
                if kind is Used:
                    rest.append(Used(added(self._spent, delta.usage)))  # type: ignore[union-attr, arg-type]
            elif kind is TextDelta:
                text = delta.text if self._overlap is None else self._overlap.feed(delta.text)  # type: ignore[union-attr]
                if text:
                    rest.append(TextDelta(text, delta.choice, delta.logprobs))  # type: ignore[union-attr]
            elif kind is Ping:
                rest.append(delta)
            elif not self._after_text or kind not in (ReasoningDelta, Signed, Cited):
                if self._overlap is not None and (text := self._overlap.end()):
                    rest.append(TextDelta(text))
                rest.append(delta)
        if self._overlap is not None and self._overlap.anew:
            self._error = ANEW
            return b""
        piece = super()._written(rest)
        self.usage = own
        return piece


def added(spent: Usage | None, used: Usage) -> Usage:
    """What both used together."""
    if spent is None:
        return used
    return Usage(
        spent.input + used.input,
        spent.output + used.output,
        spent.cached + used.cached,
        spent.reasoning + used.reasoning,
        spent.exact and used.exact,
        None if spent.cost is None or used.cost is None else spent.cost + used.cost,
        spent.written + used.written,
    )
