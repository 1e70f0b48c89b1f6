"""What a model name resolves to."""

from __future__ import annotations

import pytest

from keyturn.core import Call, Caller, Deployment, Offer, RouteCatalog, needs_listing, resolve
from keyturn.errors import ModelNotFound, NoValidCredentials

CATALOG = RouteCatalog(
    {
        "openai": Offer(1, True, frozenset({"gpt-4o", "shared"}), "OPENAI_API_KEY"),
        "groq": Offer(2, True, frozenset({"llama-3.3-70b", "shared", "openai/gpt-oss-120b"}), "GROQ_API_KEY"),
        "gemini": Offer(3, True, None, lists=False),
        "mistral": Offer(3, False, frozenset({"small"}), "enable it", kinds=frozenset({"chat"})),
        "perplexity": Offer(4, True, frozenset({"sonar"}), kinds=frozenset({"chat"})),
    },
    {"google_ai_studio": "gemini"},
    {"anthropic": "ANTHROPIC_API_KEY"},
)


def plan(model: str, kind: str = "chat") -> list[str]:
    call = Call("openai_chat", kind, model, {}, 0)  # type: ignore[arg-type]
    return [str(each) for each in resolve(call, Caller(), CATALOG).deployments]


def test_RTE_09_provider_and_model() -> None:
    assert plan("groq/llama-3.3-70b") == ["groq/llama-3.3-70b"]
    assert plan("groq/never-heard-of") == ["groq/never-heard-of"]
    assert plan("google-ai-studio/gemini-2.5-pro") == ["gemini/gemini-2.5-pro"]
    assert plan("groq/openai/gpt-oss-120b") == ["groq/openai/gpt-oss-120b"]


def test_a_bare_id_goes_to_who_offers_it_by_tier() -> None:
    assert plan("gpt-4o") == ["openai/gpt-4o"]
    assert plan("shared") == ["openai/shared", "groq/shared"]


def test_an_id_with_a_slash_belongs_to_a_configured_provider_of_that_name_first() -> None:
    assert plan("openai/gpt-oss-120b") == ["openai/gpt-oss-120b"]


def test_a_name_nobody_lists_goes_to_who_has_no_list() -> None:
    assert plan("gemini-new") == ["gemini/gemini-new"]


def test_refusals_say_who_was_left_out_and_why() -> None:
    call = Call("openai_chat", "chat", "shared", {}, 0)
    assert "mistral: no usable key: enable it" in resolve(call, Caller(), CATALOG).refusals


def test_a_known_provider_without_a_key_names_the_variable() -> None:
    with pytest.raises(ModelNotFound, match="set ANTHROPIC_API_KEY"):
        resolve(
            Call("openai_chat", "chat", "anthropic/claude", {}, 0),
            Caller(),
            RouteCatalog({"groq": CATALOG.offers["groq"]}, {}, CATALOG.unconfigured),
        )


def test_an_unknown_name_gets_the_nearest() -> None:
    only = RouteCatalog({"groq": CATALOG.offers["groq"]})
    with pytest.raises(ModelNotFound, match=r"nearest: groq/llama-3.3-70b"):
        resolve(Call("openai_chat", "chat", "llama-3.3-70", {}, 0), Caller(), only)


def test_a_provider_whose_keys_are_all_disabled() -> None:
    with pytest.raises(NoValidCredentials, match="enable it"):
        plan("mistral/small")


def test_a_kind_that_a_provider_does_not_offer() -> None:
    with pytest.raises(ModelNotFound, match="offers no embeddings"):
        plan("perplexity/sonar", "embeddings")


def test_only_bare_ids_need_the_lists() -> None:
    def asks(model: str) -> bool:
        return needs_listing(Call("openai_chat", "chat", model, {}, 0), CATALOG)

    assert not asks("groq/x")
    assert asks("gpt-4o")
    assert asks("meta-llama/Llama-3")
    assert plan("sonar") == [str(Deployment("perplexity", "sonar"))]


def test_a_known_prefix_without_a_key_is_not_sent_to_a_provider_whose_list_is_unknown() -> None:
    unknown = RouteCatalog({"gemini": CATALOG.offers["gemini"]}, {}, {"openai": "OPENAI_API_KEY"})
    with pytest.raises(ModelNotFound, match="set OPENAI_API_KEY"):
        resolve(Call("openai_chat", "chat", "openai/gpt-4o", {}, 0), Caller(), unknown)


def test_a_list_that_could_not_be_had_is_no_reason_to_guess_while_others_are_known() -> None:
    offers = {"groq": CATALOG.offers["groq"], "mistral": Offer(3, True, None)}
    with pytest.raises(ModelNotFound, match="the models of mistral could not be listed"):
        resolve(Call("openai_chat", "chat", "gpt-4o-mni", {}, 0), Caller(), RouteCatalog(offers))
    alone = resolve(Call("openai_chat", "chat", "any", {}, 0), Caller(), RouteCatalog({"mistral": offers["mistral"]}))
    assert [str(each) for each in alone.deployments] == ["mistral/any"]
