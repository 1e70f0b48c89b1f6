"""What the catalog says of models, and requests made to fit it."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.core import Candidate, Credential, Deployment, Media, Message, Request, Text, Thinking
from keyturn.providers import CATALOG
from keyturn.providers.quirks import OURS, fitted, origin_of, quirks_of, target_of
from keyturn.wire import Target


def candidate(provider: str, model: str) -> Candidate:
    return Candidate(Deployment(provider, model), Credential.of(provider, "secret"))


def target(provider: str, model: str) -> Target:
    return target_of(candidate(provider, model), quirks_of(CATALOG[provider], model))


def request(*messages: Message, **more: Any) -> Request:
    return Request("anthropic", "m", messages or (Message("user", (Text("Hi"),)),), **more)


def test_every_quirk_of_the_catalog_is_heeded_by_somebody() -> None:
    for provider in CATALOG.values():
        for quirk in provider.quirks:
            assert set(quirk.takes) <= {*Target._fields, *OURS}, (provider.name, quirk.match)
            assert quirk.match == quirk.match.lower(), (provider.name, quirk.match)


def test_no_quirk_stands_behind_one_that_takes_all_its_models() -> None:
    for provider in CATALOG.values():
        everything = [quirk.match for quirk in provider.quirks].index("*") if provider.quirks else None
        assert everything in (None, len(provider.quirks) - 1), provider.name


@pytest.mark.parametrize(
    ("provider", "model", "members"),
    [
        ("anthropic", "claude-3-5-haiku-20241022", {"thinking": "none", "max_output": 8192, "schemas": False}),
        ("anthropic", "claude-sonnet-4-5", {"thinking": "budget", "max_output": 64000, "sampling": True}),
        ("anthropic", "claude-opus-4-7", {"thinking": "effort", "sampling": False, "mid_system": True}),
        ("anthropic", "claude-next-9", {"thinking": "effort", "sampling": False}),
        ("gemini", "gemini-2.5-flash", {"thinking": "budget", "signed_calls": False}),
        ("gemini", "models/gemini-3-pro", {"thinking": "effort", "signed_calls": True}),
        ("gemini", "Gemini-3-Pro", {"signed_calls": True}),
        ("gemini", "gemini-flash-latest", {"signed_calls": True}),
        ("openai", "gpt-5.6-mini", {"sampling": False, "cache_marks": True}),
        ("openai", "gpt-4o", {"thinking": "none", "cache_marks": False, "sampling": True}),
        ("groq", "anything", {"thinking": "effort", "sampling": True, "cache_marks": False}),
    ],
)
def test_the_first_pattern_that_fits_counts(provider: str, model: str, members: dict[str, Any]) -> None:
    found = target(provider, model)._asdict()
    assert {name: found[name] for name in members} == members


def test_an_origin_tells_the_account_and_not_the_key() -> None:
    origin = origin_of(candidate("gemini", "gemini-3-pro"))
    assert origin[:2] == ("gemini", "gemini-3-pro")
    assert "secret" not in repr(origin)
    assert len(origin.group) <= 12


FOLDS = {"fold_system": True}


def test_a_system_prompt_goes_into_the_users_next_message() -> None:
    image = Media("image", "image/png", "AAAA")
    asked = request(
        Message("system", (Text("Be brief."),)),
        Message("user", (image,)),
        Message("assistant", (Text("A cat."),)),
        Message("system", (Text("In French."),)),
        Message("user", (Text("Again"),)),
    )
    assert fitted(asked, FOLDS).messages == (
        Message("user", (Text("Be brief."), image)),
        Message("assistant", (Text("A cat."),)),
        Message("user", (Text("In French."), Text("Again"))),
    )
    assert fitted(asked, {}) is asked


def test_a_system_prompt_that_nothing_follows_is_not_lost() -> None:
    asked = request(Message("system", (Text("Say hello."),)))
    assert fitted(asked, FOLDS).messages == (Message("user", (Text("Say hello."),)),)


@pytest.mark.parametrize(
    ("thinking", "fit"),
    [
        (None, None),
        (Thinking("none"), Thinking(budget=128)),
        (Thinking(budget=0, shown=True), Thinking(budget=128, shown=True)),
        (Thinking(budget=64), Thinking(budget=128)),
        (Thinking(budget=4000), Thinking(budget=4000)),
        (Thinking("high"), Thinking("high")),
        (Thinking(), Thinking()),
    ],
)
def test_the_least_thinking_of_a_model_that_cannot_do_without(thinking: Thinking | None, fit: Thinking | None) -> None:
    assert fitted(request(thinking=thinking), quirks_of(CATALOG["gemini"], "gemini-2.5-pro")).thinking == fit
