"""What each provider asks for its models: list prices by day, from prices.json, read at the first look."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files

import msgspec

from keyturn.core import ZERO, Price

from .registry import known

_PER_TOKEN = 1_000.0
"""Dollars per million tokens -> nano-dollars per token."""
_PER_REQUEST = 1_000_000.0
"""Dollars per thousand requests -> nano-dollars per request."""

_DATED = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2})$")
_VARIANT = re.compile(r":(nitro|floor|exacto|online|thinking)$")
"""Ends of OpenRouter ids that choose among the sellers of one model, or how it works, at its list price."""


_Rule = str | tuple[str, ...]
"""`=` equals, `^` begins, `$` ends, `~` contains, `/` regular expression; several fit when all of them do."""


class _Longer(msgspec.Struct):
    above: int
    input: float
    output: float = 0.0
    cached: float | None = None


class _Row(msgspec.Struct):
    """*match*: rules for further names, one of which must fit."""

    id: str
    input: float
    output: float
    cached: float | None = None
    request: float = 0.0
    match: tuple[_Rule, ...] = ()
    longer: tuple[_Longer, ...] = ()


class _File(msgspec.Struct):
    dated: str
    models: dict[str, list[_Row]]
    borrows: dict[str, list[str]]


def price_of(provider: str, model: str) -> Price | None:
    """The list price of *model*, None when it is not known; a price that is not known is never zero.

    Of *provider* any name or alias. *model* is the provider's own id; dated and suffixed ids find their model. Prices
    by the hour are taken at their dearest, and writing a prompt cache counts as plain input.
    """
    row = known(provider)
    return None if row is None else _find(row.name, model.strip().lower().removeprefix("models/"))


def prices_dated() -> str:
    """As of which day the prices are, `2026-11-28`."""
    return _file().dated


@lru_cache(maxsize=4096)
def _find(provider: str, model: str) -> Price | None:
    names = [model, _DATED.sub("", model)]
    if provider == "openrouter":
        if model.endswith(":free") or model == "openrouter/free":
            return ZERO
        names.append(_VARIANT.sub("", model))
    for seller in (provider, *_file().borrows.get(provider, ())):
        exact, rules = _tables(seller)
        for name in dict.fromkeys(names):
            found = exact.get(name) or next((price for rule, price in rules if _fits(rule, name)), None)
            if found is not None:
                return found
    return None


@cache
def _file() -> _File:
    return msgspec.json.decode(files(__package__).joinpath("prices.json").read_bytes(), type=_File)


@cache
def _tables(provider: str) -> tuple[dict[str, Price], list[tuple[_Rule, Price]]]:
    """A provider's prices by exact name, and its rules for all other names."""
    exact: dict[str, Price] = {}
    rules: list[tuple[_Rule, Price]] = []
    for row in _file().models.get(provider, ()):
        price = _price(row)
        exact[row.id.lower()] = price
        for rule in row.match:
            if isinstance(rule, str) and rule.startswith("="):
                exact.setdefault(rule[1:], price)
            else:
                rules.append((rule, price))
    return exact, rules


def _price(row: _Row) -> Price:
    request = row.request * _PER_REQUEST
    longer = tuple((step.above, _at(step, request)) for step in row.longer)
    return _at(row, request)._replace(longer=longer)


def _at(row: _Row | _Longer, request: float) -> Price:
    cached = None if row.cached is None else _nano(row.cached)
    return Price(_nano(row.input), _nano(row.output), cached, request)


def _nano(dollars: float) -> float:
    """Rounded, so that 0.1 dollars are 100 nano-dollars and not a little more."""
    return round(dollars * _PER_TOKEN, 6)


def _fits(rule: _Rule, name: str) -> bool:
    if isinstance(rule, tuple):
        return all(_fits(each, name) for each in rule)
    sign, text = rule[0], rule[1:]
    match sign:
        case "^":
            return name.startswith(text)
        case "$":
            return name.endswith(text)
        case "~":
            return text in name
        case "/":
            return re.search(text, name) is not None
    return name == text
