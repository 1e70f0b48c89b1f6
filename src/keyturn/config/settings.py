"""Reads settings by name or by provider: switches, numbers, lists; a mistake in one goes into the report."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TypeVar

from keyturn.providers import nearest

from .names import Names
from .report import Report, Values, listed

YES = frozenset({"true", "1", "yes", "on"})
NO = frozenset({"false", "0", "no", "off"})
T = TypeVar("T")


class Settings:
    """The variables of one load, read by name. Blank counts as unset. *origins* collects where each one came from."""

    def __init__(self, values: Values, names: Names, report: Report) -> None:
        self.values = values
        self.names = names
        self.report = report
        self.origins: dict[str, str] = {}

    def text(self, name: str) -> str | None:
        """The stripped text of a variable, None when it is unset or blank."""
        if not self.is_set(name):
            return None
        value = self.values[name]
        self.origins[name] = value.origin
        return value.text.strip()

    def is_set(self, name: str) -> bool:
        """Whether a variable holds more than blanks. Asking does not count as using it."""
        return name in self.values and bool(self.values[name].text.strip())

    def switch(self, name: str) -> bool | None:
        """True or false; anything else is a problem, for a guess could spend money or open a door."""
        text = self.text(name)
        if text is None or text.lower() in YES:
            return None if text is None else True
        if text.lower() not in NO:
            self.report.problem(name, f"{self.report.quote(text)} is neither true nor false")
        return False

    def seconds(self, name: str, default: T) -> float | T:
        """A positive number of seconds; anything else is noted and *default* taken."""
        text = self.text(name)
        if text is None:
            return default
        number = as_number(text)
        if number is None or number <= 0:
            kept = (
                "no such bound"
                if default is None
                else f"the default, {default:g} s,"
                if isinstance(default, float)
                else ""
            )
            self.report.note(name, f"{self.report.quote(text)} is not a positive number of seconds; {kept} holds")
            return default
        return number

    def words(self, name: str) -> tuple[str, ...]:
        """The entries of a list separated by commas."""
        return tuple(word for word in (part.strip() for part in (self.text(name) or "").split(",")) if word)

    def per_provider(self, *, before: str = "", after: str = "", but: tuple[str, ...] = ()) -> dict[str, str]:
        """The set variables of one family: provider → variable. A provider may be written by any of its names.

        What begins as one of *but* is of another family. Two that disagree are a problem. A family with a *before* is
        ours, so an unknown provider in it is noted.
        """
        found: dict[str, str] = {}
        for variable in sorted(self.values):
            spelling = variable.removeprefix(before).removesuffix(after)
            if variable != before + spelling + after or not self.is_set(variable) or variable.startswith(but):
                continue
            provider = self.names.find(spelling)
            if provider is None:
                if before:
                    self.report.note(variable, self.names.unknown(spelling, before, after))
            elif self.text(variable) != self.text(found.get(provider, variable)):
                self.report.problem(variable, f"says something else than {found[provider]}; keep one of them")
            else:
                found.setdefault(provider, variable)
        return found


def as_number(text: str) -> float | None:
    """A finite decimal number, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def as_integer(text: str) -> int | None:
    """A whole number of at most 15 digits, sign allowed, else None."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


def choose(report: Report, text: str, valid: Collection[str]) -> str:
    """What to say of a word that is none of *valid*: with the nearest one, else all."""
    near = nearest(text.lower(), valid)
    return f"{report.quote(text)} is not one of {listed(valid)}" + (f" (did you mean {near}?)" if near else "")
