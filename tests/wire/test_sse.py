"""Server-sent events: where a stream is cut, what an event says, and how one is written."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.errors import TransportError
from keyturn.wire import Event, Splitter, read_event, split, write_event


def fed(*chunks: bytes, max_event: int = 1 << 20) -> list[bytes]:
    splitter = Splitter(max_event)
    return [splitter.feed(chunk) for chunk in chunks]


def test_whole_events_pass_as_they_came() -> None:
    assert fed(b"data: 1\n\n", b": ping\n\ndata: 2\n\n") == [b"data: 1\n\n", b": ping\n\ndata: 2\n\n"]


def test_a_half_event_waits_for_its_other_half() -> None:
    assert fed(b"data: 1\n\nda", b"ta: 2\n", b"\ndata: 3") == [b"data: 1\n\n", b"", b"data: 2\n\n"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end(newline: bytes) -> None:
    events = [newline.join([b"event: a", b"data: 1", b"", b""]), newline.join([b": x", b"", b""])]
    stream = b"".join(events)
    assert split(fed(stream)[0]) == events
    single = [stream[at : at + 1] for at in range(len(stream))]
    assert [event for event in fed(*single) if event] == events


def test_the_line_feed_of_a_crlf_belongs_to_its_event() -> None:
    assert fed(b"data: 1\r\n\r", b"\ndata: 2\r\n\r\n") == [b"", b"data: 1\r\n\r\ndata: 2\r\n\r\n"]


def test_line_feed_then_carriage_return_ends_an_event_too() -> None:
    assert split(fed(b"data: 1\n\rdata: 2\n\n")[0]) == [b"data: 1\n\r", b"data: 2\n\n"]


def test_blank_lines_between_events_are_no_events() -> None:
    assert split(b"\n\ndata: 1\n\n\n\r\ndata: 2\n\n") == [b"\n\n", b"data: 1\n\n", b"\n\r\n", b"data: 2\n\n"]


def test_keep_alive_newlines_are_relayed_at_once() -> None:
    assert fed(b"\n", b"\r\n", b"\ndata: 1", b"\n\n") == [b"\n", b"\r\n", b"\n", b"data: 1\n\n"]


def test_an_event_may_be_as_long_as_the_bound() -> None:
    event = b"data: 12\n\n"
    assert fed(event, event, max_event=10) == [event, event]
    assert fed(event * 5, max_event=10) == [event * 5]


@pytest.mark.parametrize(
    "chunks",
    [[b"data: 123\n\n"], [b"data: 1", b"2345"], [b"data: 1\n\ndata: 123\n\n"], [b"x" * 11]],
)
def test_a_longer_event_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(TransportError) as caught:
        fed(*chunks, max_event=10)
    assert caught.value.kind == "too_large"


class _CountingBuffer(bytearray):
    """Counts the bytes that searches look at."""

    looked = 0

    def rfind(self, *args: Any) -> int:
        self.looked += len(self) - args[1]
        return super().rfind(*args)

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        self.looked += len(part) if isinstance(part, bytearray) else 1
        return part


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_work_is_linear_in_the_bytes_however_they_come(newline: bytes, size: int) -> None:
    stream = b": x" + newline * 2 + b"data: " + b"x" * 20_000 + newline + b"data: " + b"y" * 20_000 + newline * 2
    splitter = Splitter(1 << 20)
    buffer = splitter.rest = _CountingBuffer()
    relayed = [splitter.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert b"".join(relayed) == stream
    assert splitter.rest is buffer
    assert buffer.looked < 6 * len(stream)


def test_fields() -> None:
    raw = b'\xef\xbb\xbf: comment\nevent: delta\nid: 7\nretry: 1500\ndata: {"a":\ndata:1}\nother: x\ndata\n\n'
    assert read_event(raw) == Event("delta", b'{"a":\n1}\n', "7", 1500)


@pytest.mark.parametrize(
    "raw", [b": ping\n\n", b"\n", b"event: ping\r\n\r\n", b"", b"id: a\0b\n\n", b"retry: soon\n\n"]
)
def test_without_data_there_is_none(raw: bytes) -> None:
    event = read_event(raw)
    assert (event.data, event.id, event.retry) == (None, None, None)


def test_one_space_behind_the_colon_is_not_data() -> None:
    assert read_event(b"data:  x \n\n").data == b" x "
    assert read_event(b"data:x\r\rdata:y\n\n").data == b"x\ny"


@pytest.mark.parametrize(
    ("data", "name", "written"),
    [
        (b"{}", "", b"data: {}\n\n"),
        (b"{}", "error", b"event: error\ndata: {}\n\n"),
        (b"a\nb", "", b"data: a\ndata: b\n\n"),
        (b"", "", b"data: \n\n"),
    ],
)
def test_what_is_written_can_be_read(data: bytes, name: str, written: bytes) -> None:
    assert write_event(data, name) == written
    assert read_event(written) == Event(name, data)
