"""Calls that are passed on unread to providers that serve them: images, sound, moderations, rankings."""

from __future__ import annotations

from collections.abc import Mapping

from keyturn.core import Call, Kind, Reply, Usage
from keyturn.errors import BadRequest

from .jsontext import loose, read_object
from .multipart import read_form, with_field
from .openai_chat import DIALECT, read_model, read_stream, read_timeout
from .usage import read_usage

PASSED_ON: frozenset[Kind] = frozenset({"images", "audio", "moderations", "rerank"})
OPERATIONS: dict[str, tuple[str, ...]] = {
    "images": ("generations", "edits", "variations"),
    "audio": ("speech", "transcriptions", "translations"),
}
"""What may stand behind `/v1/images/` and `/v1/audio/`; any other path would reach what nobody meant to offer."""
DEFAULT_MODERATION = b'"omni-moderation-latest"'
"""What OpenAI takes when a moderation names no model (API reference, moderations)."""
_TEXTS = ("prompt", "input", "query", "documents")
"""Members whose length says how large a call is."""


def parse_passed_on(kind: Kind, path: str, body: bytes, headers: Mapping[str, str]) -> Call:
    """The Call of a request to *path*, which begins with the kind (`/images/edits`). JSON or a multipart form.

    Only `model` and `stream` are looked at. Raises BadRequest.
    """
    if path.removeprefix(f"/{kind}/") not in OPERATIONS.get(kind, (f"/{kind}",)):
        raise BadRequest(f"nothing is served at {path[:80]!r}; there are {', '.join(OPERATIONS.get(kind, (kind,)))}")
    content_type = headers.get("content-type", "")
    form = content_type[:10].lower() == "multipart/"
    members = read_form(body, content_type) if form else read_object(body)
    if kind == "moderations":
        members.setdefault("model", DEFAULT_MODERATION)
    stream = members.get("stream") == b'"true"' if form else read_stream(members)
    return Call(
        DIALECT,
        kind,
        read_model(members),
        members,
        len(body),
        stream=stream,
        text_bytes=sum(len(members[name]) for name in _TEXTS if name in members),
        media=1 if form else 0,
        timeout=read_timeout(headers),
        path=path,
        raw=body if form else b"",
        content_type=content_type if form else "",
    )


def render_form(call: Call, model: str) -> bytes:
    """The body of a form for an upstream: every byte as it came, but for the model's name."""
    return with_field(call.raw, call.content_type, "model", model)


def read_passed_on(body: bytes) -> Reply | bytes:
    """What a 200 holds that is JSON: an answer with its usage, or the body of an error."""
    answer = loose(body)
    if isinstance(answer, dict):
        if answer.get("error"):
            return body
        return Reply(usage=read_usage(answer.get("usage")))
    return Reply()


class BytesWatch:
    """Relays bytes of any kind, sound for instance: they are complete when the transport says so."""

    def __init__(self) -> None:
        self.started = self.finished = self.done = False
        self.error: bytes | None = None
        self.usage: Usage | None = None
        self.tail = b""
        self.relayed_bytes = 0
        self.signatures: list[str] = []

    @property
    def output_bytes(self) -> int:
        """None: nobody counts tokens of sound by its bytes."""
        return 0

    def feed(self, chunk: bytes) -> bytes:
        """*chunk*, as it came."""
        if chunk:
            self.started = True
            self.relayed_bytes += len(chunk)
        return chunk

    def end(self) -> bool:
        """The body ended where it should."""
        self.finished = self.started
        return self.started
