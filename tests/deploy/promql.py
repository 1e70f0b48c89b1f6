"""A small part of PromQL: enough to read every expression of deploy/, to say what it names, and to work it out.

Vectors match by their whole label sets. `rate` and `increase` are the difference between two scrapes, without the
extrapolation of a real server.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![a-z])|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|"""
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<range>\[\s*(?:\d+[smhd]|\$__rate_interval)\s*\])|"""
    r"""(?P<mark>=~|!~|!=|==|>=|<=|[-+*/%(){},<>=]))"""
)
AGGREGATIONS: Mapping[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min, "count": len}
FUNCTIONS = {"rate", "increase", "histogram_quantile", "clamp_min"}
COMPARISONS = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
LEVELS = (("or",), ("and", "unless"), tuple(COMPARISONS), ("+", "-"), ("*", "/"))
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]


class Selector(NamedTuple):
    """`name{label="value"}[range]`; *range* is empty for an instant."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    range: str


class Aggregation(NamedTuple):
    kind: str
    by: tuple[str, ...]
    of: Any


class Function(NamedTuple):
    name: str
    arguments: tuple[Any, ...]


class Binary(NamedTuple):
    mark: str
    left: Any
    right: Any


class Scrape:
    """One page of `/metrics`, with the labels that a server adds."""

    def __init__(self, page: str, job: str = "keyturn", instance: str = "a:8000") -> None:
        own = {("job", job), ("instance", instance)}
        self.samples: dict[str, Vector] = {}
        for family in text_string_to_metric_families(page):
            for row in family.samples:
                self.samples.setdefault(row.name, {})[frozenset({*row.labels.items(), *own})] = row.value


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise ValueError(f"no PromQL at {text[at:][:30]!r}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._at = 0

    def whole(self) -> Any:
        found = self._binary(0)
        if self._at != len(self._tokens):
            raise ValueError(f"something is left over: {self._tokens[self._at :]} of {self._text!r}")
        return found

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str, kind: str = "") -> str:
        if self._at >= len(self._tokens):
            raise ValueError(f"{self._text!r} ends too early")
        group, text = self._tokens[self._at]
        if (wanted and text not in wanted) or (kind and group != kind):
            raise ValueError(f"{text!r} where {wanted or kind} belongs, in {self._text!r}")
        self._at += 1
        return text

    def _binary(self, level: int) -> Any:
        if level == len(LEVELS):
            return self._atom()
        left = self._binary(level + 1)
        while self._peek() in LEVELS[level]:
            left = Binary(self._take(), left, self._binary(level + 1))
        return left

    def _atom(self) -> Any:
        if self._peek() == "(":
            self._take("(")
            found = self._binary(0)
            self._take(")")
            return found
        if self._tokens[self._at : self._at + 1] and self._tokens[self._at][0] == "number":
            return float(self._take())
        name = self._take(kind="name")
        if name in AGGREGATIONS:
            by: tuple[str, ...] = ()
            if self._peek() == "by":
                self._take("by")
                by = tuple(self._listed("(", ")", lambda: self._take(kind="name")))
            self._take("(")
            of = self._binary(0)
            self._take(")")
            return Aggregation(name, by, of)
        if name in FUNCTIONS:
            return Function(name, tuple(self._listed("(", ")", lambda: self._binary(0))))
        if self._peek() == "(":
            raise ValueError(f"{name} is not known")
        matchers = tuple(self._listed("{", "}", self._matcher)) if self._peek() == "{" else ()
        span = self._take().strip("[] ") if self._peek().startswith("[") else ""
        return Selector(name, matchers, span)

    def _matcher(self) -> tuple[str, str, str]:
        return self._take(kind="name"), self._take("=", "!=", "=~", "!~"), self._take(kind="text")[1:-1]

    def _listed(self, first: str, last: str, one: Callable[[], Any]) -> Iterator[Any]:
        self._take(first)
        while self._peek() != last:
            yield one()
            if self._peek() != last:
                self._take(",")
        self._take(last)


def parse(text: str) -> Any:
    """The expression *text*. Raises ValueError for what this cannot read."""
    return _Reader(text).whole()


def selectors(tree: Any, by: tuple[str, ...] = ()) -> Iterator[tuple[Selector, set[str]]]:
    """Every selector of *tree*, with the labels that it and what is made of it name."""
    if isinstance(tree, Selector):
        yield tree, {name for name, _, _ in tree.matchers} | set(by)
    elif isinstance(tree, Aggregation):
        yield from selectors(tree.of, (*by, *tree.by))
    elif isinstance(tree, Function):
        for each in tree.arguments:
            yield from selectors(each, by)
    elif isinstance(tree, Binary):
        for each in (tree.left, tree.right):
            yield from selectors(each, by)


def work_out(tree: Any, first: Scrape, last: Scrape) -> Any:
    """The value of *tree* at *last*; its ranges reach from *first* to there. No rows: it does not hold."""
    match tree:
        case float():
            return tree
        case Selector():
            return _selected(tree, last)
        case Aggregation():
            groups: dict[Labels, list[float]] = {}
            for labels, value in work_out(tree.of, first, last).items():
                groups.setdefault(frozenset(each for each in labels if each[0] in tree.by), []).append(value)
            return {labels: float(AGGREGATIONS[tree.kind](values)) for labels, values in groups.items()}
        case Function("rate" | "increase" as name, (Selector() as selector,)):
            before, now = _selected(selector, first), _selected(selector, last)
            unit = 1.0 if name == "increase" else float(selector.range[:-1]) * UNITS[selector.range[-1]]
            return {labels: (value - before.get(labels, 0.0)) / unit for labels, value in now.items()}
        case Function("clamp_min", (what, least)):
            return {labels: max(value, least) for labels, value in work_out(what, first, last).items()}
        case Function("histogram_quantile", (share, what)):
            return _quantiles(share, work_out(what, first, last))
        case Binary():
            return _combined(tree.mark, work_out(tree.left, first, last), work_out(tree.right, first, last))
    raise ValueError(f"{tree} cannot be worked out")


def _selected(selector: Selector, scrape: Scrape) -> Vector:
    def fits(labels: Labels) -> bool:
        have = dict(labels)
        for name, mark, text in selector.matchers:
            is_it = bool(re.fullmatch(text, have.get(name, ""))) if "~" in mark else have.get(name, "") == text
            if is_it == mark.startswith("!"):
                return False
        return True

    return {labels: value for labels, value in scrape.samples.get(selector.name, {}).items() if fits(labels)}


def _combined(mark: str, left: Any, right: Any) -> Any:
    if mark == "and":
        return {labels: value for labels, value in left.items() if labels in right}
    if mark == "unless":
        return {labels: value for labels, value in left.items() if labels not in right}
    if mark == "or":
        return {**right, **left}
    pairs = (
        {labels: (value, right) for labels, value in left.items()}
        if isinstance(right, float)
        else {labels: (left, value) for labels, value in right.items()}
        if isinstance(left, float)
        else {labels: (value, right[labels]) for labels, value in left.items() if labels in right}
    )
    if mark in COMPARISONS:
        return {labels: one for labels, (one, other) in pairs.items() if COMPARISONS[mark](one, other)}
    counted = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divided}[mark]
    return {labels: counted(one, other) for labels, (one, other) in pairs.items()}


def _divided(one: float, other: float) -> float:
    return one / other if other else math.nan


def _quantiles(share: float, buckets: Vector) -> Vector:
    """The upper bound of the bucket in which the quantile lies."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        have = dict(labels)
        bound = float(have.pop("le"))
        groups.setdefault(frozenset(have.items()), []).append((bound, value))
    found = {}
    for labels, rows in groups.items():
        rows.sort()
        total = rows[-1][1]
        found[labels] = (
            next((bound for bound, value in rows if value >= share * total), math.nan) if total else math.nan
        )
    return found
