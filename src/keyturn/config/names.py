"""Which provider a variable means: `GOOGLE`, `GEMINI` and `GOOGLE_AI_STUDIO` are one."""

from __future__ import annotations

from difflib import get_close_matches

from keyturn.providers import CATALOG

NEAR = 0.75
"""How alike two spellings must be: GORQ is near GROQ, MYSERVER is near nothing."""


class Names:
    """Every spelling of every provider, in capitals as variables write them. The demo cannot be configured."""

    def __init__(self) -> None:
        self._spellings: dict[str, str] = {}
        for provider in CATALOG.values():
            if not provider.local_app:
                for spelling in (*provider.variables, provider.name, *provider.aliases):
                    self._spellings.setdefault(_capitals(spelling), provider.name)

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


def _capitals(name: str) -> str:
    return name.upper().replace("-", "_")
