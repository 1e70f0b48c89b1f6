"""The drill: the user's own configuration against every shape of failure, and a verdict on each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from keyturn.config import Config, default_models
from keyturn.core import AUTO, Caller

from .drill_playing import Drill, Played, Route
from .drill_shapes import SHAPES, Shape
from .drill_verdicts import PATIENCE, Case, Finding, Verdict, findings, worst


@dataclass(frozen=True, slots=True)
class Tried:
    """One shape on one route. *played*: plain, streamed, or both; none when it was *skipped* for a reason."""

    shape: Shape
    played: tuple[Played, ...]
    findings: tuple[tuple[Finding, ...], ...]
    """Of each of *played*."""
    skipped: str = ""

    @property
    def verdict(self) -> Verdict:
        return worst([each for found in self.findings for each in found])

    @property
    def worst(self) -> int:
        """The place of the mode that came off worst."""
        order = [worst(found) for found in self.findings]
        return order.index(self.verdict)


@dataclass(frozen=True, slots=True)
class Drilled:
    """All shapes on one route."""

    route: Route
    tried: tuple[Tried, ...]


def routes_of(config: Config) -> tuple[str, ...]:
    """What is drilled when nobody says what: roles and aliases, route ids, `auto`; where there are none of these,
    the usual model of each provider; without any key the demo."""
    if config.demo:
        return ("demo/echo",)
    named = [*config.names, *(name for name in config.routes if name not in config.names)]
    if default_models(config).get("chat") and AUTO not in named:
        named.append(AUTO)
    if not named:
        named = [f"{name}/{model}" for name, models in _models(config) for model in models[:1]]
    return tuple(named)


def _models(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in config.by_tier():
        row = config.providers[name]
        chosen = config.chat_models.get(name) or row.chat_model
        models = ((chosen,) if chosen else ()) + tuple(config.static_models.get(name, ())) + row.models
        yield name, models or ("simulated",)


def drilled(
    config: Config,
    routes: Sequence[str],
    caller: Caller,
    *,
    shapes: Sequence[Shape] = tuple(SHAPES.values()),
    patience: float = PATIENCE,
    accepted: Collection[str] = (),
    disabled: Collection[str] = (),
    told: Callable[[Drilled], object] = lambda _: None,
) -> list[Drilled]:
    """Play *shapes* on *routes* as *caller* would ask for them; *told* hears of each route when it is over.

    Where not even three calls in a row are allowed, each shape is one call.

    *patience*: seconds without a byte that a client stands. *accepted*: rules that surprise nobody. In virtual time, so
    not from a running loop; nothing is sent anywhere and no real key is in it. Raises ModelNotFound, before anything is
    played, when one of *routes* is the name of nothing.
    """
    drill = Drill(config, caller, disabled)
    for name in routes:
        drill.known(name)
    report = []
    for name in routes:
        route = drill.route(name)
        tried = tuple(_tried(drill, route, shape, patience, accepted) for shape in shapes)
        report.append(Drilled(route, tried))
        told(report[-1])
    return report


def _tried(drill: Drill, route: Route, shape: Shape, patience: float, accepted: Collection[str]) -> Tried:
    if why := _makes_no_sense(route, shape):
        return Tried(shape, (), (), why)
    if route.narrow:
        shape = replace(shape, calls=1)
    played, found = [], []
    for mode in shape.modes:
        well = drill.well(route.name, mode).calls[0]
        one = drill.play(route.name, shape, mode, route.target)
        played.append(one)
        found.append(tuple(findings(Case(drill.config, route, shape, one, well, patience), accepted)))
    return Tried(shape, tuple(played), tuple(found))


def _makes_no_sense(route: Route, shape: Shape) -> str:
    """Why *shape* cannot happen to who is asked first; empty when it can."""
    provider = route.target[0]
    if shape.reach != "nobody" and not provider:
        return "nobody answers this route"
    if route.tool and not shape.tools:
        return f"{provider} is a command line tool: it has no connection and no stream of its own that could fail so"
    if route.narrow and shape.calls > 3:
        return "its limits do not allow three calls in a row, and this takes more"
    if shape.keyed and not route.keyed and shape.reach != "nobody":
        return f"{provider} is asked without a key"
    return ""
