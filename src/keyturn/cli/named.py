"""What the words of a command name: a provider, or keys."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Caller, Credential


def keys_named(config: Config, key: str | None) -> tuple[Credential, ...]:
    """The credentials that KEY names, all without one. Raises UsageError when it names none."""
    everything = tuple(each for keys in config.credentials.values() for each in keys)
    found = everything if key is None else config.find_keys(key)
    if not found:
        raise click.UsageError(f"no key is called {key}; there are {', '.join(each.shown for each in everything)}")
    return found


def provider_named(provider: str | None, names: Collection[str]) -> str | None:
    """The one of *names* that PROVIDER names, itself or by an alias; None without one. Raises UsageError."""
    from keyturn.providers import known, nearest

    if provider is None:
        return None
    row = known(provider)
    name = row.name if row is not None else provider
    if name not in names:
        near = nearest(provider, names)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(names))}"
        raise click.UsageError(f"no configured provider is called {provider}; {hint}")
    return name


def caller_named(config: Config, caller: str | None) -> Caller:
    """The caller of that name, `default` without one. Raises UsageError."""
    if caller is None:
        return config.default_caller
    names = {each.name: each for each in (*config.callers.values(), config.default_caller)}
    if caller not in names:
        raise click.UsageError(f"no caller is called {caller}; there are {', '.join(sorted(names))}")
    return names[caller]
