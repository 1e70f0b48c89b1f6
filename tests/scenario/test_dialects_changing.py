"""A conversation that goes from model to model, within a turn and between turns: nobody refuses its history."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenario.shapes import DIALECTS, ask, body, followed, play, said, turn
from tests.support.world import World

MODELS = [
    "groq/llama-3.3-70b-versatile",
    "openai/gpt-5",
    "openai/o3-pro",
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-opus-4-6",
    "gemini/gemini-2.5-flash",
    "gemini/gemini-3-pro",
]
POOL = {"groq": 1, "openai": 1, "anthropic": 1, "gemini": 1}
HISTORY = {"openai_chat": "messages", "openai_responses": "input", "anthropic": "messages", "gemini": "contents"}


def thinking(dialect: str, model: str) -> dict[str, Any]:
    """That the client wants to see thinking, in words that *model* takes where they are its own dialect's."""
    match dialect:
        case "anthropic":
            adaptive = "opus" in model
            kind = {"type": "adaptive"} if adaptive else {"type": "enabled", "budget_tokens": 1024}
            return {"thinking": kind, "max_tokens": 4000}
        case "openai_responses":
            return {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        case "gemini":
            known = {"thinkingLevel": "LOW"} if "-3-" in model else {"thinkingBudget": 1024}
            return {"generationConfig": {"thinkingConfig": {"includeThoughts": True, **known}}}
    return {}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("first", MODELS)
@pytest.mark.parametrize("second", MODELS)
def test_another_model_goes_on(dialect: str, first: str, second: str) -> None:
    async def story(world: World) -> None:
        # In the middle of a turn: the second model gets the result of the tool that the first one called.
        asked = body(dialect, first, '[call: weather {"city":"Rome"}] please', tools=True) | thinking(dialect, first)
        begun = await ask(world, dialect, first, asked)
        assert begun.status == 200, begun.body
        asked = followed(dialect, asked, begun, "22 degrees") | thinking(dialect, second)
        gone_on = await ask(world, dialect, second, {**asked, **_named(dialect, second)})
        assert gone_on.status == 200, gone_on.body
        assert "22 degrees" in said(dialect, gone_on)
        # Between turns, and back to the first.
        history = [*asked[HISTORY[dialect]], *turn(dialect, gone_on), *body(dialect, first, "More")[HISTORY[dialect]]]
        asked = asked | thinking(dialect, first) | _named(dialect, first) | {HISTORY[dialect]: history}
        back = await ask(world, dialect, first, asked)
        assert back.status == 200, back.body

    play(story, POOL)


def _named(dialect: str, model: str) -> dict[str, str]:
    return {} if dialect == "gemini" else {"model": model}
