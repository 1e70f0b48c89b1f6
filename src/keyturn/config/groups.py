"""Reads what is said of several models of a provider at once: shared quotas, custom caps, and which may be used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from keyturn.providers import CATALOG

from .caps import BadCap, Cap, parse_caps
from .filed import Filed
from .modes import ModelList
from .settings import Settings

GROUPS = "QUOTA_GROUPS_"
CAP = "CUSTOM_CAP_"
CAP_COOLDOWN = f"{CAP}COOLDOWN_"
OLD_CAP = re.compile(r"T(?P<tiers>[0-9]+(?:_[0-9]+)*|DEFAULT)_(?P<rest>.+)\Z")
OFF = ("", "none", "off")


def of_provider(settings: Settings, provider: str, model: str) -> str:
    """A name or pattern of models of *provider* as it is matched: under whatever name of the provider it is written,
    and without what names may carry in front (`models/`)."""
    head, slash, rest = model.partition("/")
    named = bool(slash and rest) and settings.names.find(head.upper().replace("-", "_")) == provider
    own, row = rest if named else model, CATALOG.get(provider)
    if row is not None:
        own = own.removeprefix(row.model_prefix) or own
    return f"{provider}/{own}" if named else own


def _models_of(settings: Settings, provider: str, models: Iterable[str]) -> tuple[str, ...]:
    return tuple(of_provider(settings, provider, model) for model in models)


def model_groups(settings: Settings, filed: Filed) -> dict[str, dict[str, tuple[str, ...]]]:
    """`QUOTA_GROUPS_<P>_<NAME>` over `model_quota_groups:`; a blank value (or `none`) switches a group off."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    places: dict[tuple[str, str], str] = {}
    for name, each in filed.blocks.items():
        if each.block.model_quota_groups:
            found[name] = {
                plain(group): _models_of(settings, name, models)
                for group, models in each.block.model_quota_groups.items()
            }
            places.update({(name, group): each.place("model_quota_groups") for group in found[name]})
    for variable in sorted(each for each in settings.values if each.startswith(GROUPS)):
        provider, group = split(settings, variable.removeprefix(GROUPS))
        if provider is None:
            settings.report.note(variable, settings.names.unknown(variable.removeprefix(GROUPS), GROUPS, ""))
        elif not group:
            said = f"names no group; write {variable}_FLASH=model-a,model-b for one that is called flash"
            settings.report.problem(variable, said)
        else:
            text = settings.text(variable) or ""
            models = () if text.lower() in OFF else settings.words(variable)
            found.setdefault(provider, {})[plain(group)] = _models_of(settings, provider, models)
            places[provider, plain(group)] = variable
            settings.origins[f"{provider}.model_quota_groups"] = variable
    for provider, groups in found.items():
        _no_model_twice(settings, places, provider, groups)
    return found


def _no_model_twice(
    settings: Settings, places: dict[tuple[str, str], str], provider: str, groups: dict[str, tuple[str, ...]]
) -> None:
    seen: dict[str, str] = {}
    for group, models in groups.items():
        for model in models:
            other = seen.setdefault(model.lower(), group)
            if other != group:
                said = f"{provider}: {settings.report.quote(model)} is in the groups {other} and {group}; keep one"
                settings.report.problem(places[provider, group], said)


def split(settings: Settings, spelling: str) -> tuple[str | None, str]:
    """The provider that *spelling* begins with, the longest name that fits, and the rest behind its underscore."""
    parts = spelling.split("_")
    for count in range(len(parts), 0, -1):
        provider = settings.names.find("_".join(parts[:count]))
        if provider is not None:
            return provider, "_".join(parts[count:])
    return None, ""


def plain(group: str) -> str:
    """The one spelling of a group's name: `FREE_MODELS` and `free-models` are one."""
    return group.lower().replace("_", "-")


def custom_caps(settings: Settings, filed: Filed) -> dict[str, tuple[Cap, ...]]:
    """`CUSTOM_CAP_<P>` over `caps:` of models.yaml. The forms of older systems are refused, with what to write."""
    found: dict[str, tuple[Cap, ...]] = {}
    for name, each in filed.blocks.items():
        caps: list[Cap] = []
        for index, text in enumerate(each.block.caps):
            caps += _parsed(settings, name, text, each.place("caps", index))
        found[name] = tuple(caps)
    for variable in sorted(each for each in settings.values if each.startswith(CAP)):
        text = settings.text(variable) or ""
        provider = settings.names.find(variable.removeprefix(CAP))
        if not text:
            continue
        if provider is not None:
            found[provider] = tuple(_parsed(settings, provider, text, variable))
        elif told := _old_form(settings, variable):
            settings.report.problem(variable, told)
        else:
            settings.report.note(variable, settings.names.unknown(variable.removeprefix(CAP), CAP, ""))
    return {name: each for name, each in found.items() if each}


def _parsed(settings: Settings, provider: str, text: str, place: str) -> Iterator[Cap]:
    try:
        for cap in parse_caps(text):
            yield cap._replace(models=_models_of(settings, provider, cap.models))
    except BadCap as bad:
        settings.report.problem(place, f"{settings.report.quote(bad.word)} {bad.said}")


def _old_form(settings: Settings, variable: str) -> str:
    """What to write instead of `CUSTOM_CAP_GEMINI_T2_25_FLASH=100`; empty for what is no such variable."""
    cooldown = variable.startswith(CAP_COOLDOWN)
    rest = variable.removeprefix(CAP_COOLDOWN if cooldown else CAP)
    provider, tail = split(settings, rest)
    match = OLD_CAP.match(tail) if provider is not None else None
    if match is None:
        return ""
    spelling = rest.removesuffix(f"_{tail}")
    if cooldown:
        line = f"cooldown={_old_cooldown(settings.text(variable) or '')}"
        return f"is an older form; write it into the entry of {CAP}{spelling}: {line}"
    numbers, model = match["tiers"].split("_"), match["rest"]
    priority = "" if numbers == ["DEFAULT"] else f"priority={numbers[0]} "
    first = "-".join([*numbers[1:], model]).lower().replace("_", "-")
    amount = settings.text(variable) or ""
    amount = amount if re.fullmatch(r"[+-]?[0-9]{1,12}|[0-9]{1,3}%", amount) else "100"
    resting = settings.text(f"{CAP_COOLDOWN}{rest}")
    ending = f" cooldown={_old_cooldown(resting)}" if resting else ""
    line = f'{CAP}{spelling}="model={first} {priority}requests={amount}/day{ending}"'
    other = f", or priority={','.join(numbers)} model={model.lower().replace('_', '-')}" if len(numbers) > 1 else ""
    return f"is an older form, which can be read in two ways; write {line} (with the model's own name{other})"


def _old_cooldown(text: str) -> str:
    """`quota_reset`, `offset:<s>`, `fixed:<s>` as they are written now."""
    kind, _, length = text.strip().lower().partition(":")
    length = f"{length}s" if length.isdecimal() else length
    if kind in ("offset", "fixed") and re.fullmatch(r"[0-9]+[smhd]", length):
        return length if kind == "fixed" else f"reset+{length}"
    return "reset"


def model_lists(settings: Settings, filed: Filed) -> dict[str, ModelList]:
    """`WHITELIST_MODELS_<P>` and `IGNORE_MODELS_<P>` over `allow_models:` and `ignore_models:`."""
    allow = {name: each.block.allow_models for name, each in filed.blocks.items() if each.block.allow_models}
    ignore = {name: each.block.ignore_models for name, each in filed.blocks.items() if each.block.ignore_models}
    places = {name: filed.blocks[name].place("ignore_models") for name in ignore}
    allowing = settings.per_provider(before="WHITELIST_MODELS_")
    for name, variable in allowing.items():
        allow[name] = settings.words(variable)
    for name, variable in settings.per_provider(before="IGNORE_MODELS_").items():
        ignore[name], places[name] = settings.words(variable), variable
    for name in allow.keys() - ignore.keys():
        place = allowing.get(name) or filed.blocks[name].place("allow_models")
        settings.report.note(place, "refuses nothing by itself; to refuse every other model, ignore all: *")

    def patterns(name: str, models: Iterable[str]) -> tuple[str, ...]:
        return tuple(each.lower() for each in _models_of(settings, name, models))

    return {
        name: ModelList(patterns(name, allow.get(name, ())), patterns(name, models), places[name])
        for name, models in ignore.items()
        if models
    }
