"""Reads key priorities, which models need which, and how many calls a key may have under way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from .caps import MOST_PRIORITY
from .filed import Filed
from .groups import of_provider
from .model import Strategy
from .report import listed
from .settings import Settings, as_integer

STRATEGY_NAMES: tuple[str, ...] = get_args(Strategy)
MULTIPLIER = re.compile(r"CONCURRENCY_MULTIPLIER_(?P<provider>.+)_PRIORITY_(?P<number>[0-9]+)(?:_(?P<mode>[A-Z_]+))?\Z")


def key_priorities(
    settings: Settings,
    name: str,
    variable: str | None,
    filed: Filed,
    numbered: Mapping[int, list[str]],
    number_of: Callable[[Settings, str, str, dict[int, list[str]]], int | None],
) -> dict[str, int]:
    """Key -> its priority, from `KEY_PRIORITIES_<P>` (`1:1,2:1,3:2`) or `key_priorities:` of models.yaml.

    *numbered*: key number -> keys. *number_of* reads a number in a word, and says so when there is no such key.
    """
    found: dict[str, int] = {}
    place, written = _written(settings, name, variable, filed)
    for key, text in written:
        number, priority = number_of(settings, place, key, dict(numbered)), as_integer(text.strip())
        if priority is None or not 1 <= priority <= MOST_PRIORITY:
            said = f"key number, then a priority from 1, which is asked first, to {MOST_PRIORITY}"
            settings.report.problem(place, f"is not a list like 1:1,2:1,3:2 ({said})")
        elif number is not None:
            found.update(dict.fromkeys(numbered[number], priority))
    left = sorted(number for number, keys in numbered.items() if keys and not any(key in found for key in keys))
    if found and left:
        keys = f"keys {listed(map(str, left))} have" if len(left) > 1 else f"key {left[0]} has"
        settings.report.note(place, f"{keys} no priority, so all others come before")
    return found


def _written(settings: Settings, name: str, variable: str | None, filed: Filed) -> tuple[str, list[tuple[str, str]]]:
    """Where it is said, and each key with its priority as text."""
    if variable is not None:
        parts = (part.partition(":") for part in (settings.text(variable) or "").split(",") if part.strip())
        return variable, [(key, text) for key, _, text in parts]
    entry = filed.blocks.get(name)
    if entry is None or not entry.block.key_priorities:
        return "", []
    given = entry.block.key_priorities
    return entry.place("key_priorities"), [(str(key), str(priority)) for key, priority in given.items()]


def needed_priorities(settings: Settings, filed: Filed) -> dict[str, tuple[tuple[str, int], ...]]:
    """`KEY_PRIORITY_FOR_<P>` (`gemini-2.5-pro:1`) over `key_priority:` of models.yaml."""
    found = {
        name: tuple((of_provider(settings, name, model), needed) for model, needed in each.block.key_priority.items())
        for name, each in filed.blocks.items()
    }
    for name, variable in settings.per_provider(before="KEY_PRIORITY_FOR_").items():
        said = []
        for part in (settings.text(variable) or "").split(","):
            pattern, _, text = part.strip().rpartition(":")
            priority = as_integer(text)
            if not pattern or priority is None or not 1 <= priority <= MOST_PRIORITY:
                quoted = settings.report.quote(part.strip())
                settings.report.problem(variable, f"{quoted} is not like gemini-2.5-pro:1 (a model, then a priority)")
            else:
                said.append((of_provider(settings, name, pattern), priority))
        found[name] = tuple(said)
    return {name: patterns for name, patterns in found.items() if patterns}


def soft_targets(settings: Settings, modes: Mapping[str, Strategy], filed: Filed) -> dict[str, int]:
    """`OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_<P>[_<MODE>]` over `optimal_concurrent:`; 0 and below mean none."""
    given = {name: each.block.optimal_concurrent for name, each in filed.blocks.items()}
    found = {name: target for name, target in given.items() if target and target > 0}
    return whole_numbers(settings, "OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_", modes, found)


def whole_numbers(
    settings: Settings, before: str, modes: Mapping[str, Strategy], filed: Mapping[str, int]
) -> dict[str, int]:
    """*before* + `<P>[_<MODE>]`, over *filed*: the one of the mode in use wins; 0 and below take away."""
    found = dict(filed)
    for provider, variable in of_the_mode(settings, before, modes).items():
        text = settings.text(variable) or ""
        bound = as_integer(text)
        if bound is None:
            said = f"{settings.report.quote(text)} is not a whole number; -1 means unlimited"
            settings.report.problem(variable, said)
        elif bound > 0:
            found[provider] = bound
        else:
            found.pop(provider, None)
    return found


def of_the_mode(settings: Settings, before: str, modes: Mapping[str, Strategy]) -> dict[str, str]:
    """Provider -> the variable of one family that holds for it: that with its mode at the end, else that without."""
    chosen: dict[str, str] = {}
    for variable in sorted(name for name in settings.values if name.startswith(before)):
        spelling, mode = variable.removeprefix(before), ""
        for strategy in STRATEGY_NAMES:
            if settings.names.find(spelling) is None and spelling.endswith(f"_{strategy.upper()}"):
                spelling, mode = spelling.removesuffix(f"_{strategy.upper()}"), strategy
        provider = settings.names.find(spelling)
        if settings.text(variable) is None:
            continue
        if provider is None:
            settings.report.note(variable, settings.names.unknown(spelling, before, f"_{mode.upper()}" if mode else ""))
        elif mode == modes.get(provider, "balanced") or not mode:
            chosen[provider] = variable  # in order of name, so one with a mode comes after the one without
    return chosen


def multipliers(settings: Settings, modes: Mapping[str, Strategy], filed: Filed) -> dict[str, dict[int, int]]:
    """`CONCURRENCY_MULTIPLIER_<P>_PRIORITY_<N>[_<MODE>]` over `concurrency_multipliers:`, and under sequential
    `SEQUENTIAL_FALLBACK_MULTIPLIER_<P>` for every other priority (0)."""
    found = {name: dict(each.block.concurrency_multipliers) for name, each in filed.blocks.items()}
    for name, variable in settings.per_provider(before="SEQUENTIAL_FALLBACK_MULTIPLIER_").items():
        times = _times(settings, variable)
        if times is not None and modes.get(name) == "sequential":
            found.setdefault(name, {})[0] = times
    for variable, name, number in _multiplied(settings, modes):
        times = _times(settings, variable)
        if times is not None:
            found.setdefault(name, {})[number] = times
            settings.origins[f"{name}.concurrency_multipliers"] = variable
    return {name: times for name, times in found.items() if times}


def _multiplied(settings: Settings, modes: Mapping[str, Strategy]) -> Iterator[tuple[str, str, int]]:
    """Each variable of the family that holds, with its provider and priority; those with a mode last."""
    before = "CONCURRENCY_MULTIPLIER_"
    for variable in sorted(name for name in settings.values if name.startswith(before)):
        if not settings.is_set(variable):
            continue
        match = MULTIPLIER.match(variable)
        if match is None or int(match["number"]) not in range(1, MOST_PRIORITY + 1):
            settings.report.note(variable, f"is not read; write {before}<P>_PRIORITY_1, the key priority at its end")
            continue
        provider, mode = settings.names.find(match["provider"]), (match["mode"] or "").lower()
        if provider is None:
            end = f"_PRIORITY_{match['number']}" + (f"_{mode.upper()}" if mode else "")
            settings.report.note(variable, settings.names.unknown(match["provider"], before, end))
        elif mode and mode not in STRATEGY_NAMES:
            settings.report.note(variable, f"is not read: no rotation mode is called {mode}")
        elif not mode or mode == modes.get(provider, "balanced"):
            yield variable, provider, int(match["number"])


def _times(settings: Settings, variable: str) -> int | None:
    text = settings.text(variable) or ""
    times = as_integer(text)
    if times is None or not 1 <= times <= 1000:
        settings.report.problem(variable, f"{settings.report.quote(text)} is not a whole number from 1 to 1000")
        return None
    return times
