"""The shape of models.yaml: providers, provider routes, aliases, and the older `models` section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from keyturn.core import RouteStrategy

from .model import Strategy
from .shape import Names, Shape, Text, Word, described, needed

PriceTier = Literal["free", "cheap", "budget", "performance", "ultra"]
Output = Literal["codex_jsonl", "claude_json", "claude_stream_json", "gemini_json", "gemini_stream_json", "text"]
Number = Annotated[int, Field(ge=0)]
Dollars = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Priority = Annotated[int, Field(ge=1, le=99)]


class RotationShape(Shape):
    """How the keys of a provider take turns."""

    strategy: Strategy | None = described(
        "The order of the keys; `ROTATION_MODE_<P>` wins over it. `balanced` unless said.", "round_robin"
    )
    cooldown_seconds: float | None = described(
        "The first step of the cooldown after a rate limit, when the provider does not say how long. Later steps are "
        "never shorter.",
        60,
        ge=0,
    )
    rotate_each_call: bool = described(
        "`round_robin` moves on with every call, not only after a rate limit.", True, default=False
    )


class FairCycleShape(Shape):
    """Whether a key that was exhausted waits until the others have been, and what that means."""

    enabled: bool | None = described(
        "On or off; `FAIR_CYCLE_<P>` wins over it. On under `sequential`, else off, unless said.", True
    )
    tracking: Literal["model_group", "credential"] = described(
        "What is exhausted: the key for one model (and those that share its quota), or the key as a whole.",
        "credential",
        default="model_group",
    )
    cross_priority: bool = described(
        "A cycle lasts until the keys of all key priorities are exhausted.", True, default=False
    )
    duration_seconds: Seconds = described("After so long a cycle begins anew.", 604800, default=86400.0)
    exhausted_from_seconds: Seconds = described(
        "A rest of at least so long means that a key is exhausted.", 600, default=300.0
    )


class HttpProvider(Shape):
    """A provider that is called over HTTP. One that the catalog knows needs nothing but its keys."""

    kind: Literal["http"] = described("Called over HTTP.", "http", default="http")
    base_url: Text | None = described(
        "Where it answers; `<P>_API_BASE` wins over it. Needed for a provider that the catalog does not know, which is "
        "then taken as an OpenAI-compatible server.",
        "https://api.groq.com/openai/v1",
    )
    dialect: Literal["openai_chat", "openai_responses", "anthropic", "gemini"] | None = described(
        "The wire format that it is spoken to in; `<P>_DIALECT` wins over it. The catalog's unless said, `openai_chat` "
        "for a server of your own. Clients may speak any: what differs is translated.",
        "anthropic",
    )
    env_key: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = described(
        "The variable of its key; its numbered ones (`NAME_1`, `NAME_2`, …) count too.", "GROQ_API_KEY"
    )
    api_key: str | None = described("One key, best as a variable; it has number 0.", "${GROQ_API_KEY}")
    api_keys: tuple[str, ...] = described(
        "Keys, best as variables; their numbers are their places in the list, from 1. Blank ones and variables that "
        "are not set are passed over.",
        ["${GOOGLE_API_KEY_1}", "${GOOGLE_API_KEY_2}"],
        default=(),
    )
    rotation: RotationShape | None = described(
        "How its keys take turns.", {"strategy": "round_robin", "cooldown_seconds": 60}
    )
    plan: Literal["free", "paid"] | None = described(
        "The plan of its keys: the limits that limits.yaml gives for a plan hold for it. `KEY_PLAN_<P>` is asked when "
        "this is missing.",
        "free",
    )
    priority: Annotated[int, Field(ge=1, le=10)] | None = described(
        "Provider tier, 1 first; `PROVIDER_PRIORITY_<P>` wins over it. The catalog's unless said.", 2
    )
    quota_groups: tuple[tuple[Number, ...], ...] | None = described(
        "Numbers of the keys that share a quota (one project or organisation); `QUOTA_GROUP_<P>` wins over it. Every "
        "key is its own group unless said.",
        [[1, 2], [3]],
    )
    models: tuple[Text, ...] = described(
        "Models that it serves besides those it lists.", ["llama-3.1-8b-instant"], default=()
    )
    chat_model: Text | None = described(
        "Its model when none is asked for; `<P>_CHAT_MODEL` wins over it.", "llama-3.1-8b-instant"
    )
    embedding_model: Text | None = described(
        "The same for embeddings; `<P>_EMBEDDING_MODEL` wins over it.", "text-embedding-3-small"
    )
    max_concurrent: int | None = described(
        "Calls in flight per key; 0 and below mean unlimited. `MAX_CONCURRENT_REQUESTS_PER_KEY_<P>` wins over it.", 4
    )
    optimal_concurrent: int | None = described(
        "Calls in flight per key up to which a key is preferred; `OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_<P>` wins over "
        "it.",
        2,
    )
    key_priorities: dict[Number, Priority] = described(
        "Key number and its priority, 1 first; `KEY_PRIORITIES_<P>` wins over it.", {1: 1, 2: 1, 3: 2}, default={}
    )
    key_priority: dict[Text, Priority] = described(
        "Models (or patterns) that only keys of this priority or a better one may serve; `KEY_PRIORITY_FOR_<P>` wins "
        "over it.",
        {"gemini-2.5-pro": 1},
        default={},
    )
    concurrency_multipliers: dict[Priority, Annotated[int, Field(ge=1, le=1000)]] = described(
        "Key priority and by what `max_concurrent` is multiplied for its keys; "
        "`CONCURRENCY_MULTIPLIER_<P>_PRIORITY_<N>` wins over it.",
        {1: 5},
        default={},
    )
    model_quota_groups: dict[Text, Names] = described(
        "Models (or patterns) that share one quota count together and cool together; `QUOTA_GROUPS_<P>_<NAME>` wins "
        "over it.",
        {"flash": ["gemini-2.5-flash", "gemini-2.5-flash-lite"]},
        default={},
    )
    caps: tuple[Text, ...] = described(
        "Bounds of your own below the provider's, as `CUSTOM_CAP_<P>`, which wins over them, has them.",
        ["model=gemini-2.5-pro priority=2 requests=40/day cooldown=1h"],
        default=(),
    )
    fair_cycle: FairCycleShape | None = described("How its keys take turns at being exhausted.", {"enabled": True})
    allow_models: tuple[Text, ...] = described(
        "Models (or patterns) that may be used whatever `ignore_models` says; `WHITELIST_MODELS_<P>` wins over it.",
        ["llama-*"],
        default=(),
    )
    ignore_models: tuple[Text, ...] = described(
        "Models (or patterns) that may not be used; `IGNORE_MODELS_<P>` wins over it.", ["*-preview"], default=()
    )


class CliProvider(Shape):
    """A command line tool that answers as a provider. The prompt goes to its standard input; no shell is involved."""

    kind: Literal["cli"] = needed("A command line tool.", "cli")
    cmd: Annotated[tuple[Word, ...], Field(min_length=1)] | None = described(
        "The program and its arguments. `${MODEL}` is the model's name; it stays one argument whatever it holds. May "
        "be left out for the tools that the catalog knows: codex_cli, claude_code, gemini_cli.",
        ["claude", "-p", "--output-format", "json", "--model", "${MODEL}"],
    )
    timeout: Seconds = described("Seconds that one run may take.", 120, default=300.0)
    concurrency: Annotated[int, Field(ge=1)] = described("Runs at the same time.", 2, default=2)
    env: tuple[Text, ...] = described(
        "Variables that it may see besides PATH, HOME and the like.", ["ANTHROPIC_API_KEY"], default=()
    )
    output: Output | None = described("How it prints its answer; found out from the arguments unless said.", "text")
    priority: Annotated[int, Field(ge=1, le=10)] | None = described("Provider tier, 1 first.", 4)
    models: tuple[Text, ...] = described("The models that it may be asked for.", ["sonnet"], default=())
    chat_model: Text | None = described("Its model when none is asked for.", "sonnet")


def _kind(block: Any) -> str:
    if isinstance(block, CliProvider):
        return "<cli>"
    named = block.get("kind") if isinstance(block, dict) else None
    return "<cli>" if named == "cli" or (named is None and isinstance(block, dict) and "cmd" in block) else "<http>"


AnyProvider = Annotated[
    Annotated[HttpProvider, Tag("<http>")] | Annotated[CliProvider, Tag("<cli>")], Discriminator(_kind)
]


class CapabilitiesShape(Shape):
    """What a model can do. What is not named is unknown; but where anything is named, vision must be to be there."""

    streaming: bool | None = described("It answers piece by piece.", True)
    vision: bool | None = described("It sees images.", True)
    tools: bool | None = described("It calls tools.", True)
    json_: bool | None = described("It answers in JSON when asked.", True, alias="json")
    audio: bool | None = described("It hears audio.", False)


class PriceShape(Shape):
    """What a model costs, in USD per million tokens."""

    input: Dollars = needed("A million tokens of input.", 0.15)
    output: Dollars = needed("A million tokens of output.", 0.6)
    cached: Dollars | None = described("A million cached tokens of input; what input costs unless said.", 0.075)


class RouteShape(Shape):
    """A model at one or several providers, under a name that clients ask for."""

    id: Text = needed("The name that clients ask for. The same id may stand here for several providers.", "gpt-oss")
    provider: Text | None = described("The provider that serves it.", "groq")
    providers: Names | None = described("Several, in the order in which they are tried.", ["groq", "cerebras"])
    model: Text | None = described("The provider's own name for it; the id unless said.", "openai/gpt-oss-120b")
    is_paid: bool | None = described("Paid routes are skipped unless `USE_PAID_MODELS=true`.", False)
    tier: PriceTier | None = described("Price tier, for `ALLOWED_MODEL_TIERS`.", "free")
    capabilities: CapabilitiesShape | None = described(
        "What it can do; nothing is known unless said.", {"streaming": True, "vision": False}
    )
    context_length: Annotated[int, Field(ge=1)] | None = described("Tokens that fit into it.", 131072)
    price: PriceShape | None = described("What it costs; the built-in table unless said.", {"input": 0.15, "output": 1})
    aliases: tuple[Text, ...] = described("Further names for it.", ["fast"], default=())
    strategy: RouteStrategy | None = described("In which order its deployments are tried.", "cheapest")


class AliasShape(Shape):
    """A name for a chain."""

    chain: Names = needed("Names to try, one after the other.", ["gpt-oss", "gemini-2.5-flash"])
    providers: Names | None = described("With these, the chain holds their own names of models.", ["groq"])
    strategy: RouteStrategy | None = described("In which order the deployments of one step are tried.", "fastest")
    description: str = described("For people.", "quick answers", default="")


def _alias_form(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "<list>"
    return "<mapping>" if isinstance(value, (dict, AliasShape)) else "<text>"


AnyAlias = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[Names, Tag("<list>")] | Annotated[AliasShape, Tag("<mapping>")],
    Discriminator(_alias_form),
]


class LegacyModel(Shape):
    """A model of the older `models` section; its name is the route's. Members that are not listed are passed over."""

    model_config = ConfigDict(extra="ignore")

    provider_name: Text = needed("The provider that serves it.", "openrouter")
    api_endpoint: Text | None = described("Where the provider answers.", "https://openrouter.ai/api/v1")
    cost_per_1k_tokens: Dollars | None = described("USD per thousand tokens, of input and output alike.", 0.002)
    is_paid: bool | None = described("As in a route.", False)
    tier: PriceTier | None = described("As in a route.", "free")
    model: Text | None = described("As in a route.", "openai/gpt-oss-120b")
    context_length: Annotated[int, Field(ge=1)] | None = described("As in a route.", 131072)


class ModelsFile(Shape):
    """models.yaml: who answers, under which names."""

    providers: dict[str, AnyProvider] = described(
        "Providers by name. Those that the catalog knows work without an entry, by their variables alone.",
        {"groq": {"kind": "http", "env_key": "GROQ_API_KEY"}},
        default={},
    )
    provider_routes: tuple[RouteShape, ...] = described(
        "Models under the names that clients ask for.",
        [{"id": "gemini-2.5-flash", "provider": "google_ai_studio", "is_paid": False, "tier": "free"}],
        default=(),
    )
    aliases: dict[str, AnyAlias] = described(
        "Names for a route, for a chain of them, or for a chain with its own rules.",
        {"fast": ["groq/llama-3.1-8b-instant", "gemini-2.5-flash"]},
        default={},
    )
    equivalents: tuple[Annotated[tuple[Text, ...], Field(min_length=2)], ...] = described(
        "Groups of `provider/model` that are the same model: when one cannot answer, the others are asked, by provider "
        "tier. Added to the groups that are shipped.",
        [["openai/gpt-4o", "my_server/gpt-4o"]],
        default=(),
    )
    models: dict[str, LegacyModel] = described(
        "The older form of routes, still read.", {"my-model": {"provider_name": "openrouter"}}, default={}
    )
