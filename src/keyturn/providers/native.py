"""Requests to the native APIs of Anthropic and Gemini, and to OpenAI's Responses: addresses and headers."""

from __future__ import annotations

import re
from urllib.parse import quote

from keyturn.core import Call
from keyturn.errors import Untranslatable

from .registry import Provider

ANTHROPIC_VERSION = "2023-06-01"
"""What is asked for when the client states no version: with it older models still take sampling parameters
(platform.claude.com, migration to 2026-10-21)."""
VERTEX_NAME = re.compile(r"[a-z0-9]([a-z0-9.:-]*[a-z0-9])?\Z")
_SAFE = "/@:+-._~"
"""What a model's name keeps in a path."""


def chat_path(provider: Provider, dialect: str, model: str, *, stream: bool) -> str:
    """Where *provider* answers in *dialect*, below its base URL."""
    if dialect == "gemini":
        return _gemini_path(model, "streamGenerateContent?alt=sse" if stream else "generateContent")
    if dialect == "anthropic":
        return "/messages"
    if dialect == "openai_responses":
        return "/responses"
    if dialect == "openai_completions":
        return "/completions"
    return provider.chat_path


def count_path(dialect: str, model: str) -> str:
    """Where tokens are counted."""
    return "/messages/count_tokens" if dialect == "anthropic" else _gemini_path(model, "countTokens")


def embed_path(model: str, method: str) -> str:
    """Where Gemini embeds; *method* is `embedContent` or `batchEmbedContents`."""
    return _gemini_path(model, method)


def _gemini_path(model: str, method: str) -> str:
    """Gemini names the model in the path: what would lead elsewhere is refused."""
    if any(part in ("", ".", "..") for part in model.split("/")):
        raise Untranslatable(f"`model` cannot be {model[:80]!r}: it would lead to another address", param="model")
    named = model if model.startswith("tunedModels/") else f"models/{model}"
    return f"/{quote(named, safe=_SAFE)}:{method}"


def vertex_url(project: str, location: str) -> str:
    """The base URL of Gemini on Google Cloud. Raises ValueError for names that could not be part of a URL."""
    for name in (project, location):
        if not VERTEX_NAME.match(name):
            raise ValueError("is not the name of a project or location: small letters, digits and dashes")
    host = "aiplatform.googleapis.com"
    if location in ("us", "eu"):  # several regions under one name
        host = f"aiplatform.{location}.rep.googleapis.com"
    elif location != "global":
        host = f"{location}-{host}"
    return f"https://{host}/v1/projects/{project}/locations/{location}/publishers/google"


def dialect_headers(provider: Provider, call: Call) -> tuple[tuple[str, str], ...]:
    """The headers of Anthropic's API: the client's own where it speaks the same and the provider takes them."""
    own = call.headers if call.dialect == "anthropic" else {}
    version = own.get("anthropic-version", ANTHROPIC_VERSION)
    headers = [("anthropic-version", version)]
    if (betas := own.get("anthropic-beta")) and provider.takes_betas:
        headers.append(("anthropic-beta", betas))
    return tuple(headers)
