"""Inline media: data URLs taken apart, base64 and images checked, types told from their first bytes."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode

from keyturn.core import Media, MediaKind

from .fields import refuse

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?)(;base64)?,", re.I)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"BM", "image/bmp"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mp3"),
    (b"fLaC", "audio/flac"),
)
_CHECKED = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Types that every provider reads, and whose first bytes tell them."""
_KINDS: dict[str, MediaKind] = {"image": "image", "audio": "audio", "video": "video"}
_HEAD = 64
"""Characters of base64 that hold a file's first bytes."""


def sniff(data: str) -> str:
    """The type of the file whose base64 is *data*, by its first bytes; empty when they tell nothing."""
    try:
        head = b64decode(data[:_HEAD] + "=" * (-len(data[:_HEAD]) % 4))
    except ValueError:
        return ""
    for magic, mime in _MAGIC:
        if head.startswith(magic):
            return mime
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return "image/heic" if head[8:12] in (b"heic", b"mif1", b"heix") else "video/mp4"
    return ""


def inline(place: str, data: str, mime: str, kind: MediaKind | None = None) -> Media:
    """Inline media of base64 *data*. Raises BadRequest about *place* for what is no base64, and for an image that is
    none: one of a type that says what its first bytes must be, with other ones.

    A wrong but readable image type (a JPEG that is called PNG) is corrected, since Anthropic refuses it.
    """
    data = "".join(data.split()).replace("-", "+").replace("_", "/")
    if not data:
        refuse(place, "is empty. Send the file in base64.")
    data += "=" * (-len(data) % 4)
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError as error:
        refuse(place, f"is not valid base64: {error}.")
    found = sniff(data)
    mime = {"image/jpg": "image/jpeg"}.get(mime.lower(), mime.lower()) or found
    kind = kind or kind_of(mime)
    if kind == "image" and not mime.startswith("image/"):
        refuse(place, f"is of type {mime or 'unknown'}, which is no image.")
    if mime in _CHECKED and found != mime:
        if not found.startswith("image/"):
            refuse(place, f"is called {mime}, but its bytes are not those of an image.")
        mime = found
    return Media(kind, mime, data)


def from_url(place: str, url: str, kind: MediaKind) -> Media:
    """Media from an address, which may be a `data:` URL. Raises BadRequest about *place*."""
    if url[:5].lower() != "data:":
        if not re.match(r"(?:https?|gs)://[^\s]+\Z", url):
            refuse(place, "must be an http(s) address, or a data: URL such as data:image/png;base64,….")
        return Media(kind, url=url)
    found = _DATA_URL.match(url)
    if found is None or not found[3]:
        refuse(place, "is a data: URL without base64; write data:<type>;base64,<data>.")
    return inline(place, url[found.end() :], found[1], kind if kind != "document" else None)


def data_url(media: Media) -> str:
    """*media* as one address: its own, or its data as a `data:` URL."""
    if media.url:
        return media.url
    return f"data:{media.mime or 'application/octet-stream'};base64,{media.data}"


def kind_of(mime: str) -> MediaKind:
    """What a file of type *mime* is."""
    return _KINDS.get(mime.partition("/")[0], "document")
