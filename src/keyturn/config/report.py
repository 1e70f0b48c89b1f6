"""Collects what is wrong or odd in a configuration, so that all of it is told at once and no secret with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from keyturn.core import Redactor
from keyturn.errors import ConfigError

FILE_AND_LINE = re.compile(r"([^:]+\.(?:yaml|toml))(?::([0-9]+))?: ")
SECRET = re.compile(r"_API_KEY|_(?:BOT|ACCESS|REFRESH)_TOKEN\Z|_WEBHOOK_URL\Z|_CLIENT_SECRET(?:_[0-9]+)?\Z")
"""In the names of variables that hold secrets."""
LONGEST_QUOTE = 60
SHORTEST_PART = 6
"""Characters of a secret that are already too many to show."""


class Value(NamedTuple):
    """The text of one variable and where it was set: `environment` or `.env:3`."""

    text: str
    origin: str


Values = Mapping[str, Value]


class Report:
    """Problems stop the program, notes do not. Both name the variable and its place, and say how to mend it."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._hidden = [
            value.text.strip() for name, value in values.items() if SECRET.search(name.upper()) and value.text.strip()
        ]

    @property
    def values(self) -> Values:
        """All variables, as they were given."""
        return self._values

    def hide(self, secret: str) -> None:
        """Takes note of a secret that no variable holds."""
        self._hidden.append(secret)

    def problem(self, variable: str, text: str) -> None:
        """Something that must be mended before Keyturn can run."""
        self.problems.append(f"{self.place(variable)}: {_printable(text)}")

    def note(self, variable: str, text: str) -> None:
        """Something that the owner should know; a default or nothing was taken instead."""
        self.notes.append(f"{self.place(variable)}: {_printable(text)}")

    def place(self, variable: str) -> str:
        """`GROQ_API_KEY_2 (.env:3)`; just the name when it came from the environment."""
        value = self._values.get(variable)
        return variable if value is None or value.origin == "environment" else f"{variable} ({value.origin})"

    def quote(self, text: str) -> str:
        """*text* for a message, unless it may be a secret in the wrong place."""
        if any(secret in text or (len(text) >= SHORTEST_PART and text in secret) for secret in self._hidden):
            return "its value (not shown, it is also a key)"
        if Redactor().text(text) != text:
            return "its value (not shown, it looks like a key)"
        if len(text) > LONGEST_QUOTE or not text.isprintable():
            return "its value"
        return f"'{text}'"

    def sort(self) -> None:
        """Puts what is said of one file together, by line; what is said of variables stays where it is."""
        files: dict[str, int] = {}
        keys: list[tuple[int, int]] = []
        for problem in self.problems:
            found = FILE_AND_LINE.match(problem)
            file, line = (found[1], int(found[2] or 0)) if found else ("", 0)
            keys.append((files.setdefault(file, len(files)), line))
        order = sorted(range(len(keys)), key=lambda index: keys[index])
        self.problems = [self.problems[index] for index in order]

    def finish(self) -> None:
        """Raises ConfigError when there is any problem; it carries the notes too."""
        if self.problems:
            self.sort()
            error = ConfigError(self.problems)
            for note in dict.fromkeys(self.notes):
                error.add_note(note)
            raise error


def _printable(text: str) -> str:
    """*text* on one line: a name in a file may hold anything."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def notes_of(error: ConfigError) -> tuple[str, ...]:
    """What was odd beside the mistakes that *error* tells of."""
    return tuple(getattr(error, "__notes__", ()))


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = list(names)
    return f"{', '.join(most)} and {last}" if most else last
