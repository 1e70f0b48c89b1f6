"""Gives the credentials of a pool their tokens, and keeps them when the configuration changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from keyturn.core import Clock, Credential, Secret, Transport

from .kept import TokenFolder
from .source import Means, Tokens


class Refresher:
    """One for each pool. *folder*: where refresh tokens that change are kept."""

    def __init__(
        self,
        clock: Clock,
        transport: Transport,
        folder: Path,
        hide: Callable[[Secret], None],
        forget: Callable[[Secret], None],
        tell: Callable[[str], None],
    ) -> None:
        self._means = Means(clock, transport, TokenFolder(folder), hide, forget, tell)
        self._sources: dict[str, Tokens] = {}
        self._left: list[Tokens] = []

    def furnished(
        self, credentials: Mapping[str, tuple[Credential, ...]]
    ) -> tuple[dict[str, tuple[Credential, ...]], list[Credential]]:
        """*credentials* with the source of each account's tokens, and those of whose accounts something changed.

        What is the same as before keeps its token; the sources of accounts that are gone renew no more.
        """
        before, self._sources = self._sources, {}
        changed: list[Credential] = []
        found = {
            name: tuple(each if each.account is None else self._with_source(each, before, changed) for each in group)
            for name, group in credentials.items()
        }
        for source in before.values():
            if source not in self._sources.values():
                source.retire()
                self._left.append(source)
        return found, changed

    def _with_source(self, credential: Credential, before: dict[str, Tokens], changed: list[Credential]) -> Credential:
        assert credential.account is not None
        name = f"{credential.provider}-{credential.fingerprint}"
        source = before.get(name)
        if source is not None and source.account != credential.account:
            changed.append(credential)
            source = None
        source = source or Tokens(name, credential.shown, credential.account, self._means)
        self._sources[name] = source
        return replace(credential, tokens=source)

    async def close(self) -> None:
        """Renew no more."""
        sources = (*self._sources.values(), *self._left)
        for source in sources:
            source.retire()
        await asyncio.gather(*(source.close() for source in sources))
