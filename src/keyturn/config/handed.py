"""Keys that a program hands in, in place of those that the environment and the files hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from keyturn.core import Credential, fingerprint
from keyturn.providers import CATALOG, known, nearest, plain_name

from .credentials import key_flaw
from .load import NO_OPTIONS, load
from .model import Config, Options

FIRST = 900_000_001
"""The number of the first variable that a key is read from: far from those that people write."""
Keys = Mapping[str, Sequence[str]]


def load_with_keys(
    environ: Mapping[str, str], keys: Keys, *, env_file: Path | None, cwd: Path, options: Options = NO_OPTIONS
) -> Config:
    """As `load`, but of the providers that want a key only those in *keys* are there, with these keys alone.

    Everything else holds as it was configured; a key that is configured too keeps its quota group and plan. Raises
    ValueError for a name that no provider has and for what cannot be a key, ConfigError as `load` does.
    """
    named = {_canonical(name): (name, texts) for name, texts in keys.items()}
    added: dict[str, str] = {}
    for provider, (name, texts) in named.items():
        prefix = _prefix(provider)
        for place, text in enumerate(texts):
            if flaw := key_flaw(text):
                raise ValueError(f"api_keys[{name!r}], key {place + 1}: {flaw}")
            added[f"{prefix}_API_KEY_{FIRST + place}"] = text
    config = load({**environ, **added}, env_file=env_file, cwd=cwd, options=options)
    credentials: dict[str, tuple[Credential, ...]] = {}
    for provider, found in config.credentials.items():
        if provider in named:
            credentials[provider] = tuple(_handed(provider, named[provider][1], found))
        elif not any(each.secret for each in found) and not config.providers[provider].local_app:
            credentials[provider] = found
    for provider, (name, texts) in named.items():
        if texts and not credentials.get(provider):
            raise ValueError(f"api_keys[{name!r}]: {_unknown(name)}")
    notes = tuple(note for note in config.notes if not any(variable in note for variable in added))
    providers = {name: row for name, row in config.providers.items() if name in credentials}
    return replace(config, providers=providers, credentials=credentials, demo=False, notes=notes)


def _handed(provider: str, texts: Sequence[str], found: tuple[Credential, ...]) -> list[Credential]:
    """The credentials of *texts*, numbered from 1 in their order, duplicates dropped."""
    loaded = {each.fingerprint: each for each in found}
    marks = dict.fromkeys(fingerprint(provider, text) for text in texts)
    chosen = [loaded[mark] for mark in marks if mark in loaded]
    origin = f"api_keys[{provider!r}]"
    return [replace(each, number=number, weight=1.0, origin=origin) for number, each in enumerate(chosen, 1)]


def _canonical(name: str) -> str:
    row = known(name)
    if row is not None and row.local_app:
        raise ValueError(f"api_keys[{name!r}]: is the name of a rehearsal, which takes no key")
    return row.name if row is not None else plain_name(name)


def _prefix(provider: str) -> str:
    row = CATALOG.get(provider)
    return row.variables[0] if row is not None and row.variables else provider.upper()


def _unknown(name: str) -> str:
    row = known(name)
    if row is not None:
        variable = f"{_prefix(row.name)}_API_BASE"
        return f"{row.name} has no address; set {variable}" if not row.base_url else f"{row.name} takes no key"
    near = nearest(name, [each.name for each in CATALOG.values() if not each.local_app])
    meant = f"did you mean {near!r}? " if near else ""
    return f"no provider is called so; {meant}set {name.upper()}_API_BASE if it is a server of your own"
