"""What a prompt carries, found in its raw text without decoding it: text, media, and what a model must be able to do.

Inside a JSON string every quote is escaped, so `"image_url":` can only be a member's name, never something that a
user wrote.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PARTS = ((b'"image_url":', "vision"), (b'"video_url":', "vision"), (b'"input_audio":', "audio"), (b'"file":', ""))
"""Members that content parts with media have, and what a model needs to read them."""

_INLINE = re.compile(rb'"(?:data"[ \t\r\n]*:[ \t\r\n]*"|data:[^",]{0,200};base64,)')
_BACKSLASH = ord("\\")

_MOST_INLINE = 1000
"""Inline media looked at in one prompt; what is beyond counts as text."""


class Prompt(NamedTuple):
    """Sizes are estimates: an image in base64 is no text, its address is."""

    text_bytes: int
    media: int
    needs: tuple[str, ...]


def measure(messages: bytes) -> Prompt:
    """The prompt in *messages*, the JSON text of a list of messages. Linear in its length."""
    if b'"type"' not in messages:  # each content part states its type
        return Prompt(len(messages), 0, ())
    media = 0
    needs = []
    for name, need in _PARTS:
        if count := messages.count(name):
            media += count
            if need:
                needs.append(need)
    text_bytes = len(messages) - _inline_bytes(messages) if media else len(messages)
    return Prompt(text_bytes, media, tuple(needs))


def _inline_bytes(messages: bytes) -> int:
    """Bytes of base64: strings `data:…;base64,…`, and members `data`, where audio stands."""
    total = at = 0
    for _ in range(_MOST_INLINE):
        at = messages.find(b'"data', at)
        if at < 0:
            break
        found = _INLINE.match(messages, at)
        if not found or messages[at - 1] == _BACKSLASH:
            at += 1
            continue
        end = messages.find(b'"', found.end())
        total += end - found.end()
        at = end + 1
    return total
