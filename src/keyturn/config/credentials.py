"""Finds the keys in the variables and says which belong together: providers, numbers, quota groups, plans, weights."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from keyturn.core import Credential, fingerprint
from keyturn.providers import CATALOG, Provider, custom

from .addresses import base_url
from .report import listed
from .settings import Settings, as_integer, as_number, choose

KEY = re.compile(r"(?P<prefix>[A-Z][A-Z0-9_]*?)_API_KEY(?:_(?P<number>[0-9]{1,9}))?\Z")
PREFIX = re.compile(r"[A-Z][A-Z0-9_]*\Z")
BASE_SUFFIX = "_API_BASE"
NO_PREFIXES = frozenset({"PROXY", "KEYTURN", "DEMO"})
OURS = frozenset({"PROXY_API_KEY"})
"""Key variables that belong to no provider."""
PLANS = ("free", "paid")
SHAPES = {
    "gsk_": "groq",
    "sk-ant-": "anthropic",
    "sk-or-": "openrouter",
    "AIza": "gemini",
    "nvapi-": "nvidia",
    "xai-": "xai",
    "pplx-": "perplexity",
    "csk-": "cerebras",
    "hf_": "huggingface",
}
"""How the keys of one provider begin, and of no other: as the providers print them on their own pages."""


class KeyVariable(NamedTuple):
    """A variable that may hold a key. *number* is its own, 0 for a bare one."""

    number: int
    rank: int
    """Place of its prefix among the provider's: GEMINI before GOOGLE."""
    name: str
    provider: str


class Declared(NamedTuple):
    """What is said of each provider beside its keys: provider → variable."""

    bases: dict[str, str]
    groups: dict[str, str]
    plans: dict[str, str]
    weights: dict[str, str]


def find_providers(settings: Settings) -> tuple[dict[str, Provider], dict[str, tuple[Credential, ...]]]:
    """The providers that can be used, in the catalog's order and then by name, each with its credentials."""
    add_custom_names(settings)
    declared = Declared(
        settings.per_provider(after=BASE_SUFFIX),
        settings.per_provider(before="QUOTA_GROUP_"),
        settings.per_provider(before="KEY_PLAN_"),
        settings.per_provider(before="KEY_WEIGHTS_"),
    )
    variables = key_variables(settings)
    providers: dict[str, Provider] = {}
    credentials: dict[str, tuple[Credential, ...]] = {}
    names = {key.provider for key in variables} | declared.bases.keys()
    for name in [*(known for known in CATALOG if known in names), *sorted(names - CATALOG.keys())]:
        provider = _provider(settings, name, declared)
        found = _credentials(settings, provider, [key for key in variables if key.provider == name], declared)
        if found and not provider.base_url:
            settings.report.note(found[0].origin, f"not used: {name} has no address without {_base_variable(provider)}")
        elif found:
            providers[name], credentials[name] = provider, found
    return providers, credentials


def add_custom_names(settings: Settings) -> None:
    """Makes a provider of every `<NAME>_API_BASE` whose name no provider has."""
    for variable in sorted(settings.values):
        prefix = variable.removesuffix(BASE_SUFFIX)
        if prefix == variable or not PREFIX.match(prefix) or prefix in NO_PREFIXES or not settings.is_set(variable):
            continue
        if settings.names.find(prefix) is None:
            if near := settings.names.nearest(prefix):
                settings.report.note(variable, f"taken as a server of your own; was {near}{BASE_SUFFIX} meant?")
            settings.names.add(prefix.lower())


def _provider(settings: Settings, name: str, declared: Declared) -> Provider:
    """The catalog's row, with the base URL that is set for it; or a new OpenAI-compatible provider at that URL."""
    variable = declared.bases.get(name)
    if variable is None:
        return CATALOG[name]
    try:
        url = base_url(settings.text(variable) or "")
    except ValueError as refusal:
        settings.report.problem(variable, str(refusal))
        url = ""
    if name in CATALOG:
        return replace(CATALOG[name], base_url=url)
    if url.count("/") == 2:
        settings.report.note(variable, "has no path; most servers of this kind want /v1 at its end")
    return custom(name, url)


def key_variables(settings: Settings) -> list[KeyVariable]:
    """All variables that are written as keys of known providers, blank ones too, in natural order; notes the others."""
    found: list[KeyVariable] = []
    for name in sorted(settings.values):
        if "_API_KEY" not in name.upper() or name in OURS:
            continue
        match = KEY.match(name)
        provider = settings.names.find(match["prefix"]) if match else None
        if match is not None and provider is not None:
            row = CATALOG.get(provider)
            prefixes = row.variables if row is not None else ()
            rank = prefixes.index(match["prefix"]) if match["prefix"] in prefixes else len(prefixes)
            found.append(KeyVariable(int(match["number"] or 0), rank, name, provider))
        elif settings.is_set(name):
            settings.report.note(name, _not_a_key_variable(settings, name))
    return sorted(found)


def _not_a_key_variable(settings: Settings, name: str) -> str:
    prefix, _, rest = name.upper().partition("_API_KEY")
    number = rest.strip("_S")
    ending = f"_API_KEY_{number}" if number.isdecimal() else "_API_KEY"
    if settings.names.find(prefix):
        return f"is not read; did you mean {prefix}{ending}?"
    said = f"no provider is called {prefix.lower()}, so this key is not used; "
    near = settings.names.nearest(prefix)
    return said + (
        f"did you mean {near}{ending}?" if near else f"set {prefix}{BASE_SUFFIX} if it speaks the OpenAI API"
    )


def _credentials(
    settings: Settings, provider: Provider, variables: list[KeyVariable], declared: Declared
) -> tuple[Credential, ...]:
    """The credentials of one provider: stripped, checked, duplicates dropped, groups, plan and weights applied."""
    secrets: dict[str, tuple[KeyVariable, str]] = {}
    numbered: dict[int, list[str]] = {key.number: [] for key in variables}
    for key in variables:
        secret = settings.text(key.name)
        if secret is None:
            continue
        if flaw := key_flaw(secret):
            settings.report.problem(key.name, flaw)
            continue
        mark = fingerprint(provider.name, secret)
        numbered[key.number].append(mark)
        owner = next((name for start, name in SHAPES.items() if secret.startswith(start)), provider.name)
        if owner != provider.name and provider.name not in declared.bases:
            meant = CATALOG[owner].variables[0] + key.name[key.name.index("_API_KEY") :]
            settings.report.note(key.name, f"is sent to {provider.name}, but looks like a key of {owner}; use {meant}?")
        if mark in secrets:
            settings.report.note(key.name, f"is the same key as {secrets[mark][0].name}; it is used once")
        else:
            secrets[mark] = (key, secret)
    if not secrets:
        return _without_key(settings, provider, declared.bases.get(provider.name))
    groups = _groups(settings, declared.groups.get(provider.name), numbered)
    weights = _weights(settings, declared.weights.get(provider.name), numbered)
    plan = _plan(settings, declared.plans.get(provider.name))
    return tuple(
        Credential.of(
            provider.name,
            secret,
            key.number,
            group=groups.get(mark, mark),
            plan=plan,
            weight=weights.get(mark, 1.0),
            origin=key.name,
        )
        for mark, (key, secret) in secrets.items()
    )


def key_flaw(secret: str) -> str:
    """Why a text cannot be a key, empty when it can; it never quotes the text."""
    if not secret:
        return "the key is empty"
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "\"'":
        return "the quotes around the key belong to its value; take them out (docker --env-file keeps them)"
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        return "the key holds a space, a line break or another character that no key holds; copy it again"
    return ""


def _without_key(settings: Settings, provider: Provider, base: str | None) -> tuple[Credential, ...]:
    if base is None:
        return ()
    if provider.keyless or provider.name not in CATALOG:
        return (Credential.of(provider.name, "", origin=base),)
    settings.report.note(base, f"has no effect: {provider.name} needs a key, set {provider.variables[0]}_API_KEY")
    return ()


def _base_variable(provider: Provider) -> str:
    return f"{provider.variables[0]}{BASE_SUFFIX}"


def _groups(settings: Settings, variable: str | None, numbered: dict[int, list[str]]) -> dict[str, str]:
    """Key → quota group, from `1,2;3`. A group is named by the least of its keys, so renumbering does not rename it."""
    groups: dict[str, str] = {}
    if variable is None:
        return groups
    seen: set[int] = set()
    for part in (settings.text(variable) or "").split(";"):
        numbers = [_number(settings, variable, word, numbered) for word in part.split(",") if word.strip()]
        for number in numbers:
            if number in seen and number is not None:
                settings.report.problem(variable, f"names key {number} twice; a key is in one group")
            elif number is not None:
                seen.add(number)
        members = {mark for number in numbers if number is not None for mark in numbered[number]}
        groups.update(dict.fromkeys(members, min(members, default="")))
    return groups


def _weights(settings: Settings, variable: str | None, numbered: dict[int, list[str]]) -> dict[str, float]:
    """Key → weight, from `1:3,2:1`."""
    weights: dict[str, float] = {}
    for word in (settings.text(variable) or "").split(",") if variable else ():
        key, _, share = word.partition(":")
        number, weight = _number(settings, variable or "", key, numbered), as_number(share)
        if weight is None or weight <= 0:
            settings.report.problem(variable or "", "is not a list like 1:3,2:1 (key number, then a weight above 0)")
        elif number is not None:
            weights.update(dict.fromkeys(numbered[number], weight))
    return weights


def _number(settings: Settings, variable: str, word: str, numbered: dict[int, list[str]]) -> int | None:
    """The key number in *word*; None, with a problem, when there is no such key. A blank variable counts as a key."""
    number = as_integer(word.strip())
    if number is None:
        quoted = settings.report.quote(word.strip())
        settings.report.problem(
            variable, f"{quoted} is not a key number; write 2 for …_API_KEY_2 and 0 for the bare key"
        )
        return None
    if number not in numbered:
        known = listed(str(known) for known in sorted(numbered))
        settings.report.problem(variable, f"there is no key {number}; the keys are {known}")
        return None
    return number


def _plan(settings: Settings, variable: str | None) -> str | None:
    plan = (settings.text(variable) or "").lower() if variable else ""
    if plan and plan not in PLANS:
        settings.report.problem(variable or "", choose(settings.report, settings.text(variable or "") or "", PLANS))
    return plan or None
