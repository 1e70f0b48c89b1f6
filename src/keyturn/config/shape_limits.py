"""The shape of limits.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from .shape import Bound, Shape, Text, described

Scope = Literal["quota_group", "key", "shared"]
SCOPE_MEANING = "What is counted together: each quota group's use, each key's, or everybody's."


class RatesShape(Shape):
    """Capacities. What is absent, null, 0 or negative is unlimited."""

    rpm: Bound = described("Requests a minute.", 30)
    tpm: Bound = described("Tokens a minute.", 6000)
    rpd: Bound = described("Requests a day.", 14400)
    tpd: Bound = described("Tokens a day.", 500000)
    rps: Bound = described("Requests a second.", 1)
    rph: Bound = described("Requests an hour.", 900)
    tph: Bound = described("Tokens an hour.", 1000000)
    rpmonth: Bound = described("Requests a calendar month.", 1000)
    tpmonth: Bound = described("Tokens a calendar month.", 1000000000)
    concurrency: Bound = described("Calls in flight.", 4)


class ModelLimits(RatesShape):
    """The limits of the models that one pattern names."""

    scope: Scope | None = described(f"{SCOPE_MEANING} The block's unless said.", "shared")
    quota_group: Text | None = described("Models of one provider with the same word here count together.", "flash")
    unavailable: bool = described("The plan does not offer these models at all; they are skipped.", True, default=False)


class LimitsBlock(Shape):
    """The limits of one provider, for one plan or for all."""

    plan: Literal["free", "paid"] | None = described("Holds for keys of this plan only; for all unless said.", "free")
    scope: Scope = described(SCOPE_MEANING, "quota_group", default="quota_group")
    models: dict[Text, ModelLimits] = described(
        "By the provider's own name of a model, or a pattern with `*` and `?`. A name wins, then the first pattern "
        "that fits.",
        {"llama-3.1-8b-instant": {"rpm": 30, "tpm": 6000, "rpd": 14400}},
        default={},
    )
    default: ModelLimits | None = described("For the provider's other models.", {"rpm": 20})


def _form(value: Any) -> str:
    return "<list>" if isinstance(value, (list, tuple)) else "<mapping>"


AnyLimits = Annotated[
    Annotated[LimitsBlock, Tag("<mapping>")] | Annotated[tuple[LimitsBlock, ...], Tag("<list>")], Discriminator(_form)
]


class LimitsFile(Shape):
    """limits.yaml: what providers allow. Limits that they report themselves win over those of a free plan."""

    providers: dict[str, AnyLimits] = described(
        "By provider: one block, or a list of blocks for several plans.",
        {"groq": {"plan": "free", "models": {"llama-3.1-8b-instant": {"rpm": 30}}}},
        default={},
    )
    default_limits: RatesShape | None = described(
        "For keys of plan free on models that nothing above names.", {"rpm": 60, "tpm": 10000}
    )
