"""The shape of a scenario file: who has which keys, what fails when, and who asks for how much."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
LONGEST = 31 * 86_400.0
"""Seconds that a simulation may last."""
MOST_KEYS = 10_000
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|m|h|d)?\s*\Z")
_RATE = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(?:/|per)\s*(second|minute|hour|day)\s*\Z")


def seconds_of(value: Any) -> Any:
    """Seconds from a number or a text such as `5m`."""
    if isinstance(value, str):
        found = _DURATION.match(value)
        if found is None:
            raise PydanticCustomError("duration", "is not a length of time such as 30s, 5m, 24h or 1d")
        return float(found[1]) * UNITS[found[2] or "s"]
    return value


def share_of(value: Any) -> Any:
    """A part of the whole from a number or a text such as `10%`."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*%\s*", value):
        return float(value.strip().rstrip("%")) / 100
    return value


def rate_of(value: Any) -> Any:
    """Calls a second from a text such as `63000/day`."""
    if isinstance(value, str):
        found = _RATE.match(value)
        if found is None:
            raise PydanticCustomError("rate", "is not a rate such as 63000/day, 20/minute or 1.5/second")
        return float(re.sub("[_,]", "", found[1])) / PERIODS[found[2]]
    return value


def _pair(value: Any) -> Any:
    return [value, value] if isinstance(value, (int, float, str)) and not isinstance(value, bool) else value


def _shared(value: Any) -> Any:
    return (
        {f"{value:g}s": 1.0} if isinstance(value, (int, float)) else {value: 1.0} if isinstance(value, str) else value
    )


def _one(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Duration = Annotated[float, BeforeValidator(seconds_of), Field(ge=0, le=LONGEST)]
Share = Annotated[float, BeforeValidator(share_of), Field(ge=0, le=1)]
Rate = Annotated[float, BeforeValidator(rate_of), Field(gt=0, le=100_000)]
Span = Annotated[tuple[Duration, Duration], BeforeValidator(_pair)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
Amount = Annotated[int, Field(ge=1)]
Kind = Literal["fixed", "rolling", "bucket", "calendar"]
StrategyName = Literal["keyturn", "round_robin", "least_used", "random"]


class Part(BaseModel):
    """A mapping in a scenario file: its members are known, and every number is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)


def said(meaning: str, example: Any, default: Any = None, **more: Any) -> Any:
    """A member that may be left out."""
    return Field(default, description=meaning, examples=[example], **more)


class Limits(Part):
    """What one key (or the keys of one account together) may use. What is absent has no limit."""

    rps: Amount | None = said("Requests a second.", 1)
    rpm: Amount | None = said("Requests a minute.", 30)
    rpd: Amount | None = said("Requests a day.", 1000)
    tpm: Amount | None = said("Tokens a minute.", 6000)
    tpd: Amount | None = said("Tokens a day.", 500000)
    concurrency: Amount | None = said("Requests at a time.", 4)


def _form(value: Any) -> str:
    return "<limits>" if isinstance(value, (dict, Limits)) else "<switch>"


Declared = Annotated[Annotated[bool, Tag("<switch>")] | Annotated[Limits, Tag("<limits>")], Discriminator(_form)]


class Outage(Part):
    """Some keys of a provider answer 503 for a while."""

    at: Duration = said("When it begins, from the start of the simulation.", "6h", ...)
    lasts: Duration = said("How long it lasts.", "5m", ...)
    share: Share = said("Which part of the provider's keys it hits.", "33%", 1.0)


class Revoked(Part):
    """Some keys of a provider die."""

    at: Duration = said("When, from the start of the simulation.", "12h", ...)
    share: Share = said("Which part of the provider's keys.", "5%", ...)


class Price(Part):
    """What the model costs, in USD per million tokens."""

    input: Annotated[float, Field(ge=0)] = said("A million tokens of input.", 0.15, ...)
    output: Annotated[float, Field(ge=0)] = said("A million tokens of output.", 0.6, ...)
    cached: Annotated[float, Field(ge=0)] | None = said("A million cached tokens of input; as input unless said.", 0.03)


class Upstream(Part):
    """One provider: its keys, their true limits, and what is wrong with them."""

    like: Name | None = said("Which provider it speaks and counts like; its own name unless said.", "groq")
    model: str | None = said("Its name for the model.", "llama-3.1-8b-instant")
    keys: Annotated[int, Field(ge=1, le=MOST_KEYS)] = said("How many keys there are.", 20, ...)
    per_account: Amount = said("How many keys share one account, and so its limits.", 2, 1)
    accounts_declared: bool = said("The gateway was told which keys share an account.", False, True)
    limits: Limits = said("The true limits of each account.", {"rpm": 30, "rpd": 1000}, Limits())
    window: Kind | None = said(
        "How it counts seconds and minutes; as the provider that it is like unless said.", "fixed"
    )
    day: Kind | None = said("How it counts days.", "calendar")
    zone: str = said("Where its calendar days end.", "America/Los_Angeles", "")
    declared: Declared = said("The limits that the gateway was told: the true ones, none, or these.", False, True)
    headers: bool = said("It states its limits in headers, as the real one does.", True, True)
    retry_after: bool = said("Its refusals say how long to wait.", False, True)
    halved: Share = said("The part of the accounts that truly have half of the limits.", "10%", 0.0)
    dead: Share = said("The part of the keys that never work.", "5%", 0.0)
    revoked: Annotated[tuple[Revoked, ...], BeforeValidator(_one)] = said(
        "Keys that die.", {"at": "12h", "share": "5%"}, ()
    )
    outages: Annotated[tuple[Outage, ...], BeforeValidator(_one)] = said("Outages.", {"at": "6h", "lasts": "5m"}, ())
    transit: Span = said(
        "Seconds that a request is under way to it: one figure, or from and to.", [0.02, 0.4], (0.05, 0.05)
    )
    latency: Span = said("Seconds that it takes to answer.", [0.5, 3], (1.0, 1.0))
    priority: Annotated[int, Field(ge=1, le=10)] | None = said("Provider tier, 1 first.", 1)
    price: Price | None = said("What it costs.", {"input": 0.15, "output": 0.6})


class Spread(Part):
    """Sizes that are spread as those of real calls are: log-normally."""

    median: Annotated[float, Field(gt=0)] = said("Half of the calls are smaller.", 400, ...)
    sigma: Annotated[float, Field(ge=0, le=4)] = said("How widely they are spread; 0 not at all.", 0.8, 0.8)
    most: Amount = said("None is larger.", 8000, 100_000)


def _spread(value: Any) -> Any:
    return {"median": value, "sigma": 0} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Size = Annotated[Spread, BeforeValidator(_spread)]


class Burst(Part):
    """Many calls at once, again and again."""

    calls: Amount = said("How many.", 300, ...)
    within: Duration = said("In which time they come.", "8s", 1.0)
    every: Duration = said("How long after one the next begins; 0: there is one alone.", "1h", 0.0)
    at: Duration = said("When the first begins.", "10m", 0.0)


class Conversations(Part):
    """Calls that go on from one another: whoever answers the next has the prompt in its cache, if it was the last."""

    share: Share = said("The part of what begins that is a conversation.", "30%", ...)
    turns: Annotated[int, Field(ge=2, le=1000)] = said("Calls in each.", 6, ...)
    pause: Duration = said("Between two of its calls, on average.", "30s", 30.0)
    cache_lasts: Duration = said("How long a provider keeps a prompt.", "5m", 300.0)


class Caller(Part):
    """Somebody who asks."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = said(
        "Its name.", "team", ...
    )
    count: Annotated[int, Field(ge=1, le=10_000)] = said("How many there are of its kind, `team-1`, `team-2`.", 19, 1)
    share: Annotated[float, Field(gt=0)] = said("How much each asks beside the others.", 50, 1.0)
    weight: Annotated[float, Field(gt=0)] = said("What each may have beside the others where that is scarce.", 2, 1.0)


class Calls(Part):
    """What is asked, and when."""

    rate: Rate | None = said("How many calls come, on average.", "63000/day")
    diurnal: Share = said("By how much the rate swings up and down over a day.", "80%", 0.0)
    peak: Duration = said("The hour of the day (UTC) at which most come.", "14h", 50_400.0)
    bursts: Annotated[tuple[Burst, ...], BeforeValidator(_one)] = said(
        "Bursts on top.", {"calls": 300, "every": "1h"}, ()
    )
    replay: str | None = said("A file of calls as they came, instead: JSON lines with at, input, output.", "mine.jsonl")
    input: Size = said("Tokens of input.", {"median": 400, "sigma": 0.8}, 200, validate_default=True)
    output: Size = said("Tokens of output.", {"median": 150, "sigma": 0.8}, 100, validate_default=True)
    misjudged: Annotated[float, Field(ge=0, le=2)] = said(
        "How far the gateway's estimate of the input is off (sigma).", 0.1, 0.1
    )
    patience: Annotated[dict[str, Share], BeforeValidator(_shared)] = said(
        "How long callers wait for an answer, or several with their shares.", {"30s": 0.5, "120s": 0.5}, {"120s": 1.0}
    )
    batch: Share = said("The part that says that it can wait (`x-keyturn-class: batch`).", "20%", 0.0)
    comes_back: Share = said("The part of those refused that obeys `Retry-After` and asks once more.", "20%", 0.2)
    conversations: Conversations | None = said("Calls that go on from one another.", {"share": "30%", "turns": 6})

    @model_validator(mode="after")
    def _something_comes(self) -> Calls:
        if self.replay is None and self.rate is None and not self.bursts:
            raise PydanticCustomError("nothing", "says nothing of when calls come: give rate, bursts or replay")
        if self.replay is not None and (self.rate is not None or self.bursts):
            raise PydanticCustomError("both", "give either replay or rate and bursts")
        for name in self.patience:
            seconds_of(name)
        if abs(sum(self.patience.values()) - 1) > 0.001:
            raise PydanticCustomError("shares", "the shares of patience do not add up to 1")
        return self


class Scenario(Part):
    """A scenario file."""

    title: str = said("What it is about.", "A day of 100 free keys", "")
    seed: int = said("The same seed draws the same calls and mishaps.", 7, 1)
    duration: Duration = said("How long it lasts.", "24h", 86_400.0, gt=0)
    starts: Duration = said("The hour of the day (UTC) at which it begins.", "0h", 0.0)
    strategies: tuple[StrategyName, ...] = said(
        "What is compared.", ["keyturn", "round_robin"], ("keyturn", "round_robin", "least_used", "random")
    )
    settings: dict[str, str | int | float | bool] = said(
        "Settings of the gateway, by their variables.", {"TIMEOUT_QUEUE_WAIT": 60}, {}
    )
    providers: Annotated[dict[Name, Upstream], Field(min_length=1)] = said("Who answers.", {"groq": {"keys": 20}}, ...)
    calls: Calls = said("What is asked, and when.", {"rate": "20/minute"}, ...)
    callers: tuple[Caller, ...] = said("Who asks; one caller unless said.", [{"name": "team"}], ())

    @field_validator("strategies")
    @classmethod
    def _something_is_compared(cls, strategies: tuple[StrategyName, ...]) -> tuple[StrategyName, ...]:
        if not strategies:  # a least length would be a second mistake beside a name that is no strategy
            raise PydanticCustomError("nothing", "is empty; name at least one")
        return strategies
