"""Frames of a video told in words: some pictures with their moments, put to a model that sees."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Protocol

MOST_FRAMES = 16
NO_FRAMES = "No frames supplied."
PROMPT = (
    "These are frames of one video in the order of time, each followed by its moment. Say what happens: the scene, who "
    "or what is in it, and what changes from frame to frame. Name moments where that helps."
)
MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"), (b"RIFF", "image/webp"))
"""How pictures begin that are no JPEG."""


class Chats(Protocol):
    """What a summary needs of a client: `get_smart_client()` has it, `get_client(…)` too."""

    def chat(self, messages: list[dict[str, Any]], **members: Any) -> str: ...


def summarise_frames(
    frames: Sequence[bytes | str],
    timestamps: Sequence[float | str],
    *,
    client: Chats | None = None,
    model: str | None = None,
    prompt: str = PROMPT,
) -> str:
    """What the frames of a video show, in words.

    *frames* are JPEG pictures (PNG, GIF and WebP too): bytes, base64 text, or URLs (`data:`, `https:`). *timestamps*
    are their moments, as many: seconds, or texts that are shown as they are. Of more than 16 frames, 16 are sent,
    spread evenly from the first to the last. Without frames the answer is "No frames supplied." and nobody is asked.

    *client* is asked, by default `get_smart_client()`; *model* only if it is given. Raises ValueError when the lengths
    differ or a frame is no picture, and what the client raises: RuntimeError with "All vision-capable API keys
    exhausted" when no key of a model that sees can answer.
    """
    if len(frames) != len(timestamps):
        raise ValueError(f"there are {len(frames)} frames and {len(timestamps)} timestamps; give one for each frame")
    if not frames:
        return NO_FRAMES
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    for number in _chosen(len(frames)):
        image = {"url": _url(frames[number], number), "detail": "low"}
        content.append({"type": "image_url", "image_url": image})
        content.append({"type": "text", "text": _moment(timestamps[number])})
    if client is None:
        from .smart import get_smart_client

        client = get_smart_client()
    members: dict[str, Any] = {"temperature": 0.2, "max_tokens": 256}
    if model is not None:
        members["model"] = model
    return client.chat([{"role": "user", "content": content}], **members)


def _chosen(count: int) -> list[int]:
    """Which of *count* frames are sent."""
    if count <= MOST_FRAMES:
        return list(range(count))
    last = MOST_FRAMES - 1
    return [(place * (count - 1) + last // 2) // last for place in range(MOST_FRAMES)]


def _moment(timestamp: float | str) -> str:
    if isinstance(timestamp, str):
        return timestamp
    try:
        return f"Timestamp: {float(timestamp):.2f} s"
    except (TypeError, ValueError):
        raise TypeError(f"a timestamp is a number of seconds or a text, not {timestamp!r:.40}") from None


def _url(frame: bytes | str, number: int) -> str:
    """*frame* as a URL."""
    if isinstance(frame, str):
        if frame.startswith(("data:", "https:", "http:")):
            return frame
        try:
            frame = base64.b64decode("".join(frame.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"frame {number} is neither a URL nor base64: give the bytes of a JPEG picture") from error
    if not isinstance(frame, bytes | bytearray | memoryview):
        raise TypeError(f"frame {number} is of type {type(frame).__name__}: give the bytes of a JPEG picture")
    frame = bytes(frame)
    if not frame:
        raise ValueError(f"frame {number} is empty: give the bytes of a JPEG picture")
    media = next((media for start, media in MAGIC if frame.startswith(start)), "image/jpeg")
    return f"data:{media};base64,{base64.b64encode(frame).decode()}"
