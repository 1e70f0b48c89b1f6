"""Frames of a video told in words: what is sent, and what is refused before anything is."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import pytest

from keyturn.client.frames import summarise_frames

JPEG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n a picture"


class Recorder:
    """A client that answers with what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []

    def chat(self, messages: list[dict[str, Any]], **members: Any) -> str:
        self.asked.append((messages, members))
        return "a summary"

    @property
    def parts(self) -> list[dict[str, Any]]:
        [([message], _)] = self.asked
        assert message["role"] == "user"
        found: list[dict[str, Any]] = message["content"]
        return found


def test_VIS_02_a_picture_and_its_moment_in_turn() -> None:
    client = Recorder()
    frames: list[bytes | str] = [
        JPEG,
        base64.b64encode(JPEG).decode(),
        f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}",
        PNG,
    ]
    assert summarise_frames(frames, [0, 1.5, "at 0:07", 60], client=client, prompt="What?") == "a summary"
    [(_, members)] = client.asked
    assert members == {"temperature": 0.2, "max_tokens": 256}
    assert client.parts[0] == {"type": "text", "text": "What?"}
    assert [part["type"] for part in client.parts[1:]] == ["image_url", "text"] * 4
    jpeg = "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()
    png = "data:image/png;base64," + base64.b64encode(PNG).decode()
    images = [part["image_url"] for part in client.parts[1::2]]
    assert images == [{"url": url, "detail": "low"} for url in (jpeg, jpeg, jpeg, png)]
    assert [part["text"] for part in client.parts[2::2]] == [
        "Timestamp: 0.00 s",
        "Timestamp: 1.50 s",
        "at 0:07",
        "Timestamp: 60.00 s",
    ]


def test_VIS_02_no_frames() -> None:
    client = Recorder()
    assert summarise_frames([], [], client=client) == "No frames supplied."
    assert client.asked == []


@pytest.mark.parametrize(("given", "sent"), [(1, 1), (16, 16), (17, 16), (31, 16), (1000, 16)])
def test_VIS_02_at_most_sixteen_spread_from_the_first_to_the_last(given: int, sent: int) -> None:
    client = Recorder()
    summarise_frames([JPEG] * given, [str(number) for number in range(given)], client=client, model="m")
    moments = [int(part["text"]) for part in client.parts[2::2]]
    assert len(moments) == len(set(moments)) == sent
    assert (moments[0], moments[-1]) == (0, given - 1)
    steps = [after - before for before, after in pairwise(moments)]
    assert moments == sorted(moments)
    assert not steps or max(steps) - min(steps) <= 1
    assert client.asked[0][1]["model"] == "m"


@pytest.mark.parametrize(
    ("frames", "timestamps", "says"),
    [
        ([JPEG], [], "1 frames and 0 timestamps"),
        ([], [1.0], "0 frames and 1 timestamps"),
        ([JPEG, "not base64!"], [1, 2], "frame 1 is neither"),
        ([b""], [1], "frame 0 is empty"),
    ],
)
def test_VIS_02_what_cannot_be_sent_is_told(frames: list[Any], timestamps: list[Any], says: str) -> None:
    client = Recorder()
    with pytest.raises(ValueError, match=says):
        summarise_frames(frames, timestamps, client=client)
    assert client.asked == []
