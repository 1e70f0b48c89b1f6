"""Who may answer a call: keys, paid models, price tiers, plans, capabilities, and callers' routes."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.core import Call, Caller, Deployment, ModelFacts, Offer, Route, RouteCatalog, barrier, permitted, resolve
from keyturn.errors import BadRequest, KeyturnError, ModelNotFound, NoValidCredentials, PaidRoute, RouteNotAllowed

SEES = {"streaming": True, "vision": True}
FACTS = {
    Deployment("groq", "dear"): ModelFacts(paid=True, price_tier="ultra"),
    Deployment("groq", "untold"): ModelFacts(paid=True),
    Deployment("groq", "blind"): ModelFacts(capabilities={"streaming": True}),
    Deployment("groq", "mute"): ModelFacts(capabilities={"vision": True, "tools": False, "streaming": False}),
    Deployment("gemini", "eyes"): ModelFacts(capabilities=SEES, price_tier="free"),
    Deployment("gemini", "short"): ModelFacts(context_length=100),
    Deployment("gemini", "long"): ModelFacts(context_length=100_000),
}
CATALOG: dict[str, Any] = {
    "offers": {
        "groq": Offer(2, True, frozenset({"dear", "blind", "small"})),
        "gemini": Offer(
            3, True, frozenset({"eyes"}), withheld=((("pro*", "not offered on plan free (limits.yaml:3)"),),)
        ),
        "claude_code": Offer(4, True, frozenset({"sonnet"}), text_only=True),
        "codex_cli": Offer(4, False, frozenset({"luna"}), "the program codex is not on the PATH"),
    },
    "unconfigured": {"openrouter": "OPENROUTER_API_KEY"},
    "facts": FACTS,
    "names": {
        "mixed": Route("mixed", "role", ("dear", "openrouter/r1", "blind")),
        "keyless": Route("keyless", "role", ("openrouter/r1", "codex_cli/luna")),
        "contexts": Route("contexts", "alias", ("gemini/short", "gemini/long")),
        "all-short": Route("all-short", "alias", ("gemini/short", "gemini/short")),
    },
}


def call(model: str, *needs: str, **more: Any) -> Call:
    return Call("openai_chat", "chat", model, {}, 0, needs=frozenset(needs), **more)


def refused(model: str, *needs: str, caller: Caller = Caller(), **options: Any) -> KeyturnError:  # noqa: B008
    stream = options.pop("stream", False)
    with pytest.raises(KeyturnError) as caught:
        resolve(call(model, *needs, stream=stream), caller, RouteCatalog(**CATALOG, **options))
    return caught.value


def asked(model: str, *needs: str, **options: Any) -> list[str]:
    plan = resolve(call(model, *needs), Caller(), RouteCatalog(**CATALOG, **options))
    return [str(each) for each in plan.deployments]


def test_a_paid_model_is_refused_with_the_switch_that_allows_it() -> None:
    error = refused("groq/dear")
    assert isinstance(error, PaidRoute)
    assert "USE_PAID_MODELS" in error.message
    assert asked("groq/dear", use_paid=True) == ["groq/dear"]


def test_price_tiers_refine_the_paid_gate() -> None:
    tiers = frozenset({"free", "cheap"})
    assert isinstance(refused("groq/dear", use_paid=True, price_tiers=tiers), PaidRoute)
    assert "no price tier" in refused("groq/untold", use_paid=True, price_tiers=tiers).message
    assert asked("groq/blind", price_tiers=tiers) == ["groq/blind"]
    assert isinstance(refused("groq/blind", price_tiers=frozenset({"ultra"})), PaidRoute)


def test_a_plan_that_does_not_offer_a_model() -> None:
    error = refused("gemini/pro-3")
    assert isinstance(error, ModelNotFound)
    assert "limits.yaml:3" in error.message


@pytest.mark.parametrize("model", ["groq/blind", "claude_code/sonnet"])
def test_VIS_01_an_image_goes_nowhere_without_vision(model: str) -> None:
    assert isinstance(refused(model, "vision"), BadRequest)


def test_an_unknown_ability_is_taken_for_one() -> None:
    assert asked("groq/never-described", "vision", "tools", "json") == ["groq/never-described"]
    assert asked("gemini/eyes", "vision", "tools") == ["gemini/eyes"]
    assert isinstance(refused("groq/mute", "tools"), BadRequest)
    assert isinstance(refused("groq/mute", stream=True), BadRequest)


@pytest.mark.parametrize("need", ["tools", "json", "vision", "audio"])
def test_a_command_line_tool_takes_text_only(need: str) -> None:
    assert f"has no {need}" in refused("claude_code/sonnet", need).message


def test_in_a_chain_the_others_are_asked_and_the_reasons_are_told() -> None:
    plan = resolve(call("mixed"), Caller(), RouteCatalog(**CATALOG))
    assert [str(each) for each in plan.deployments] == ["groq/blind"]
    assert plan.refusals == (
        "groq/dear: is marked paid, and USE_PAID_MODELS is false",
        "openrouter/r1: no key, set OPENROUTER_API_KEY",
    )
    assert plan.first == Deployment("groq", "dear")


def test_a_chain_without_any_key_names_what_to_set() -> None:
    error = refused("keyless")
    assert isinstance(error, NoValidCredentials)
    assert "set OPENROUTER_API_KEY" in error.message
    assert "codex is not on the PATH" in error.message


def test_a_context_too_short_is_passed_over_unless_all_are() -> None:
    catalog = RouteCatalog(**CATALOG)

    def sized(model: str, size: int) -> list[str]:
        plan = resolve(call(model, text_bytes=size), Caller(), catalog)
        return [str(each) for each in plan.deployments]

    assert sized("contexts", 40) == ["gemini/short", "gemini/long"]
    assert sized("contexts", 4000) == ["gemini/long"]
    assert sized("all-short", 4000) == ["gemini/short"]
    assert sized("gemini/short", 4000) == ["gemini/short"]


def test_what_else_is_wrong_with_a_forbidden_name_is_not_told() -> None:
    caller = Caller("ci", routes=("groq/*",))
    for name in ("gemini/pro-3", "no-such-model", "openrouter/r1", "keyless", "groq/dear/er"[:3]):
        assert isinstance(refused(name, caller=caller), RouteNotAllowed), name
    assert isinstance(refused("groq/dear", caller=caller), PaidRoute)


def test_permitted_by_name_or_by_everything_behind_it() -> None:
    ci = Caller("ci", routes=("fast", "groq/*"))
    here, there = Deployment("groq", "a"), Deployment("gemini", "b")
    catalog = RouteCatalog(**CATALOG)
    assert permitted(Caller(), "anything", (there,), catalog)
    assert permitted(ci, "fast", (here, there), catalog)
    assert permitted(ci, "a", (here,), catalog)
    assert not permitted(ci, "a", (here, there), catalog)
    assert not permitted(ci, "b", (), catalog)


def test_a_pattern_for_the_ids_of_one_provider_opens_no_other() -> None:
    catalog, wide, opus = RouteCatalog(**CATALOG), Caller("ci", routes=("claude-*",)), Deployment("claude_code", "opus")
    assert permitted(wide, "claude-opus-5", (Deployment("anthropic", "claude-opus-5"),), catalog)
    assert not permitted(wide, "claude-code/opus", (opus,), catalog)
    assert permitted(Caller("ci", routes=("claude_code/*",)), "claude-code/opus", (opus,), catalog)


def test_a_command_line_tool_is_for_its_owner_and_for_whom_it_is_named() -> None:
    catalog = RouteCatalog(**CATALOG)
    assert resolve(call("claude_code/sonnet"), Caller(), catalog).deployments
    assert resolve(call("claude_code/sonnet"), Caller("ci", routes=("claude_code/*",)), catalog).deployments
    assert isinstance(refused("claude_code/sonnet", caller=Caller("ci")), RouteNotAllowed)


def test_no_barrier_where_nothing_is_in_the_way() -> None:
    assert barrier(Deployment("gemini", "eyes"), call("", "vision"), RouteCatalog(**CATALOG)) is None
