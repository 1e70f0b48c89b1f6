"""What a drill makes of what it saw: fine, degraded or surprising, by rules that each have a name and a hint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from keyturn.config import Config, model_variable

from .drill_playing import Played, Route, Seen
from .drill_shapes import Shape

Verdict = Literal["fine", "degraded", "surprising"]
VERDICTS: tuple[Verdict, ...] = ("fine", "degraded", "surprising")
PATIENCE = 600.0
"""Seconds without a byte after which a client usually gives up: what the official SDKs of OpenAI and Anthropic wait."""
SLOW = 10.0
"""Seconds more than when all is well that a client feels."""
WAITED = 0.5
RETURN = 65.0
"""Seconds after the end of an outage by which its provider is to answer again."""

RULES: Mapping[str, tuple[Verdict, str]] = {
    "never-answered": ("surprising", "the route is not answered even when nothing fails"),
    "alone": ("surprising", "an error, though a configured provider that the route never reaches could have answered"),
    "one-key": ("surprising", "an error, because the provider has a single quota group and nobody else is asked"),
    "paid-gate": ("surprising", "an error, because the paid gate leaves nobody else"),
    "never-reached": ("surprising", "an error, though somebody in the route's own plan was well"),
    "cut": ("surprising", "a stream that was cut after output"),
    "too-slow": ("surprising", "longer without a byte than the client's patience"),
    "no-wait-told": ("surprising", "a 429 that does not say when to come back"),
    "wait-untrue": ("surprising", "refused again after the wait that was told"),
    "asked-again": ("surprising", "a key that is of no use was asked more than once"),
    "mistake-changed": ("surprising", "the client's own mistake was sent more than once, or told as something else"),
    "late-return": ("surprising", f"not answered again {RETURN:g} s after the end of an outage"),
    "refused": ("degraded", "an honest error: nobody was left who could have answered"),
    "elsewhere": ("degraded", "answered by another provider"),
    "slow": ("degraded", f"more than {SLOW:g} s slower than when nothing fails"),
    "waited": ("degraded", "waited for a key"),
}
"""Every rule: what it makes of a shape, and what it means."""


class Finding(NamedTuple):
    """One rule that holds for what was seen; *hint*: what to change, empty where nothing can be."""

    rule: str
    verdict: Verdict
    text: str
    hint: str = ""


class Case(NamedTuple):
    """All that the rules look at."""

    config: Config
    route: Route
    shape: Shape
    played: Played
    well: Seen
    """The same call when nothing fails."""
    patience: float

    @property
    def provider(self) -> str:
        return self.route.target[0]

    @property
    def refused(self) -> list[Seen]:
        return [seen for seen in self.played.calls if seen.refused]


def findings(case: Case, accepted: Collection[str] = ()) -> list[Finding]:
    """Every rule that holds, the worst first; one whose name is *accepted* is no more than degraded."""
    found = []
    for rule in _LOOK:
        for name, text, hint in rule(case):
            verdict = RULES[name][0]
            verdict = "degraded" if verdict == "surprising" and name in accepted else verdict
            found.append(Finding(name, verdict, text, hint))
    return sorted(found, key=lambda each: -VERDICTS.index(each.verdict))


def worst(found: Collection[Finding]) -> Verdict:
    """The verdict over all of *found*."""
    return max((each.verdict for each in found), key=VERDICTS.index, default="fine")


Told = tuple[str, str, str]
"""Name of the rule, what was seen, what to change."""


def _well(case: Case) -> Iterator[Told]:
    if case.shape.reach == "nobody" and case.refused:
        seen = case.refused[0]
        hint = f"`keyturn routes explain {case.route.name}` tells who is left out and why"
        if _paid(case) or seen.code == "paid_route":
            yield "paid-gate", f"{seen.status} {seen.code}: {seen.message}", _OPEN_GATE
        else:
            yield "never-answered", f"{seen.status} {seen.code}: {seen.message}", hint


def _mistake(case: Case) -> Iterator[Told]:
    if case.shape.mistake:
        for seen in case.played.calls:
            if len(seen.attempts) != 1 or not 400 <= seen.status < 500:
                yield "mistake-changed", f"{seen.status} {seen.code} after {len(seen.attempts)} attempts", ""
                return


def _errors(case: Case) -> Iterator[Told]:
    """Errors that reached the client: whether anybody could have answered."""
    refused = [seen for seen in case.refused if not case.shape.mistake and case.shape.reach != "nobody"]
    if not refused:
        return
    route, provider, total = case.route, case.provider, len(case.played.calls)
    worst_seen = refused[0]
    saw = f"{len(refused)} of {total} calls got {worst_seen.status} {worst_seen.code}"
    left = [each for each in route.providers if each != provider]
    if case.shape.reach == "everybody":
        yield "refused", saw, ""
    elif left or (case.shape.reach == "key" and route.groups.get(provider, 0) > 1):
        late = any(seen.code == "deadline" for seen in refused)
        hint = _sooner(case) if late else f"`keyturn routes explain {route.name}` tells in which order they are asked"
        yield "never-reached", f"{saw}, though {_well_ones(case, left)} was well", hint
    elif _paid(case):
        yield "paid-gate", f"{saw}; {_paid(case)[0]}", _OPEN_GATE
    elif case.shape.reach == "key" or (case.shape.allows is not None and route.groups.get(provider, 0) == 1):
        yield "one-key", f"{saw}: {provider} has one key, or keys of one quota group", _more_keys(case)
    elif route.others and route.kind != "model":
        yield "alone", f"{saw}, though {_named(route.others)} could answer", _another(case)
    elif route.others:
        hint = f"who asks for {route.name} gets no other provider; ask for a role or an alias that has a second one"
        yield "refused", f"{saw}: {provider} is the only one that the name means", hint
    else:
        hint = "a key of a second provider would answer meanwhile (`keyturn keys add PROVIDER`)"
        yield "refused", f"{saw}: {provider} is the only provider that is configured", hint


def _cuts(case: Case) -> Iterator[Told]:
    if any(seen.cut for seen in case.played.calls):
        yield "cut", "the stream ended in an error event after output", _going_on(case)


def _times(case: Case) -> Iterator[Told]:
    longest = max(case.played.calls, key=lambda seen: seen.silence)
    if longest.silence > case.patience:
        text = f"{longest.silence:.0f} s without a byte; the client gives up after {case.patience:g} s"
        yield "too-slow", text, _sooner(case)
    elif longest.silence > case.well.seconds + SLOW and longest.whole:
        yield "slow", f"{longest.silence:.0f} s without a byte", _sooner(case)
    waited = max(seen.waited for seen in case.played.calls)
    if waited > WAITED:
        yield "waited", f"up to {waited:.0f} s for a key", ""


def _elsewhere(case: Case) -> Iterator[Told]:
    others = {seen.provider for seen in case.played.calls if seen.whole and seen.provider != case.well.provider}
    if others:
        yield "elsewhere", f"answered by {_named(sorted(others))}", ""


def _waits(case: Case) -> Iterator[Told]:
    for seen in case.refused:
        if seen.status == 429 and seen.retry_after is None:
            yield "no-wait-told", f"429 {seen.code} without Retry-After", ""
            break
    again, shape = case.played.again, case.shape
    limited = shape.ends < float("inf") and case.refused and case.refused[-1].status == 429
    if limited and again is not None and again.refused:
        yield (
            "wait-untrue",
            f"{again.status} {again.code} after the {case.refused[-1].retry_after:g} s that were told",
            "",
        )


def _again(case: Case) -> Iterator[Told]:
    if case.shape.dead:
        asked = [row for seen in case.played.calls for row in seen.attempts]
        first = case.well.attempts[0][1] if case.well.attempts else ""
        times = sum(1 for _, key, _, _ in asked if key == first)
        if times > 1:
            yield "asked-again", f"{first} was asked {times} times", ""


def _return(case: Case) -> Iterator[Told]:
    last = case.played.calls[-1]
    if case.shape.calls > 3 and last.at > case.shape.ends + RETURN and last.refused:
        yield "late-return", f"{last.status} {last.code} {last.at - case.shape.ends:.0f} s after its end", ""


_LOOK: tuple[Callable[[Case], Iterator[Told]], ...] = (
    _well, _mistake, _errors, _cuts, _times, _elsewhere, _waits, _again, _return,
)  # fmt: skip
_OPEN_GATE = "USE_PAID_MODELS=true opens the gate; or give the route one that is not marked paid (config/models.yaml)"


def _paid(case: Case) -> list[str]:
    """Who is left out of the route by what it costs."""
    return [said for said in case.route.refusals if "USE_PAID_MODELS" in said or "ALLOWED_MODEL_TIERS" in said]


def _well_ones(case: Case, left: list[str]) -> str:
    return _named(left) if left else f"another key of {case.provider}"


def _going_on(case: Case) -> str:
    """What would have a text go on elsewhere, if anything does."""
    name, stream = case.route.name, case.config.stream
    asked, elsewhere = (
        any(fnmatchcase(name, pattern) for pattern in patterns)
        for patterns in (stream.goes_on, stream.goes_on_elsewhere)
    )
    if not case.route.able:
        return (
            f"no model behind {name} can be told to go on with a text that has begun (docs/streams.md lists who can); "
            "where your clients cope with a cut: --accept cut"
        )
    wanted = [] if asked else [f'continue = ["{name}"]']
    if case.route.able == "elsewhere" and not elsewhere:
        wanted.append(f'continue_elsewhere = ["{name}"]')
    return f"`[stream] {'` and `'.join(wanted)}` in settings.toml has somebody else go on" if wanted else ""


def _named(names: Collection[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _sooner(case: Case) -> str:
    """Which setting gives up sooner on who does not answer."""
    if "at_chunk" in case.shape.fault:
        return "a smaller TIMEOUT_SILENCE gives up sooner on streams that say nothing any more"
    name = "TIMEOUT_FIRST_TOKEN" if case.played.mode == "stream" else "TIMEOUT_NO_CONTENT"
    return f"TIMEOUT_ADAPTIVE=true gives up on who takes much longer than usual, a smaller {name} on everybody"


def _more_keys(case: Case) -> str:
    row = case.config.providers[case.provider]
    variable = f"{row.variables[0]}_API_KEY_2" if row.variables else "a second key"
    second = f"; or give the route a second provider: {_named(case.route.others)}" if case.route.others else ""
    return f"add {variable} of another account or project (a second key of the same one shares its limits){second}"


def _another(case: Case) -> str:
    """How the route gets somebody else to ask."""
    route = case.route
    if route.kind == "role":
        return f"roles.yaml, {route.name}: add one of them to `providers`, or one of its models to `model_chain`"
    if route.kind == "alias":
        return f"models.yaml, alias {route.name}: add a model of theirs to the chain"
    if route.kind == "default":
        variables = [model_variable(case.config.providers[each], "chat") for each in route.others]
        return f"set {' or '.join(variables)} to a model of theirs, and they are asked too"
    return f"models.yaml: give one of them a route with the id {route.name} too; or have clients ask for a role"
