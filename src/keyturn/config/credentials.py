"""Finds the keys in the variables and says which belong together: providers, numbers, quota groups, plans, weights."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from keyturn.core import Account, Credential, Secret, fingerprint
from keyturn.providers import (
    CATALOG,
    DIALECT_NAMES,
    DialectName,
    Provider,
    at_its_address,
    custom,
    nearest,
    speaking,
)

from .accounts import Accounts
from .addresses import base_url, completed
from .filed import Filed, FiledProvider
from .g4f import BASES, G4F, KEYS_OF_ONE, at_endpoints, find_endpoints, meant
from .priorities import key_priorities
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


class KeyText(NamedTuple):
    """A key as it was found, in a variable or a file."""

    number: int
    origin: str
    secret: str
    filed: bool = False
    account: Account | None = None
    """It is no key but an account that gives tokens."""

    def fingerprint(self, provider: str) -> str:
        return fingerprint(provider, self.secret) if self.account is None else self.account.fingerprint(provider)


class Declared(NamedTuple):
    """What is said of each provider beside its keys: provider → variable, and its entry in models.yaml."""

    bases: dict[str, str]
    groups: dict[str, str]
    plans: dict[str, str]
    weights: dict[str, str]
    priorities: dict[str, str]
    dialects: dict[str, str]
    filed: Filed
    endpoints: dict[str, str]
    """Those of G4F: name -> base URL."""


class Found(NamedTuple):
    """The providers that can be used, each with its credentials, and what the others lack: name → variable."""

    providers: dict[str, Provider]
    credentials: dict[str, tuple[Credential, ...]]
    unset: dict[str, str]


NO_ACCOUNTS = Accounts({})


def find_providers(
    settings: Settings, filed: Filed, claimed: Collection[str] = (), accounts: Accounts = NO_ACCOUNTS
) -> Found:
    """The providers in the catalog's order and then by name. *claimed*: variables of others' keys."""
    add_custom_names(settings)
    bases = settings.per_provider(after=BASE_SUFFIX)
    endpoints, first = find_endpoints(settings, bases.get(G4F), filed.providers.get(G4F))
    if first:
        bases[G4F] = first
    declared = Declared(
        bases,
        settings.per_provider(before="QUOTA_GROUP_"),
        settings.per_provider(before="KEY_PLAN_"),
        settings.per_provider(before="KEY_WEIGHTS_"),
        settings.per_provider(before="KEY_PRIORITIES_"),
        settings.per_provider(after="_DIALECT"),
        filed,
        endpoints,
    )
    variables = key_variables(settings, {*claimed, *filed.claimed()})
    found = Found({}, {}, {})
    names = {key.provider for key in variables} | declared.bases.keys() | filed.providers.keys()
    names |= accounts.found.keys()
    for name in [*(known for known in CATALOG if known in names), *sorted(names - CATALOG.keys())]:
        entry = filed.providers.get(name)
        if entry is not None and entry.cli is not None:
            found.providers[name] = entry.cli
            found.credentials[name] = (Credential.of(name, "", origin=entry.place),)
            continue
        provider = _provider(settings, name, declared)
        own = [key for key in variables if key.provider == name]
        if name in accounts.bases:
            provider = replace(provider, base_url=accounts.bases[name])
        texts = _texts(settings, own, entry)
        keys = _credentials(settings, provider, texts + _signed(texts, accounts, name), declared)
        if keys and not provider.base_url:
            settings.report.note(keys[0].origin, f"not used: {name} has no address without {_base_variable(provider)}")
        elif keys:
            found.providers[name], found.credentials[name] = provider, keys
        elif entry is not None:
            found.unset[name] = _what_to_set(provider, entry)
    return found


def _what_to_set(provider: Provider, entry: FiledProvider) -> str:
    """The variable that gives *provider* its key, as models.yaml says it or as its name does."""
    if entry.env_key or entry.variables:
        return entry.env_key or entry.variables[0]
    return f"{(provider.variables or (provider.name.upper(),))[0]}_API_KEY"


def _texts(settings: Settings, variables: list[KeyVariable], entry: FiledProvider | None) -> list[KeyText]:
    """The keys of one provider: those of models.yaml first, then those of the environment. Blank ones too."""
    texts = []
    for key in entry.keys if entry is not None else ():
        settings.text(key.origin)
        texts.append(KeyText(key.number, key.origin, key.secret, filed=True))
    family = [(key.number, key.name) for key in variables]
    if entry is not None and entry.env_key:
        known = {name for _, name in family}
        for name in settings.values:
            base, _, number = name.rpartition("_")
            if name == entry.env_key and name not in known:
                family.append((0, name))
            elif base == entry.env_key and number.isdecimal() and len(number) < 10 and name not in known:
                family.append((int(number), name))
        family.sort(key=lambda each: each[0])
    return texts + [KeyText(number, name, settings.text(name) or "") for number, name in family]


def _signed(texts: list[KeyText], accounts: Accounts, provider: str) -> list[KeyText]:
    """The accounts of one provider; a number that a key has already is not given again."""
    taken = {key.number for key in texts if key.secret}
    found = []
    for number, origin, account in accounts.of(provider):
        number = number if number not in taken else max(taken) + 1
        taken.add(number)
        found.append(KeyText(number, origin, "", account=account))
    return found


def add_custom_names(settings: Settings) -> None:
    """Makes a provider of every `<NAME>_API_BASE` whose name no provider has."""
    for variable in sorted(settings.values):
        prefix = variable.removesuffix(BASE_SUFFIX)
        if prefix == variable or not PREFIX.match(prefix) or prefix in NO_PREFIXES or not settings.is_set(variable):
            continue
        if settings.names.find(prefix) is None and variable not in BASES:
            if endpoint := meant(variable):
                settings.report.note(variable, f"taken as a server of your own; was {endpoint} meant?")
            elif near := settings.names.nearest(prefix):
                settings.report.note(variable, f"taken as a server of your own; was {near}{BASE_SUFFIX} meant?")
            settings.names.add(prefix.lower())


def _provider(settings: Settings, name: str, declared: Declared) -> Provider:
    """The catalog's row, or a server of the owner's own, with the base URL and the dialect that are set for it."""
    entry = declared.filed.providers.get(name)
    dialect = _dialect(settings, declared.dialects.get(name)) or (entry.dialect if entry is not None else None)
    if name == G4F:
        return speaking(at_endpoints(CATALOG[name], declared.endpoints), dialect or CATALOG[name].dialect)
    url = _address(settings, name, declared, entry)
    if name not in CATALOG:
        return custom(name, url, dialect or "openai_chat")
    row = CATALOG[name]
    if url:
        row = replace(row, base_url=completed(url, row.base_path))
    compatible = dialect == "openai_chat" and bool(row.compat_path)
    if compatible and not row.base_url.endswith(row.compat_path):
        row = replace(row, base_url=row.base_url + row.compat_path)
    return at_its_address(row) if dialect is None or compatible else speaking(row, dialect)


def _dialect(settings: Settings, variable: str | None) -> DialectName | None:
    """The dialect that *variable* names; a wrong one goes into the report."""
    given = (settings.text(variable) if variable is not None else None) or ""
    for name in DIALECT_NAMES:
        if given.strip().lower() == name:
            return name
    if given and variable is not None:
        near = nearest(given, DIALECT_NAMES)
        meant = f"did you mean {near}?" if near else f"known are {', '.join(DIALECT_NAMES)}"
        settings.report.problem(variable, f"{settings.report.quote(given)} is no dialect; {meant}")
    return None


def _address(settings: Settings, name: str, declared: Declared, entry: FiledProvider | None) -> str:
    """The base URL that is set for *name*; empty: the catalog's own."""
    variable = declared.bases.get(name)
    if variable is None:
        return entry.base_url if entry is not None else ""
    try:
        url = base_url(settings.text(variable) or "")
    except ValueError as refusal:
        settings.report.problem(variable, str(refusal))
        return ""
    if name not in CATALOG and url.count("/") == 2:
        settings.report.note(variable, "has no path; most servers of this kind want /v1 at its end")
    return url


def key_variables(settings: Settings, claimed: Collection[str] = ()) -> list[KeyVariable]:
    """All variables that are written as keys of known providers, blank ones too, in natural order; notes the others
    unless they are *claimed*."""
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
        elif settings.is_set(name) and name not in claimed and name.rpartition("_")[0] not in claimed:
            settings.report.note(name, _not_a_key_variable(settings, name))
    return sorted(found)


def _not_a_key_variable(settings: Settings, name: str) -> str:
    if name.upper() in KEYS_OF_ONE:
        return "is not read: the endpoints of G4F share its keys; did you mean G4F_API_KEY?"
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
    settings: Settings, provider: Provider, texts: list[KeyText], declared: Declared
) -> tuple[Credential, ...]:
    """The credentials of one provider: checked, duplicates dropped, groups, plan and weights applied."""
    secrets: dict[str, KeyText] = {}
    numbered: dict[int, list[str]] = {key.number: [] for key in texts}
    for key in texts:
        if not key.secret and key.account is None:
            continue
        if key.account is None and (flaw := key_flaw(key.secret)):
            settings.report.problem(key.origin, flaw)
            continue
        mark = key.fingerprint(provider.name)
        numbered[key.number].append(mark)
        if mark in secrets:
            if secrets[mark].filed == key.filed:
                what = "key" if key.account is None else "account"
                settings.report.note(key.origin, f"is the same {what} as {secrets[mark].origin}; it is used once")
            continue
        if not key.filed and key.account is None and provider.name not in declared.bases:
            _note_whose_it_looks(settings, provider, key)
        secrets[mark] = key
    if not secrets:
        return _without_key(settings, provider, declared)
    one_project = [mark for mark, key in secrets.items() if key.account is not None and provider.name == "vertex"]
    groups = dict.fromkeys(one_project, min(one_project, default="")) | _groups(
        settings, provider.name, declared, numbered
    )
    weights = _weights(settings, declared.weights.get(provider.name), numbered)
    priorities = key_priorities(
        settings, provider.name, declared.priorities.get(provider.name), declared.filed, numbered, _number
    )
    plan = _plan(settings, provider.name, declared)
    return tuple(
        Credential(
            provider.name,
            Secret(key.secret),
            key.number,
            mark,
            groups.get(mark, mark),
            plan=plan,
            weight=weights.get(mark, 1.0),
            priority=priorities.get(mark),
            origin=key.origin,
            account=key.account,
            declared=mark in groups,
        )
        for mark, key in secrets.items()
    )


def _note_whose_it_looks(settings: Settings, provider: Provider, key: KeyText) -> None:
    owner = next((name for start, name in SHAPES.items() if key.secret.startswith(start)), provider.name)
    if owner != provider.name and "_API_KEY" in key.origin:
        meant = CATALOG[owner].variables[0] + key.origin[key.origin.index("_API_KEY") :]
        settings.report.note(key.origin, f"is sent to {provider.name}, but looks like a key of {owner}; use {meant}?")


def key_flaw(secret: str) -> str:
    """Why a text cannot be a key, empty when it can; it never quotes the text."""
    if not secret:
        return "the key is empty"
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "\"'":
        return "the quotes around the key belong to its value; take them out (docker --env-file keeps them)"
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        return "the key holds a space, a line break or another character that no key holds; copy it again"
    return ""


def _without_key(settings: Settings, provider: Provider, declared: Declared) -> tuple[Credential, ...]:
    """One credential without a secret, where none is needed; none at all otherwise."""
    base, entry = declared.bases.get(provider.name), declared.filed.providers.get(provider.name)
    if base is None and entry is None:
        return ()
    if provider.keyless or (provider.name not in CATALOG and not (entry is not None and entry.keyed)):
        return (Credential.of(provider.name, "", origin=base or (entry.place if entry is not None else "")),)
    if base is not None and entry is None:
        said = f"has no effect: {provider.name} needs a key, set {provider.variables[0]}_API_KEY"
        settings.report.note(base, said)
    return ()


def _base_variable(provider: Provider) -> str:
    if provider.name == G4F:
        return f"one of {', '.join(BASES)}"
    return f"{(provider.variables or (provider.name.upper(),))[0]}{BASE_SUFFIX}"


def _groups(settings: Settings, name: str, declared: Declared, numbered: dict[int, list[str]]) -> dict[str, str]:
    """Key → quota group, from `1,2;3`. A group is named by the least of its keys, so renumbering does not rename it."""
    groups: dict[str, str] = {}
    variable, entry = declared.groups.get(name), declared.filed.providers.get(name)
    if variable is not None:
        place = variable
        written = [part.split(",") for part in (settings.text(variable) or "").split(";")]
    elif entry is not None:
        place, written = entry.groups_place, [[str(number) for number in group] for group in entry.groups]
    else:
        return groups
    seen: set[int] = set()
    for part in written:
        numbers = [_number(settings, place, word, numbered) for word in part if word.strip()]
        for number in numbers:
            if number in seen and number is not None:
                settings.report.problem(place, f"names key {number} twice; a key is in one group")
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


def _plan(settings: Settings, name: str, declared: Declared) -> str | None:
    """`plan:` of models.yaml, else `KEY_PLAN_<P>`."""
    entry, variable = declared.filed.providers.get(name), declared.plans.get(name)
    if entry is not None and entry.plan is not None:
        return entry.plan
    plan = (settings.text(variable) or "").lower() if variable else ""
    if plan and plan not in PLANS:
        settings.report.problem(variable or "", choose(settings.report, settings.text(variable or "") or "", PLANS))
    return plan or None
