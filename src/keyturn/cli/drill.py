"""`keyturn drill`: what failures would do to the clients of this configuration, rehearsed in this process."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from keyturn.errors import ModelNotFound

from .entry import Failure
from .output import json_option, print_json, print_table, say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.simulation import Drilled, Finding, Played, Seen, Shape, Tried

COLOURS = {"fine": "green", "degraded": "yellow", "surprising": "red", "skipped": None}
MOST_RESTS, MOST_SHOWN = 3, 5


@click.command()
@click.option(
    "--route", "routes", multiple=True, help="Drill this name; may be given again. Without it: all there are."
)
@click.option("--shape", "shapes", multiple=True, help="Play this shape of failure only; may be given again.")
@click.option("--caller", help="Ask as this caller of callers.yaml.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1.0),
    default=600.0,
    show_default=True,
    help="Seconds without a byte that your clients stand.",
)
@click.option("--accept", "accepted", multiple=True, help="A rule that does not surprise you; may be given again.")
@click.option("--list", "listed", is_flag=True, help="List the shapes and the rules, and play nothing.")
@place_options
@json_option
def command(
    routes: tuple[str, ...],
    shapes: tuple[str, ...],
    caller: str | None,
    patience: float,
    accepted: tuple[str, ...],
    listed: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Play every shape of failure against this configuration, on simulated providers: nothing is sent anywhere.

    For each route and shape: what the client would see, what happened behind, and a verdict. Exits with 1 when one of
    them would surprise the clients.
    """
    from keyturn.simulation import RULES, SHAPES

    chosen = [_named("shape", name, SHAPES) for name in shapes] or list(SHAPES.values())
    for name in accepted:
        _named("rule", name, RULES)
    if listed:
        _list(as_json)
        return
    config = read_config(Place(**place))
    if config.demo:
        say("No key is configured: the demo pool is drilled. `keyturn init` or `keyturn keys add` sets up a real one.")
    try:
        report = _play(config, routes, chosen, caller, patience, accepted, show=not as_json)
    except ModelNotFound as error:
        raise click.UsageError(error.message) from error
    surprises = sum(tried.verdict == "surprising" for each in report for tried in each.tried)
    if as_json:
        print_json(_json(report, patience, accepted))
    else:
        _sum_up(report)
    if surprises:
        raise Failure(f"{surprises} of them would surprise your clients")


def _play(
    config: Config,
    routes: tuple[str, ...],
    shapes: list[Shape],
    caller: str | None,
    patience: float,
    accepted: tuple[str, ...],
    *,
    show: bool,
) -> list[Drilled]:
    """The drill, whose routes are printed as they end."""
    from keyturn.config import DataFolder
    from keyturn.simulation import drilled, routes_of

    from .named import caller_named

    return drilled(
        config,
        routes or routes_of(config),
        caller_named(config, caller),
        shapes=shapes,
        patience=patience,
        accepted=accepted,
        disabled=DataFolder(config.data).disabled(),
        told=_show if show else lambda _: None,
    )


def _named(what: str, name: str, known: Any) -> Any:
    """The shape or rule of that name. Raises UsageError with the nearest one."""
    from keyturn.providers import nearest

    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
        raise click.UsageError(f"no {what} is called {name}; {hint}")
    return known[name]


def _list(as_json: bool) -> None:
    from keyturn.simulation import RULES, SHAPES

    if as_json:
        shapes = [{"shape": each.name, "title": each.title, "hits": each.reach} for each in SHAPES.values()]
        rules = [{"rule": name, "verdict": verdict, "means": text} for name, (verdict, text) in RULES.items()]
        print_json({"shapes": shapes, "rules": rules})
        return
    print_table(("SHAPE", "HITS", "WHAT GOES WRONG"), [(each.name, each.reach, each.title) for each in SHAPES.values()])
    click.echo()
    print_table(("RULE", "VERDICT", "WHAT IT MEANS"), [(name, *row) for name, row in RULES.items()])


def _show(each: Drilled) -> None:
    """One route: a line per shape, with the reasons of those that are not fine."""
    route = each.route
    behind = ", ".join(f"{name} ({route.groups[name]})" for name in route.providers) or "nobody"
    click.echo(click.style(f"{route.name}", bold=True) + f" ({route.kind}): {behind}")
    for refusal in route.refusals:
        click.echo(f"  left out: {refusal}")
    width = max(len(tried.shape.name) for tried in each.tried)
    hints: set[str] = set()
    for tried in each.tried:
        name = tried.shape.name.ljust(width)
        if tried.skipped:
            click.echo(f"  {'skipped':10}  {name}  {tried.skipped}")
            continue
        colour = COLOURS[tried.verdict]
        click.echo(f"  {click.style(tried.verdict.ljust(10), fg=colour)}  {name}  {tried.shape.title}")
        for line in _lines(tried, hints):
            click.echo(f"  {'':10}  {'':{width}}  {line}")
    click.echo()


def _lines(tried: Tried, hints: set[str]) -> list[str]:
    """What the client saw, what happened behind, and why that is not fine; each of *hints* is given once."""
    played = tried.played[tried.worst]
    lines = [f"client: {_client(tried, played)}", f"behind: {_behind(played)}"]
    told = [each for each in tried.findings[tried.worst] if each.verdict == tried.verdict != "fine"]
    for each in told:
        lines.append(f"{each.rule}: {each.text}")
        if each.hint and each.hint not in hints:
            hints.add(each.hint)
            lines.append(f"  → {each.hint}")
    return lines


def _client(tried: Tried, played: Played) -> str:
    """What one client saw, of several calls how many were answered."""
    calls = played.calls
    worst = next((seen for seen in calls if not seen.whole), max(calls, key=lambda seen: seen.seconds))
    only = f"{played.mode}: " if len(tried.played) > 1 and len({_told(each) for each in tried.played}) > 1 else ""
    count = f"; {sum(seen.whole for seen in calls)} of {len(calls)} calls answered" if len(calls) > 1 else ""
    again = ""
    if played.again is not None:
        again = "; answered after that wait" if played.again.whole else f"; then again {played.again.status}"
    return f"{only}{_seen(worst)}{count}{again}"


def _told(played: Played) -> tuple[tuple[int, str, int], ...]:
    """What has to differ for plain and streamed calls to be told apart."""
    return tuple((seen.status, seen.code, round(seen.seconds / 10)) for seen in played.calls)


def _seen(seen: Seen) -> str:
    took = f"after {seen.seconds:.1f} s"
    if seen.whole:
        return f"200, whole, {took}, from {seen.provider}"
    if seen.cut:
        return f"200, cut off {took}"
    wait = "" if seen.retry_after is None else f", Retry-After {math.ceil(seen.retry_after)} s"
    return f"{seen.status} {seen.code}{wait}, {took}"


def _behind(played: Played) -> str:
    """Attempts and rests."""
    attempts = f"{played.attempts} attempt{'' if played.attempts == 1 else 's'}"
    most = max(played.calls, key=lambda seen: len(seen.attempts))
    if len(most.attempts) > 1:
        attempts += (
            f" ({' → '.join(f'{provider} {meaning}' for provider, _, meaning, _ in most.attempts[:MOST_SHOWN])})"
        )
    rests = [f"{rest.what} rests {_span(rest.seconds)} ({rest.reason})" for rest in played.rests[:MOST_RESTS]]
    more = len(played.rests) - MOST_RESTS
    return "; ".join([attempts, *rests, *([f"{more} more rest"] if more > 0 else []), *played.alarms])


def _span(seconds: float) -> str:
    if seconds == math.inf:
        return "until the configuration changes"
    for length, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _sum_up(report: list[Drilled]) -> None:
    every = [tried for each in report for tried in each.tried]
    counts = Counter("skipped" if tried.skipped else tried.verdict for tried in every)
    said = ", ".join(f"{counts[name]} {name}" for name in COLOURS if counts[name])
    click.echo(f"{len(every)} played on {len(report)} route{'' if len(report) == 1 else 's'}: {said}.")


def _json(report: list[Drilled], patience: float, accepted: tuple[str, ...]) -> dict[str, Any]:
    return {
        "patience_s": patience,
        "accepted": list(accepted),
        "routes": [
            {
                "route": each.route.name,
                "kind": each.route.kind,
                "providers": [
                    {"provider": name, "quota_groups": each.route.groups[name]} for name in each.route.providers
                ],
                "left_out": list(each.route.refusals),
                "shapes": [_json_tried(tried) for tried in each.tried],
            }
            for each in report
        ],
    }


def _json_tried(tried: Tried) -> dict[str, Any]:
    modes = zip(tried.played, tried.findings, strict=True)
    return {
        "shape": tried.shape.name,
        "title": tried.shape.title,
        "verdict": "skipped" if tried.skipped else tried.verdict,
        "skipped": tried.skipped or None,
        "modes": [_json_played(played, found) for played, found in modes],
    }


def _json_played(played: Played, found: tuple[Finding, ...]) -> dict[str, Any]:
    return {
        "mode": played.mode,
        "calls": [_json_seen(seen) for seen in played.calls],
        "after_the_wait": None if played.again is None else _json_seen(played.again),
        "attempts": played.attempts,
        "rests": [
            {
                "what": rest.what,
                "reason": rest.reason,
                "seconds": None if rest.seconds == math.inf else round(rest.seconds, 1),
            }
            for rest in played.rests
        ],
        "alarms": list(played.alarms),
        "findings": [each._asdict() for each in found],
    }


def _json_seen(seen: Seen) -> dict[str, Any]:
    end = "whole" if seen.whole else "cut" if seen.cut else "refused"
    return {
        "at_s": round(seen.at, 1),
        "status": seen.status,
        "code": seen.code or None,
        "end": end,
        "retry_after_s": seen.retry_after,
        "seconds": round(seen.seconds, 2),
        "longest_silence_s": round(seen.silence, 2),
        "waited_s": round(seen.waited, 2),
        "provider": seen.provider or None,
        "attempts": [
            {"provider": provider, "key": key, "meaning": meaning, "status": status}
            for provider, key, meaning, status in seen.attempts
        ],
    }
