"""Kept answers of the Responses API as text: what a turn was, what it leads to, and the lists that clients page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from keyturn.core import Call
from keyturn.errors import TransportError

from .sse import Splitter, read_event, split

LONGEST_ID = 200
LARGEST_EVENT = 64 * 1024 * 1024
"""Bytes of the last event of a stream, which holds all of its answer."""
OVER = ("completed", "incomplete")
"""States of an answer that is as good as it gets."""

_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[Any]).decode


class _Answer(msgspec.Struct):
    id: str
    status: str
    output: msgspec.Raw


class _Event(msgspec.Struct):
    type: str
    response: msgspec.Raw = msgspec.Raw()


class KeptAnswer(NamedTuple):
    """An answer worth keeping."""

    id: str
    output: bytes
    """Its items, a JSON array."""


def items_of(given: bytes) -> bytes:
    """A request's `input` as a list of items."""
    if not given.startswith(b'"'):
        return given
    content = [{"type": "input_text", "text": msgspec.Raw(given)}]
    return _encode([{"type": "message", "role": "user", "content": content}])


def read_kept(response: bytes) -> KeptAnswer | None:
    """What of a response object leads on to the next turn; None when it is no whole answer with an id."""
    try:
        answer = msgspec.json.decode(response, type=_Answer)
    except (ValueError, RecursionError):
        return None
    output = bytes(answer.output).strip()
    if answer.status not in OVER or not is_id(answer.id) or not output.startswith(b"["):
        return None
    return KeptAnswer(answer.id, output)


def is_id(text: str) -> bool:
    """Whether *text* can be the id of an answer."""
    return 0 < len(text) <= LONGEST_ID and text.isascii() and text.isprintable()


def going_on(call: Call, turns: Sequence[bytes]) -> Call:
    """*call* with the items of earlier *turns*, JSON arrays, before its own `input`. Raises BadRequest."""
    from .responses_parse import with_input

    inner = [each.strip()[1:-1].strip() for each in (*turns, items_of(call.members["input"]))]
    return with_input(call, b"[" + b",".join(filter(None, inner)) + b"]")


def told_response(response: bytes, previous: str) -> bytes:
    """A kept response object as it is given out again: what was said of keeping is what was done here."""
    members: dict[str, object] = {**_members(response)}
    return _encode({**members, "store": True, "previous_response_id": previous or None})


def told_items(given: bytes, id: str, *, newest_first: bool, after: str, most: int) -> bytes:
    """A page of the input items of response *id*; *after*: the id of the last item of the page before."""
    rows = [row for row in _items(given) if isinstance(row, dict)]
    for number, row in enumerate(rows):
        if not isinstance(row.get("id"), str):
            row["id"] = f"item_{id.removeprefix('resp_')}_{number}"
    if newest_first:
        rows.reverse()
    if after:
        rows = rows[next((number + 1 for number, row in enumerate(rows) if row["id"] == after), len(rows)) :]
    page = rows[:most]
    return _encode(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(rows) > len(page),
        }
    )


class AnswerWatch:
    """Finds the whole answer in the last event of a stream, while the stream is relayed as it is."""

    def __init__(self) -> None:
        self._splitter: Splitter | None = Splitter(LARGEST_EVENT)

    def feed(self, piece: bytes) -> bytes | None:
        """The response object, once, when *piece* completes the event that holds it."""
        if self._splitter is None:
            return None
        try:
            block = self._splitter.feed(piece)
        except TransportError:  # larger than anything that is kept
            self._splitter = None
            return None
        if b"response.completed" not in block and b"response.incomplete" not in block:
            return None
        for raw in split(block):
            if (response := _final(read_event(raw).data)) is not None:
                self._splitter = None
                return response
        return None


def _final(data: bytes | None) -> bytes | None:
    if data is None:
        return None
    try:
        event = msgspec.json.decode(data, type=_Event)
    except (ValueError, RecursionError):
        return None
    return bytes(event.response) if event.type in ("response.completed", "response.incomplete") else None
