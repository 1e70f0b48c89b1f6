"""Reads how each provider's keys are used: strategy, tier, concurrency, limits, models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, cast, get_args

import msgspec

from .fair import fair_cycles
from .filed import Filed
from .groups import custom_caps, model_groups, model_lists
from .model import LimitSpec, Strategy
from .modes import STICKINESS, Modes
from .priorities import multipliers, needed_priorities, soft_targets, whole_numbers
from .settings import Settings, as_integer, as_number, choose

STRATEGIES: tuple[str, ...] = get_args(Strategy)
LAST_TIER = 10
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


def modes(settings: Settings, used: Mapping[str, Strategy], filed: Filed) -> Modes:
    """All that is said of how keys are used beyond their order. *used*: the strategies."""
    if settings.is_set("ROTATION_TOLERANCE"):
        said = "has no effect: balanced takes the key with the smallest used share; ROTATION_MODE_<P>=weighted draws"
        settings.report.note("ROTATION_TOLERANCE", said)
    return Modes(
        soft=soft_targets(settings, used, filed),
        multipliers=multipliers(settings, used, filed),
        needed=needed_priorities(settings, filed),
        groups=model_groups(settings, filed),
        caps=custom_caps(settings, filed),
        fair=fair_cycles(settings, used, filed),
        lists=model_lists(settings, filed),
        stickiness=_stickiness(settings),
    )


def _stickiness(settings: Settings) -> float:
    text = settings.text("SESSION_STICKINESS_TTL")
    seconds = as_number(text) if text is not None else STICKINESS
    if seconds is None or seconds < 0:
        settings.report.problem(
            "SESSION_STICKINESS_TTL", f"{settings.report.quote(text or '')} is no number of seconds"
        )
        return STICKINESS
    return seconds


def tiers(settings: Settings) -> dict[str, int]:
    """`PROVIDER_PRIORITY_<P>`; what is no whole number from 1 to 10 is noted and the default kept."""
    found: dict[str, int] = {}
    for provider, variable in settings.per_provider(before="PROVIDER_PRIORITY_").items():
        text = settings.text(variable) or ""
        tier = as_integer(text)
        if tier is None or not 1 <= tier <= LAST_TIER:
            quoted = settings.report.quote(text)
            said = f"{quoted} is not a whole number from 1 to {LAST_TIER}; the default tier is used"
            settings.report.note(variable, said)
        else:
            found[provider] = tier
    return found


def max_concurrent(settings: Settings, modes: dict[str, Strategy], filed: Mapping[str, int]) -> dict[str, int]:
    """`MAX_CONCURRENT_REQUESTS_PER_KEY_<P>[_<MODE>]`: the one of the mode in use wins, any of them over *filed*; 0 and
    below mean unlimited."""
    return whole_numbers(settings, "MAX_CONCURRENT_REQUESTS_PER_KEY_", modes, filed)


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


def default_models(settings: Settings, ending: str) -> dict[str, str]:
    """`<P>_CHAT_MODEL`, `<P>_EMBEDDING_MODEL`: *ending* says which."""
    return {
        provider: settings.text(variable) or "" for provider, variable in settings.per_provider(after=ending).items()
    }
