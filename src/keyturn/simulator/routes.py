"""Which endpoint a path means, in whose wire format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

from .personas import Persona


class Route(NamedTuple):
    """An endpoint. *action* is its name in the provider's words: `chat/completions`, `generateContent`."""

    kind: str
    dialect: str
    action: str
    model: str = ""
    """Where the path names it."""
    stream: bool | None = None
    """Where the path says so: Gemini."""
    events: bool = True
    """False: a stream as one JSON array (Gemini without `alt=sse`)."""
    key: str = ""


_OPENAI = {
    "chat/completions": ("chat", "openai_chat"),
    "responses": ("chat", "openai_responses"),
    "responses/input_tokens": ("count", "openai_responses"),
    "completions": ("completions", "openai_completions"),
    "embeddings": ("embeddings", "openai_chat"),
    "images/generations": ("images", ""),
    "images/edits": ("images", ""),
    "images/variations": ("images", ""),
    "audio/transcriptions": ("audio", ""),
    "audio/translations": ("audio", ""),
    "audio/speech": ("audio", ""),
    "moderations": ("moderations", ""),
    "rerank": ("rerank", ""),
}
_ANTHROPIC = {"messages": ("chat", "anthropic"), "messages/count_tokens": ("count", "anthropic")}
_GEMINI = {
    "generateContent": "chat",
    "streamGenerateContent": "chat",
    "countTokens": "count",
    "embedContent": "embeddings",
    "batchEmbedContents": "embeddings",
}
_GEMINI_PATH = re.compile(r"/(?:models|tunedModels)/(.+):(\w+)$")
_KEYS = {
    "anthropic": ("x-api-key", "authorization"),
    "gemini": ("x-goog-api-key", "authorization"),
}
_ANY_KEY = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


def route_of(persona: Persona, method: str, path: str, query: bytes, headers: Mapping[str, str]) -> Route | None:
    """The endpoint of *persona* that is asked for; None when there is none.

    `GET …/models` answers in the provider's own format, except that Gemini's list is OpenAI's below `/openai` and
    for a Bearer key outside `/v1beta`.
    """
    asked = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
    route = _find(persona, method, path, asked, headers)
    return None if route is None else route._replace(key=_key(route.dialect, headers, asked))


def _find(
    persona: Persona, method: str, path: str, asked: Mapping[str, str], headers: Mapping[str, str]
) -> Route | None:
    if method == "GET":
        listed = re.search(r"/models(?:/([^:]+))?$", path)
        if listed is None:
            return None
        return Route("models", _listing(persona, path, asked, headers), "models", listed[1] or "")
    if method != "POST":
        return None
    if persona.native == "gemini" and (found := _GEMINI_PATH.search(path)) and found[2] in _GEMINI:
        kind, stream = _GEMINI[found[2]], found[2] == "streamGenerateContent"
        events = asked.get("alt") == "sse"
        return Route(kind, "gemini", found[2], found[1], stream if kind == "chat" else None, events)
    own = _ANTHROPIC if persona.native == "anthropic" else {}
    for action, (kind, dialect) in (own | _OPENAI).items():
        if path.endswith(f"/{action}") and not (action == "completions" and path.endswith("/chat/completions")):
            return Route(kind, dialect, action)
    return None


def _listing(persona: Persona, path: str, asked: Mapping[str, str], headers: Mapping[str, str]) -> str:
    if persona.native == "anthropic":
        return "anthropic"
    if persona.native == "gemini" and "/openai/" not in path:
        own = "x-goog-api-key" in headers or "key" in asked or "/v1beta" in path
        return "gemini" if own else "openai_chat"
    return "openai_chat"


def _key(dialect: str, headers: Mapping[str, str], asked: Mapping[str, str]) -> str:
    for name in _KEYS.get(dialect, _ANY_KEY):
        if name in headers:
            return headers[name].removeprefix("Bearer ").strip()
    return asked.get("key", "") if dialect == "gemini" else ""


def endings() -> str:
    """What is simulated, for people who asked for something else."""
    return ", ".join(f"/{action}" for action in (*_OPENAI, "models", *_ANTHROPIC, *_GEMINI))
