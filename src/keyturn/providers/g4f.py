"""Which of G4F's endpoints serves a model: each stands for one family of models, `main` for all others."""

from __future__ import annotations

from collections.abc import Mapping

from .registry import Provider

ENDPOINTS = ("main", "groq", "grok", "gemini", "nvidia")
"""Their names, in the order in which one stands in for another that is not set."""
WORDS = (
    ("grok", "grok"),
    ("groq", "groq"),
    ("gemini", "gemini"),
    ("nvidia", "nvidia"),
    ("nemotron", "nvidia"),
)
"""Part of a model's name, in small letters -> the endpoint that serves such models."""


def endpoint_of(endpoints: Mapping[str, str], model: str) -> str:
    """The name of the endpoint of *endpoints* (name -> base URL, at least one) that *model* is asked at.

    The first word that its name holds and whose endpoint is set decides; else `main`, else the first that is set.
    """
    name = model.lower()
    for word, endpoint in WORDS:
        if word in name and endpoint in endpoints:
            return endpoint
    return next(each for each in ENDPOINTS if each in endpoints)


def address_of(provider: Provider, model: str) -> str:
    """The base URL that *model* of *provider* is asked at."""
    if not provider.endpoints:
        return provider.base_url
    return provider.endpoints[endpoint_of(provider.endpoints, model)]
