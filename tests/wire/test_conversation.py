"""Which calls belong to one conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.core import Call
from keyturn.wire import conversation_of

LONG = "Read this. " * 500


def _content(text: str) -> dict[str, Any]:
    return {"content": text}


def _parts(text: str) -> dict[str, Any]:
    return {"parts": [{"text": text}]}


TURNS: dict[str, tuple[str, str, str, Callable[[str], dict[str, Any]]]] = {
    "openai_chat": ("messages", "user", "assistant", _content),
    "anthropic": ("messages", "user", "assistant", _content),
    "gemini": ("contents", "user", "model", _parts),
    "openai_responses": ("input", "user", "assistant", _content),
}


def call(dialect: str, *texts: str, **more: str) -> Call:
    name, user, model, content = TURNS[dialect]
    turns = [{"role": (user, model)[n % 2], **content(text)} for n, text in enumerate(texts)]
    members = {name: json.dumps(turns).encode()} | {key: json.dumps(value).encode() for key, value in more.items()}
    return Call(dialect, "chat", "m", members, 0, text_bytes=sum(map(len, texts)))


@pytest.mark.parametrize("dialect", TURNS)
def test_a_conversation_is_known_by_its_beginning(dialect: str) -> None:
    first = conversation_of(call(dialect, LONG))
    later = conversation_of(call(dialect, LONG, "Yes.", "And?", "No.", "Why?"))
    assert first is not None
    assert later is not None
    assert first[0] == later[0]
    assert (first[1], later[1]) == (False, True), "only who goes on has a cache to find"


def test_another_beginning_is_another_conversation() -> None:
    one, other = conversation_of(call("anthropic", LONG)), conversation_of(call("anthropic", LONG + "!"))
    prompted = conversation_of(call("anthropic", LONG, system="Be terse."))
    assert len({one, other, prompted}) == 3


def test_what_no_provider_caches_is_not_looked_at() -> None:
    assert conversation_of(call("openai_chat", "Hello", "Hi", "And?")) is None


def test_the_clients_own_name_counts_first() -> None:
    one, other = call("openai_chat", LONG), call("openai_chat", LONG + "?", "Yes", "So")
    one.conversation = other.conversation = "mine"
    assert conversation_of(one) == conversation_of(other)
    assert conversation_of(one) == (hash(("", "mine")), True)
