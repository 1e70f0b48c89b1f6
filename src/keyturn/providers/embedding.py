"""Embeddings, asked of OpenAI-compatible servers and of Gemini, whatever dialect the client speaks."""

from __future__ import annotations

from keyturn.core import Call
from keyturn.errors import Untranslatable
from keyturn.wire import render, write_embeddings

from .native import embed_path
from .registry import Provider


def render_embeddings(provider: Provider, call: Call, model: str, dialect: str, notes: list[str]) -> tuple[str, bytes]:
    """Path and body of the request for *call*. Raises Untranslatable for token lists that Gemini cannot read."""
    if dialect == "anthropic":
        raise Untranslatable(f"{provider.name} offers no embeddings", param="model")
    if dialect == call.dialect != "gemini":
        body = render(call, model, drop=provider.rejects, rename=provider.renames, notes=notes)
        return provider.embeddings_path, body
    method, body = write_embeddings(call, dialect, model, notes)
    return (embed_path(model, method) if dialect == "gemini" else provider.embeddings_path), body
