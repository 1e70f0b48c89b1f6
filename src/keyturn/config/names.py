"""Which provider a variable means: `GOOGLE`, `GEMINI` and `GOOGLE_AI_STUDIO` are one."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache

from keyturn.providers import CATALOG

NEAR = 0.75
"""How alike two spellings must be: GORQ is near GROQ, MYSERVER is near nothing."""


class Names:
    """Every spelling of every provider, in capitals as variables write them. The demo cannot be configured."""

    def __init__(self) -> None:
        self._spellings = dict(_of_the_catalog())

    def add(self, name: str) -> None:
        """A provider that only this configuration knows."""
        self._spellings[_capitals(name)] = name

    def find(self, spelling: str) -> str | None:
        """The provider's canonical name, None when no provider is written like that."""
        return self._spellings.get(spelling)

    def unknown(self, spelling: str, before: str, after: str) -> str:
        """What to say of a variable that names no provider."""
        said = f"no provider is called {spelling.lower()}, so it has no effect"
        near = self.nearest(spelling)
        return said + (f"; did you mean {before}{near}{after}?" if near else "")

    def nearest(self, spelling: str) -> str | None:
        """The known spelling most like this one."""
        return next(iter(get_close_matches(_capitals(spelling), self._spellings, n=1, cutoff=NEAR)), None)


@cache
def _of_the_catalog() -> Mapping[str, str]:
    spellings: dict[str, str] = {}
    for provider in CATALOG.values():
        if not provider.local_app:
            for spelling in (*provider.variables, provider.name, *provider.aliases):
                spellings.setdefault(_capitals(spelling), provider.name)
    return spellings


def _capitals(name: str) -> str:
    return name.upper().replace("-", "_")
