"""Three simulated providers behind real sockets, and their keys in the environment: what a smart client finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Upstreams, simulate

MODELS = {
    "openrouter": ["google/gemini-2.0-flash-exp:free"],
    "groq": ["llama3-8b-8192", "llama-3.1-8b-instant", "groq/compound", "openai/gpt-oss-20b"],
    "gemini": ["gemini-2.0-flash-exp", "gemini-embedding-001"],
}
PATHS = {"openrouter": "/openrouter/api/v1", "groq": "/groq/openai/v1", "gemini": "/gemini/v1beta"}
KEYS = {
    "OPENROUTER_API_KEY_1": "sk-or-one",
    "OPENROUTER_API_KEY_2": "sk-or-two",
    "GROQ_API_KEY_1": "gsk_one",
    "GROQ_API_KEY_2": "",
    "GEMINI_API_KEY_1": "AIza-one",
}
TRIED = ["openrouter", "openrouter", "groq", "gemini"]
"""Who is asked, in order, while nobody can answer."""
PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}}


@contextmanager
def smart_upstreams() -> Iterator[Upstreams]:
    with simulate(Simulator(SystemClock(), draw, models=MODELS, keep_bodies=True)) as upstreams:
        yield upstreams


def addresses(upstreams: Upstreams) -> dict[str, str]:
    """Where the providers are: variables that send their requests to the simulator."""
    found = {f"{name.upper()}_API_BASE": upstreams.url + path for name, path in PATHS.items()}
    return found | {"TIMEOUT_QUEUE_WAIT": "0.05"}


def set_all(monkeypatch: pytest.MonkeyPatch, *variables: dict[str, str]) -> None:
    for each in variables:
        for name, value in each.items():
            monkeypatch.setenv(name, value)


def asked(upstreams: Upstreams) -> list[str]:
    """Which providers were asked, in order."""
    return [each.provider for each in upstreams.seen()]
