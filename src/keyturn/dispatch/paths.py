"""From a path to what is asked for there: the doors and the lists of models, in every spelling that clients use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import unquote

from keyturn.wire import OPERATIONS

from .doors import GEMINI_METHODS, Door


class Place(NamedTuple):
    """One path that clients ask at: a door, the list of models (`models`) or one of it (`model`)."""

    name: Door | Literal["models", "model"]
    path: str
    method: Literal["GET", "POST"] = "POST"
    dialect: str = "openai_chat"
    """In which its errors are written; `GET /v1/models` has that of who asks."""
    argument: str = ""
    """What its path says beside its name."""


PATHED: tuple[Literal["images", "audio"], ...] = ("images", "audio")
"""What has several operations below its name."""
PLACES = (
    Place("chat", "/v1/chat/completions"),
    Place("completions", "/v1/completions"),
    Place("embeddings", "/v1/embeddings"),
    Place("responses", "/v1/responses"),
    Place("input_tokens", "/v1/responses/input_tokens"),
    Place("messages", "/v1/messages", dialect="anthropic"),
    Place("count_tokens", "/v1/messages/count_tokens", dialect="anthropic"),
    Place("gemini", "/v1beta/models/{id}:{method}", dialect="gemini"),
    *(Place(kind, f"/v1/{kind}/{operation}", argument=operation) for kind in PATHED for operation in OPERATIONS[kind]),
    Place("moderations", "/v1/moderations"),
    Place("rerank", "/v1/rerank"),
    Place("models", "/v1/models", "GET"),
    Place("model", "/v1/models/{id}", "GET"),
    Place("models", "/v1beta/models", "GET", "gemini"),
    Place("model", "/v1beta/models/{id}", "GET", "gemini"),
)

CALL_HEADERS = (
    b"x-request-timeout-ms",
    b"content-type",
    b"cache-control",
    b"x-keyturn-class",
    b"x-keyturn-on-cut",
    b"x-keyturn-commit-after",
    b"anthropic-version",
    b"anthropic-beta",
    b"x-claude-code-session-id",
    b"session-id",
    b"session_id",
)
"""What headers say about a call."""

_GEMINI_VERSIONS = ("v1beta", "v1", "v1alpha", "v1beta1")
"""Under which Google's clients ask; its SDK asks under v1, the Gemini CLI under v1beta."""
_RESOURCES = ("models", "tunedModels", "publishers/google/models")
_METHOD = re.compile(rb"(?::|%3[Aa])(" + "|".join(GEMINI_METHODS).encode() + rb")\Z")


def spellings(path: str) -> tuple[str, ...]:
    """*path* itself and, for what lives under `/v1`, the same with the prefix missing or doubled."""
    return (path, path.removeprefix("/v1"), "/v1" + path) if path.startswith("/v1/") else (path,)


_EXACT = {spelling.encode(): place for place in PLACES if "{" not in place.path for spelling in spellings(place.path)}
_BEGINNINGS = [
    (spelling.encode(), place)
    for place in PLACES
    if place.name == "model"
    for spelling in spellings(place.path.partition("{")[0])
]
_GEMINI = next(place for place in PLACES if place.name == "gemini")
_GEMINI_BEGINNINGS = [
    (f"{start}/{version}/{resource}/".encode(), resource)
    for version in _GEMINI_VERSIONS
    for resource in _RESOURCES
    for start in ("", "/v1beta", "/v1")
]


def place_at(raw_path: bytes) -> tuple[Place, str] | None:
    """The place of a path as it came, with the part of it that varies (a model's id, `<model>:<method>`, an operation);
    None for any other path."""
    place = _EXACT.get(raw_path)
    return varying(raw_path) if place is None else (place, place.argument)


def varying(raw_path: bytes) -> tuple[Place, str] | None:
    """The same for the paths that hold a model's name; None for all others."""
    if method := _METHOD.search(raw_path):
        for beginning, resource in _GEMINI_BEGINNINGS:
            if raw_path.startswith(beginning) and method.start() > len(beginning):
                model = unquote(raw_path[len(beginning) : method.start()].decode("latin-1"))
                kept = f"{resource}/" if resource == "tunedModels" else ""
                return _GEMINI, f"{kept}{model}:{method[1].decode()}"
    for beginning, place in _BEGINNINGS:
        if raw_path.startswith(beginning) and len(raw_path) > len(beginning):
            return place, unquote(raw_path[len(beginning) :].decode("latin-1"))
    return None


def spoken(raw_path: bytes, headers: Mapping[bytes, bytes]) -> str:
    """The dialect in which a request to *raw_path* wants its errors and its lists of models, known or not.

    Header names are lower case.
    """
    found = place_at(raw_path)
    if found is None:
        if raw_path.startswith((b"/v1beta", b"/v1alpha")):
            return "gemini"
        return "anthropic" if raw_path.startswith((b"/v1/messages", b"/messages")) else _asking(headers)
    place, _ = found
    if place.name in ("models", "model") and place.dialect == "openai_chat":
        return _asking(headers)
    return place.dialect


def call_headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The few headers that say something about a call; all others stay where they came in."""
    return {name.decode(): headers[name].decode("latin-1") for name in CALL_HEADERS if name in headers}


def _asking(headers: Mapping[bytes, bytes]) -> str:
    """The dialect of whose SDK sends *headers*."""
    if b"anthropic-version" in headers:
        return "anthropic"
    return "gemini" if b"x-goog-api-key" in headers or b"x-goog-api-client" in headers else "openai_chat"
