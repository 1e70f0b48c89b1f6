"""Provider tiers: the same model elsewhere, bare names, and calls that name no model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    Call,
    Caller,
    Deployment,
    Equivalents,
    ModelFacts,
    Offer,
    Plan,
    Price,
    Route,
    RouteCatalog,
    needs_listing,
    resolve,
)
from keyturn.errors import (
    BadRequest,
    KeyturnError,
    ModelNotFound,
    NoValidCredentials,
    PaidRoute,
    RouteNotAllowed,
)

CHAT = frozenset({"chat", "completions"})
BOTH = CHAT | {"embeddings"}


def named(*names: str) -> tuple[Deployment, ...]:
    return tuple(Deployment(*name.split("/", 1)) for name in names)


GROUP = named("openai/gpt-4o", "router/openai/gpt-4o", "azure/GPT-4o", "fast/4o", "g4f/gpt-4o", "absent/gpt-4o")
OFFERS = {
    "openai": Offer(1, True, frozenset({"gpt-4o", "gpt-5"}), kinds=BOTH),
    "azure": Offer(1, True, None, kinds=CHAT),
    "router": Offer(2, True, None, kinds=CHAT),
    "fast": Offer(3, True, frozenset({"4o"}), kinds=CHAT),
    "g4f": Offer(5, True, None, kinds=CHAT, last_resort=True),
}
TOLD: dict[str, Any] = {"aliases": {"open_ai": "openai"}, "unconfigured": {"absent": "ABSENT_API_KEY"}}
SAME = {"equivalents": Equivalents([GROUP])}


def catalog(offers: dict[str, Offer] = OFFERS, **more: Any) -> RouteCatalog:
    return RouteCatalog(offers, **{**TOLD, **SAME, **more})


def call(name: str, *needs: str, kind: str = "chat") -> Call:
    return Call("openai_chat", kind, name, {}, 0, needs=frozenset(needs))  # type: ignore[arg-type]


def planned(name: str, known: RouteCatalog | None = None, caller: Caller = Caller(), **more: Any) -> Plan:  # noqa: B008
    return resolve(call(name, **more), caller, known or catalog())


def steps(name: str, known: RouteCatalog | None = None, caller: Caller = Caller(), **more: Any) -> list[list[str]]:  # noqa: B008
    return [[str(each) for each in step.deployments] for step in planned(name, known, caller, **more).steps]


def refused(name: str, known: RouteCatalog, *needs: str, caller: Caller = Caller(), kind: str = "chat") -> KeyturnError:  # noqa: B008
    with pytest.raises(KeyturnError) as caught:
        resolve(call(name, *needs, kind=kind), caller, known)
    return caught.value


# --- groups ---------------------------------------------------------------------------------------------------------


def test_RTE_16_groups_that_share_a_member_are_one() -> None:
    found = Equivalents([named("a/x", "b/X"), named("c/y", "d/y"), named("B/x", "b/x", "d/Y"), named("alone/z")])
    assert [set(map(str, group)) for group in found.groups] == [{"a/x", "b/X", "c/y", "d/y", "B/x"}]
    assert found.of(Deployment("alone", "z")) == ()
    assert Deployment("a", "x") in found.of(Deployment("D".lower(), "Y"))


def test_RTE_16_what_is_free_is_not_replaced_by_the_paid_one_of_the_same_provider() -> None:
    found = Equivalents([named("a/x", "a/x:free", "b/x"), named("a/y", "b/y")])
    assert found.of(Deployment("a", "x:free")) == named("b/x")
    assert found.of(Deployment("a", "y:free")) == named("b/y")
    assert found.of(Deployment("b", "x")) == named("a/x", "a/x:free")
    assert found.of(Deployment("a", "y:online")) == ()


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4), max_size=8))
def test_RTE_16_groups_are_symmetric_and_transitive(groups: list[list[str]]) -> None:
    found = Equivalents([[Deployment(name, "m") for name in group] for group in groups])
    for name in "abcdefgh":
        mine = Deployment(name, "m")
        others = found.of(mine)
        assert mine not in others
        for other in others:
            assert {*found.of(other), other} == {*others, mine}
    seen = [each for group in found.groups for each in group]
    assert len(seen) == len(set(seen))


# --- provider/model -------------------------------------------------------------------------------------------------


def test_RTE_10_the_asked_one_then_its_tier_then_the_next_tiers_then_the_last_resort() -> None:
    wanted = [["openai/gpt-4o", "azure/GPT-4o"], ["router/openai/gpt-4o"], ["fast/4o"], ["g4f/gpt-4o"]]
    assert steps("openai/gpt-4o") == wanted
    assert steps("open-ai/gpt-4o") == wanted
    assert steps("azure/gpt-4o")[0] == ["azure/gpt-4o", "openai/gpt-4o"]


def test_RTE_10_higher_tiers_come_after_the_lower_ones_and_before_the_last_resort() -> None:
    wanted = [["router/openai/gpt-4o"], ["fast/4o"], ["azure/GPT-4o", "openai/gpt-4o"], ["g4f/gpt-4o"]]
    assert steps("router/openai/gpt-4o") == wanted
    assert steps("g4f/gpt-4o")[0] == ["g4f/gpt-4o"]
    assert steps("g4f/gpt-4o")[1:] == [["azure/GPT-4o", "openai/gpt-4o"], ["router/openai/gpt-4o"], ["fast/4o"]]


def test_RTE_11_a_last_resort_is_last_behind_any_tier_unless_its_own_was_set() -> None:
    late = {**OFFERS, "fast": OFFERS["fast"]._replace(tier=9)}
    assert steps("openai/gpt-4o", catalog(late))[-2:] == [["fast/4o"], ["g4f/gpt-4o"]]
    early = {**OFFERS, "g4f": Offer(2, True, None, kinds=CHAT)}
    assert steps("openai/gpt-4o", catalog(early))[1] == ["g4f/gpt-4o", "router/openai/gpt-4o"]


def test_RTE_21_a_model_of_no_group_never_becomes_another() -> None:
    assert steps("openai/gpt-5") == [["openai/gpt-5"]]
    assert steps("openai/gpt-4o", catalog(equivalents=Equivalents())) == [["openai/gpt-4o"]]
    assert not needs_listing(call("openai/gpt-4o"), catalog())


def test_RTE_10_who_has_no_usable_key_or_does_not_serve_the_kind_is_left_out() -> None:
    known = catalog({**OFFERS, "openai": OFFERS["openai"]._replace(usable=False, set_up="enable it")})
    plan = planned("openai/gpt-4o", known)
    assert plan.deployments[0] == Deployment("azure", "GPT-4o")
    assert "openai/gpt-4o: no usable key: enable it" in plan.refusals
    assert plan.primary == frozenset()  # whoever answers is a fallback
    assert steps("openai/gpt-4o", kind="embeddings") == [["openai/gpt-4o"]]


def test_RTE_16_who_is_known_not_to_list_the_model_is_left_out() -> None:
    known = catalog({**OFFERS, "router": Offer(2, True, frozenset({"other"}), kinds=CHAT, complete=True)})
    plan = planned("openai/gpt-4o", known)
    assert "router/openai/gpt-4o: its provider does not list it" in plan.refusals
    assert [step.deployments[0].provider for step in plan.steps] == ["openai", "fast", "g4f"]
    assert steps("router/openai/gpt-4o", known)[0] == ["router/openai/gpt-4o"]  # who is asked by name is asked


def test_RTE_15_the_first_choice_is_the_asked_tier() -> None:
    plan = planned("openai/gpt-4o")
    assert plan.primary == frozenset(named("openai/gpt-4o", "azure/GPT-4o"))
    declared = {"4o": named("openai/4o", "azure/4o", "fast/4o")}
    mixed = catalog(names={"dev": Route("dev", "role", ("4o",), ("openai", "azure", "fast"))}, routes=declared)
    assert planned("dev", mixed).primary == frozenset(named("openai/4o", "azure/4o"))


# --- chains are exact -----------------------------------------------------------------------------------------------


def test_RTE_16_a_chain_and_a_route_id_are_what_they_say() -> None:
    known = catalog(
        names={
            "mine": Route("mine", "alias", ("fast/4o", "openai/gpt-4o")),
            "own": Route("own", "role", ("gpt-4o",), ("openai",)),
        },
        routes={"gpt-4o": named("fast/4o")},
    )
    assert steps("mine", known) == [["fast/4o"], ["openai/gpt-4o"]]
    assert steps("own", known) == [["openai/gpt-4o"]]
    assert steps("gpt-4o", known) == [["fast/4o"]]


# --- bare names -----------------------------------------------------------------------------------------------------


def test_RTE_10_a_bare_name_goes_by_tier_and_on_to_the_same_model() -> None:
    wanted = [["openai/gpt-4o", "azure/GPT-4o"], ["router/openai/gpt-4o"], ["fast/4o"], ["g4f/gpt-4o"]]
    assert steps("gpt-4o") == wanted
    assert needs_listing(call("gpt-4o"), catalog())


def test_RTE_16_a_bare_name_that_only_a_group_knows() -> None:
    known = catalog({name: OFFERS[name] for name in ("router", "g4f")})
    assert steps("gpt-4o", known) == [["router/openai/gpt-4o"], ["g4f/gpt-4o"]]
    assert steps("GPT-4o", known) == [["router/openai/gpt-4o"], ["g4f/gpt-4o"]]


def test_RTE_16_a_provider_that_was_named_and_has_no_key_is_not_replaced() -> None:
    known = catalog(equivalents=Equivalents([(*GROUP, *named("router/absent/gpt-4o"))]))
    error = refused("absent/gpt-4o", known)
    assert isinstance(error, ModelNotFound)
    assert "ABSENT_API_KEY" in error.message


# --- money ----------------------------------------------------------------------------------------------------------


def test_RTE_16_where_the_asked_one_is_marked_paid_only_what_is_known_to_be_free_stands_in() -> None:
    paid = {Deployment("openai", "gpt-4o"): ModelFacts(paid=True, price_tier="ultra")}
    prices = {"g4f": Price(0, 0), "router": Price(2500, 10000)}
    known = catalog(facts=paid, price=lambda each: prices.get(each.provider))
    assert steps("openai/gpt-4o", known) == [["g4f/gpt-4o"]]
    said = "the same model is marked paid elsewhere, and nothing says it is free here"
    assert f"router/openai/gpt-4o: {said}" in planned("openai/gpt-4o", known).refusals
    marked = catalog(facts={**paid, Deployment("router", "openai/gpt-4o"): ModelFacts()})
    assert steps("openai/gpt-4o", marked) == [["router/openai/gpt-4o"]]
    assert isinstance(refused("openai/gpt-4o", catalog(facts=paid)), PaidRoute)
    assert len(planned("openai/gpt-4o", catalog(facts=paid, use_paid=True)).deployments) == 5


def test_RTE_16_who_is_marked_paid_does_not_stand_in() -> None:
    known = catalog(facts={Deployment("router", "openai/gpt-4o"): ModelFacts(paid=True)})
    assert "router" not in {each.provider for each in planned("openai/gpt-4o", known).deployments}


# --- callers --------------------------------------------------------------------------------------------------------


def caller(*routes: str) -> Caller:
    return Caller("team", routes=routes)


def test_RTE_16_a_group_opens_no_provider_that_the_callers_routes_do_not_name() -> None:
    assert steps("openai/gpt-4o", caller=caller("openai/*")) == [["openai/gpt-4o"]]
    assert steps("openai/gpt-4o", caller=caller("open_ai/*", "g4f/*")) == [["openai/gpt-4o"], ["g4f/gpt-4o"]]
    assert len(planned("openai/gpt-4o", caller=caller("*")).deployments) == 5
    said = planned("openai/gpt-4o", caller=caller("openai/*")).refusals
    assert "g4f/gpt-4o: not for caller team, whose routes do not name it" in said


def test_RTE_16_a_name_that_is_allowed_does_not_allow_the_same_model_elsewhere() -> None:
    assert steps("gpt-4o", caller=caller("gpt-4o")) == [["openai/gpt-4o"]]


def test_RTE_16_a_stand_in_does_not_let_a_caller_ask_for_what_it_may_not() -> None:
    gone = catalog({**OFFERS, "openai": OFFERS["openai"]._replace(usable=False, set_up="enable it")})
    for known in (catalog(), gone):
        assert isinstance(refused("openai/gpt-4o", known, caller=caller("router/*")), RouteNotAllowed)
    allowed = refused("openai/gpt-4o", gone, caller=caller("openai/*"))
    assert isinstance(allowed, NoValidCredentials)
    assert "enable it" in allowed.message


# --- no model -------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "chat": named("openai/gpt-5", "azure/x", "fast/4o", "g4f/gpt-4o"),
    "embeddings": named("openai/small"),
}
SET = {"chat": "set GROQ_API_KEY", "embeddings": "set OPENAI_API_KEY"}


def auto(**more: Any) -> RouteCatalog:
    return catalog(defaults=DEFAULTS, without_default=SET, **more)


def test_RTE_08_a_call_without_a_model_asks_the_defaults_a_step_for_each_tier() -> None:
    assert steps("auto", auto()) == [["openai/gpt-5", "azure/x"], ["fast/4o"], ["g4f/gpt-4o"]]
    assert planned("auto", auto()).defaults
    assert steps("auto", auto(), kind="embeddings") == [["openai/small"]]
    assert not needs_listing(call("auto"), auto())
    assert isinstance(refused("auto", auto(), kind="images"), BadRequest)


def test_RTE_08_the_configuration_may_give_the_name_away() -> None:
    taken = Route("auto", "alias", ("fast/4o",))
    assert steps("auto", auto(names={"auto": taken})) == [["fast/4o"]]
    assert steps("auto", auto(routes={"auto": named("g4f/auto")})) == [["g4f/auto"]]


def test_RTE_08_a_chain_may_end_with_the_defaults() -> None:
    known = auto(names={"mine": Route("mine", "alias", ("router/x", "auto"))})
    assert steps("mine", known) == [["router/x"], ["openai/gpt-5", "azure/x"], ["fast/4o"], ["g4f/gpt-4o"]]
    assert not needs_listing(call("mine"), known)


def test_RTE_08_with_nobody_to_ask_it_names_what_to_set() -> None:
    for known in (
        catalog(without_default=SET),
        auto(offers={name: offer._replace(usable=False, set_up="enable it") for name, offer in OFFERS.items()}),
    ):
        error = refused("auto", known)
        assert isinstance(error, NoValidCredentials)
        assert error.message.startswith("All API keys exhausted across all providers: ")
        assert error.message.endswith("; set GROQ_API_KEY")
    error = refused("auto", catalog(without_default=SET), kind="embeddings")
    assert error.message.endswith("; set OPENAI_API_KEY")


def test_RTE_08_an_image_goes_to_nobody_who_is_known_not_to_see() -> None:
    blind = {Deployment("openai", "gpt-5"): ModelFacts(capabilities={"vision": False})}
    seen = resolve(call("auto", "vision"), Caller(), auto(facts=blind)).deployments
    assert seen == DEFAULTS["chat"][1:]


def test_RTE_08_a_caller_reaches_the_defaults_that_its_routes_name() -> None:
    assert steps("auto", auto(), caller=caller("fast/*")) == [["fast/4o"]]
    assert len(steps("auto", auto(), caller=caller("auto"))) == 3
    assert isinstance(refused("auto", auto(), caller=caller("router/*")), RouteNotAllowed)


def test_a_plan_is_made_once_for_each_caller_too() -> None:
    known = catalog()
    assert planned("openai/gpt-4o", known) is planned("openai/gpt-4o", known)
    assert planned("openai/gpt-4o", known, caller("openai/*")) is planned("openai/gpt-4o", known, caller("openai/*"))
