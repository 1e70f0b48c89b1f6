"""Reads the fair cycles: whether a provider's keys take turns at being exhausted, and how."""

from __future__ import annotations

from collections.abc import Mapping

from keyturn.core import FairRule

from .caps import seconds_of
from .filed import Filed
from .model import Strategy
from .settings import Settings, choose

SWITCH = "FAIR_CYCLE_"
PARTS = {
    each: f"{SWITCH}{each}_"
    for each in ("ENABLED", "TRACKING_MODE", "CROSS_TIER", "DURATION", "QUOTA_THRESHOLD", "RESET_COOLDOWN_THRESHOLD")
}
"""What a longer name of the family is about -> how it begins."""
WITHOUT_EFFECT = {
    "QUOTA_THRESHOLD": "has no effect: a key is exhausted when one of its limits keeps it away for long enough",
    "RESET_COOLDOWN_THRESHOLD": "has no effect: a cycle only orders keys, so there is nothing to hold back at its end",
}
TRACKING = ("model_group", "credential")
THRESHOLD = "EXHAUSTION_COOLDOWN_THRESHOLD"


def fair_cycles(settings: Settings, modes: Mapping[str, Strategy], filed: Filed) -> dict[str, FairRule]:
    """Provider -> its rule, where the cycle is on: under sequential unless said otherwise, elsewhere when said so."""
    on = _switched(settings, modes, filed)
    families = {each: settings.per_provider(before=before) for each, before in PARTS.items() if each != "ENABLED"}
    for each, said in WITHOUT_EFFECT.items():
        for variable in families[each].values():
            settings.report.note(variable, said)
    thresholds = settings.per_provider(before=f"{THRESHOLD}_")
    everywhere = _length(settings, THRESHOLD) if settings.is_set(THRESHOLD) else None
    found = {}
    for name in [*on, *({*families["TRACKING_MODE"], *families["CROSS_TIER"], *families["DURATION"]} - on.keys())]:
        rule = _filed(filed, name)
        if everywhere is not None:
            rule = rule._replace(threshold=everywhere)
        if name in thresholds and (length := _length(settings, thresholds[name])) is not None:
            rule = rule._replace(threshold=length)
        if name in families["DURATION"] and (length := _length(settings, families["DURATION"][name])) is not None:
            rule = rule._replace(duration=length)
        if name in families["CROSS_TIER"]:
            rule = rule._replace(cross_priority=bool(settings.switch(families["CROSS_TIER"][name])))
        if name in families["TRACKING_MODE"]:
            rule = rule._replace(per_key=_tracking(settings, families["TRACKING_MODE"][name]) == "credential")
        if on.get(name):
            found[name] = rule
        else:
            _note_idle(settings, families, name)
    return found


def _note_idle(settings: Settings, families: Mapping[str, Mapping[str, str]], name: str) -> None:
    """What says how a cycle goes that is off."""
    for each in ("TRACKING_MODE", "CROSS_TIER", "DURATION"):
        if name in families[each]:
            variable = families[each][name]
            switch = f"{SWITCH}{variable.removeprefix(PARTS[each])}"
            settings.report.note(variable, f"has no effect: the fair cycle is off, set {switch}=true")


def _switched(settings: Settings, modes: Mapping[str, Strategy], filed: Filed) -> dict[str, bool]:
    """Provider -> whether its cycle is on, where anything says so."""
    on = {name: True for name, mode in modes.items() if mode == "sequential"}
    for name, each in filed.blocks.items():
        if each.block.fair_cycle is not None and each.block.fair_cycle.enabled is not None:
            on[name] = each.block.fair_cycle.enabled
    plain = settings.per_provider(before=SWITCH, but=tuple(PARTS.values()))
    for name, variable in settings.per_provider(before=PARTS["ENABLED"]).items():
        other = plain.setdefault(name, variable)
        if settings.text(other) != settings.text(variable):
            settings.report.problem(variable, f"says something else than {other}; keep one of them")
    return on | {name: bool(settings.switch(variable)) for name, variable in plain.items()}


def _filed(filed: Filed, name: str) -> FairRule:
    """What models.yaml says of it, else the defaults."""
    entry = filed.blocks.get(name)
    said = entry.block.fair_cycle if entry is not None else None
    if said is None:
        return FairRule()
    return FairRule(
        said.exhausted_from_seconds, said.duration_seconds, said.cross_priority, said.tracking == "credential"
    )


def _tracking(settings: Settings, variable: str) -> str:
    text = (settings.text(variable) or "").lower()
    if text not in TRACKING:
        settings.report.problem(variable, choose(settings.report, text, TRACKING))
    return text


def _length(settings: Settings, variable: str) -> int | None:
    text = settings.text(variable) or ""
    seconds = seconds_of(text)
    if seconds is None:
        settings.report.problem(variable, f"{settings.report.quote(text)} is no length such as 300, 5m, 24h or 7d")
    return seconds
