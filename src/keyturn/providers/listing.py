"""The lists of models that providers give."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from keyturn.core import Credential, HttpRequest, LocalRequest

from .asking import USER_AGENT, authorization, local_or_not
from .g4f import endpoint_of
from .registry import Provider

LONGEST_ID = 256


def prepare_models(provider: Provider, credential: Credential, endpoint: str = "") -> HttpRequest | LocalRequest:
    """The request for the list of models, of one *endpoint* of a provider that has several. Only for a provider that
    has one (`models_path`)."""
    base = (provider.endpoints[endpoint] if endpoint else provider.base_url).rstrip("/")
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
    if credential.account is not None:
        headers += credential.account.headers
    if provider.models_auth_header:
        auth = authorization(provider.models_auth_header, "", credential)
    else:
        auth = authorization(provider.auth_header, provider.auth_prefix, credential)
    return local_or_not(provider, HttpRequest("GET", base + provider.models_path, headers, auth=auth))


def read_models(provider: Provider, body: bytes, endpoint: str = "") -> list[str]:
    """The model ids in a list, in its order, each once; empty when *body* is no list of models. Of a list of
    *endpoint*, those that are asked there.

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
    return [name for name in ids if name and (not endpoint or endpoint_of(provider.endpoints, name) == endpoint)]
