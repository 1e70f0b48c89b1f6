"""Reads how each provider's keys are used: strategy, tier, concurrency, limits, models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, cast, get_args

import msgspec

from .model import LimitSpec, Strategy
from .settings import Settings, as_integer, choose

STRATEGIES: tuple[str, ...] = get_args(Strategy)
LIMIT_NAMES: dict[str, tuple[Literal["requests", "tokens", "concurrency"], Literal["minute", "day", "inflight"]]] = {
    "rpm": ("requests", "minute"),
    "tpm": ("tokens", "minute"),
    "rpd": ("requests", "day"),
    "tpd": ("tokens", "day"),
    "concurrency": ("concurrency", "inflight"),
}


def strategies(settings: Settings) -> dict[str, Strategy]:
    """`ROTATION_MODE_<P>`; a word that is no strategy is noted and the default kept."""
    found: dict[str, Strategy] = {}
    for provider, variable in settings.per_provider(before="ROTATION_MODE_").items():
        text = settings.text(variable) or ""
        mode = text.lower().replace("-", "_")
        if mode in STRATEGIES:
            found[provider] = cast(Strategy, mode)
        else:
            settings.report.note(variable, f"{choose(settings.report, text, STRATEGIES)}; balanced is used")
    return found


def tiers(settings: Settings) -> dict[str, int]:
    """`PROVIDER_PRIORITY_<P>`; what is no whole number from 1 up is noted and the default kept."""
    found: dict[str, int] = {}
    for provider, variable in settings.per_provider(before="PROVIDER_PRIORITY_").items():
        text = settings.text(variable) or ""
        tier = as_integer(text)
        if tier is None or tier < 1:
            quoted = settings.report.quote(text)
            settings.report.note(variable, f"{quoted} is not a whole number from 1 up; the default tier is used")
        else:
            found[provider] = tier
    return found


def max_concurrent(settings: Settings, modes: dict[str, Strategy], filed: Mapping[str, int]) -> dict[str, int]:
    """`MAX_CONCURRENT_REQUESTS_PER_KEY_<P>[_<MODE>]`: the one of the mode in use wins, any of them over *filed*; 0 and
    below mean unlimited."""
    before = "MAX_CONCURRENT_REQUESTS_PER_KEY_"
    chosen: dict[str, str] = {}
    for variable in sorted(name for name in settings.values if name.startswith(before)):
        spelling, mode = variable.removeprefix(before), ""
        for strategy in STRATEGIES:
            if settings.names.find(spelling) is None and spelling.endswith(f"_{strategy.upper()}"):
                spelling, mode = spelling.removesuffix(f"_{strategy.upper()}"), strategy
        provider = settings.names.find(spelling)
        if settings.text(variable) is None:
            continue
        if provider is None:
            settings.report.note(variable, settings.names.unknown(spelling, before, f"_{mode.upper()}" if mode else ""))
        elif mode == modes.get(provider, "balanced") or not mode:
            chosen[provider] = variable  # in order of name, so one with a mode comes after the one without
    found = dict(filed)
    for provider, variable in chosen.items():
        text = settings.text(variable) or ""
        bound = as_integer(text)
        if bound is None:
            settings.report.problem(
                variable, f"{settings.report.quote(text)} is not a whole number; -1 means unlimited"
            )
        elif bound > 0:
            found[provider] = bound
        else:
            found.pop(provider, None)
    return found


def limits(settings: Settings) -> dict[str, tuple[LimitSpec, ...]]:
    """`LIMITS_<P>`: `rpm=30 tpm=6000`; 0 and below mean unlimited."""
    found: dict[str, tuple[LimitSpec, ...]] = {}
    for provider, variable in settings.per_provider(before="LIMITS_").items():
        specs: dict[str, LimitSpec] = {}
        for word in re.split(r"[\s,]+", settings.text(variable) or ""):
            name, equals, amount = word.partition("=")
            capacity = as_integer(amount.replace("_", ""))
            if name.lower() not in LIMIT_NAMES:
                settings.report.problem(variable, choose(settings.report, name, tuple(LIMIT_NAMES)))
            elif capacity is None or not equals:
                settings.report.problem(variable, f"{settings.report.quote(word)} is not like {name.lower()}=30")
            elif capacity > 0:
                specs[name.lower()] = LimitSpec(*LIMIT_NAMES[name.lower()], capacity)
        if specs:
            found[provider] = tuple(specs.values())
    return found


def static_models(settings: Settings) -> dict[str, tuple[str, ...]]:
    """`<P>_MODELS`: a JSON list, a JSON object (alias → id, or → {"id"}), or names separated by commas."""
    found: dict[str, tuple[str, ...]] = {}
    for provider, variable in settings.per_provider(after="_MODELS").items():
        names = _model_names(settings, variable, settings.text(variable) or "")
        if names:
            found[provider] = names
    return found


def _model_names(settings: Settings, variable: str, text: str) -> tuple[str, ...]:
    if text[0] not in "[{":
        return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    try:
        given = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        settings.report.problem(
            variable, f'is not valid JSON ({error}); write ["model-a","model-b"] or model-a,model-b'
        )
        return ()
    entries = list(given.items()) if isinstance(given, dict) else [(name, name) for name in given]
    names: list[str] = []
    for alias, entry in entries:
        name = entry.get("id", alias) if isinstance(entry, dict) else entry
        if not isinstance(name, str) or not name.strip():
            settings.report.problem(variable, 'every model must be a name, or an object with "id"')
        else:
            names.append(name.strip())
            if alias not in (name, entry) or (isinstance(entry, dict) and entry.get("options")):
                said = f"{settings.report.quote(name)} is offered by its id; alias and options are not used"
                settings.report.note(variable, said)
    return tuple(dict.fromkeys(names))


def chat_models(settings: Settings) -> dict[str, str]:
    """`<P>_CHAT_MODEL`."""
    return {
        provider: settings.text(variable) or ""
        for provider, variable in settings.per_provider(after="_CHAT_MODEL").items()
    }
