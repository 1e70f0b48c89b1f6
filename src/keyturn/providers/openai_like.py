"""Requests to OpenAI-compatible servers, and their lists of models."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from keyturn import __version__
from keyturn.core import Call, Candidate, Credential, HttpRequest, LocalRequest, ProcessRequest
from keyturn.wire import render

from .cli import prepare_tool
from .registry import Provider

USER_AGENT = f"keyturn/{__version__}"
LONGEST_ID = 256


def prepare(
    provider: Provider, call: Call, candidate: Candidate, notes: list[str]
) -> HttpRequest | LocalRequest | ProcessRequest:
    """The request that *candidate* is to be sent for *call*. What is dropped or renamed on the way goes into *notes*.

    The model's name goes into the body only, the secret into its header only. A provider with a tool is run instead.
    """
    if provider.tool is not None:
        return prepare_tool(provider, provider.tool, call, candidate, notes)
    embeddings = call.kind == "embeddings"
    path = provider.embeddings_path if embeddings else provider.chat_path
    drop = provider.rejects
    if provider.usage_in_stream == "never":
        drop |= {"stream_options"}
    body = render(
        call,
        candidate.deployment.model,
        drop=drop,
        rename=provider.renames,
        include_usage=call.stream and not call.wants_usage and provider.usage_in_stream == "option",
        notes=notes,
    )
    headers = (
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if call.stream else "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", USER_AGENT),
        *provider.headers,
    )
    auth = _auth(provider.auth_header, provider.auth_prefix, candidate.credential)
    return _to(provider, HttpRequest("POST", provider.base_url.rstrip("/") + path, headers, body, auth))


def prepare_models(provider: Provider, credential: Credential) -> HttpRequest | LocalRequest:
    """The request for the list of models. Only for a provider that has one (`models_path`)."""
    base = provider.base_url.rstrip("/")
    if provider.models_at_root:
        parts = urlsplit(base)
        base = f"{parts.scheme}://{parts.netloc}"
    headers = (
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", USER_AGENT),
        *provider.headers,
        *provider.models_headers,
    )
    if provider.models_auth_header:
        auth = _auth(provider.models_auth_header, "", credential)
    else:
        auth = _auth(provider.auth_header, provider.auth_prefix, credential)
    return _to(provider, HttpRequest("GET", base + provider.models_path, headers, auth=auth))


def _auth(header: str, prefix: str, credential: Credential) -> tuple[str, str, Any] | None:
    """Where the secret goes; None for a server without keys."""
    return (header, prefix, credential.secret) if credential.secret else None


def _to(provider: Provider, request: HttpRequest) -> HttpRequest | LocalRequest:
    return LocalRequest(provider.local_app, request) if provider.local_app else request


def read_models(provider: Provider, body: bytes) -> list[str]:
    """The model ids in a list, in its order, each once; empty when *body* is no list of models.

    Shapes: `{"data": [{"id"}]}`, a bare array (Together, GitHub), `{"models": [{"name"}]}` (Cohere, Gemini, Ollama).
    Entries of G4F that are providers, not models, are left out.
    """
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return []
    if isinstance(document, dict):
        document = document.get("data") or document.get("models")
    if not isinstance(document, list):
        return []
    ids: dict[str, None] = {}
    for entry in document:
        if isinstance(entry, dict):
            if entry.get("provider") is True:
                continue
            entry = entry.get("id") or entry.get("name")
        if isinstance(entry, str) and len(entry) <= LONGEST_ID and entry.isprintable():
            ids[entry.strip().removeprefix(provider.model_prefix)] = None
    return [name for name in ids if name]
