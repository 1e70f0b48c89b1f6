"""The cells of the matrix: features × clients × upstream dialects, which are tested and which cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from .clients import CLIENTS

Cell = tuple[str, str]
"""The client's dialect and the upstream's."""


class Upstream(NamedTuple):
    """A provider that is spoken to in *dialect*; *model* is asked unless a test says otherwise."""

    dialect: str
    provider: str
    base: str
    model: str
    others: tuple[str, ...] = ()
    embedder: str = ""
    """A model of its own for embeddings."""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name for name in (self.model, *self.others, self.embedder) if name)

    @property
    def name(self) -> str:
        """What a client asks for."""
        return f"{self.provider}/{self.model}"

    def path(self, model: str, *, stream: bool) -> str:
        """Where the simulator is asked for an answer."""
        method = "streamGenerateContent" if stream else "generateContent"
        return (
            self.base
            + {
                "openai_chat": "/chat/completions",
                "openai_responses": "/responses",
                "anthropic": "/messages",
                "gemini": f"/models/{model}:{method}",
            }[self.dialect]
        )


UPSTREAMS = {
    each.dialect: each
    for each in (
        Upstream("openai_chat", "groq", "/groq/v1", "openai/gpt-oss-20b", (), "nomic-embed-text"),
        Upstream("openai_responses", "openai", "/openai/v1", "gpt-5.1", (), "text-embedding-3-small"),
        Upstream("anthropic", "anthropic", "/anthropic/v1", "claude-sonnet-5", ("claude-haiku-4-5",)),
        Upstream("gemini", "gemini", "/gemini/v1beta", "gemini-3-flash", ("gemini-2.5-flash",), "gemini-embedding-001"),
    )
}

TESTED: dict[str, set[Cell]] = {}
"""Feature -> the cells that a test is parametrised with."""

NO_CALL = "its API and its SDK have no such call"
NO_UPSTREAM = "the provider's API has no such endpoint"
IMPOSSIBLE: dict[str, dict[Cell, str]] = {
    "count": {("openai_chat", upstream): NO_CALL for upstream in UPSTREAMS},
    "embeddings": {
        ("openai_chat", "anthropic"): NO_UPSTREAM,
        ("gemini", "anthropic"): NO_UPSTREAM,
        **{("openai_responses", upstream): "the same call as in the row above" for upstream in UPSTREAMS},
        **{("anthropic", upstream): NO_CALL for upstream in UPSTREAMS},
    },
}
"""Feature -> the cells that nothing could fill, with the reason."""


def possible(feature: str) -> list[Cell]:
    """The cells of *feature* that can be tested."""
    ruled_out = IMPOSSIBLE.get(feature, {})
    return [(client, upstream) for client in CLIENTS for upstream in UPSTREAMS if (client, upstream) not in ruled_out]


def cells(feature: str, only: Iterable[Cell] | None = None) -> pytest.MarkDecorator:
    """Parametrise a test with all cells of *feature* that are possible, or with *only* these of them."""
    chosen = possible(feature) if only is None else list(only)
    TESTED.setdefault(feature, set()).update(chosen)
    return pytest.mark.parametrize("cell", chosen, ids=[f"{client}-{upstream}" for client, upstream in chosen])
