"""`keyturn simulate`: a day of traffic in a minute, by the code that serves, beside what is usual elsewhere."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyturn.errors import ConfigError

from .entry import INTERRUPTED, Failure, Invalid
from .output import json_option, print_json, say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Credential, Deployment, Limit
    from keyturn.simulation import Comparison, Figures, Scenario, Tally

MOST_PAGES, PAGE = 50, 1000
HEAD = (
    "STRATEGY",
    "SERVED",
    "REFUSED",
    "OF BOUND",
    "P50",
    "P99",
    "429s/1,000",
    "ATTEMPTS",
    "COST $",
    "CACHED",
    "FAIR",
    "KEPT",
)

LEGEND = """\
OF BOUND: of the most that anybody could have served. P50, P99: waits until a provider took the call. 429s: refusals
by providers per 1,000 calls served. ATTEMPTS: per call served. FAIR: Jain's index among callers. KEPT: of the refused
calls that came back when `Retry-After` had told them to, the share that a provider then let in.\
"""


@click.command()
@click.argument("file", required=False)
@click.option("--strategy", "strategies", multiple=True, help="Simulate this one only; may be given again.")
@click.option("--seed", type=int, help="Draw other calls and mishaps than the file's seed does.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the comparison into this file, FILE.svg. Only SVG is written: every browser shows and converts it.",
)
@click.option("--from-ledger", is_flag=True, help="Print a scenario made from this gateway's own ledger.")
@click.option("--since", help="24h, 7d, 2026-11-01: of --from-ledger, from when on. Else the last 24 hours.")
@click.option(
    "--calls",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of --from-ledger: write the calls themselves into this file, to be replayed as they came.",
)
@click.option("--list", "listed", is_flag=True, help="List the examples that can be named as FILE.")
@place_options
@json_option
def command(
    file: str | None,
    strategies: tuple[str, ...],
    seed: int | None,
    plot: Path | None,
    from_ledger: bool,
    since: str | None,
    calls: Path | None,
    listed: bool,
    as_json: bool,
    **place: Any,
) -> None:
    """Simulate the scenario in FILE: the real gateway on a virtual clock, against keys with true limits.

    Compares it with what is usual elsewhere and with the most that anybody could have served. Nothing is sent anywhere.
    FILE is YAML, or the name of an example; without it, they are listed. Ctrl-C prints what was simulated so far.
    """
    _check(file, plot, from_ledger, listed, since, calls)
    if from_ledger:
        click.echo(_drafted(read_config(Place(**place)), since, calls), nl=False)
    elif file is None:
        _list()
    else:
        _simulate(file, strategies, seed, plot, as_json)


def _check(
    file: str | None, plot: Path | None, from_ledger: bool, listed: bool, since: str | None, calls: Path | None
) -> None:
    if sum((file is not None, from_ledger, listed)) > 1:
        raise click.UsageError("give a FILE, or --from-ledger, or --list")
    if (since is not None or calls is not None) and not from_ledger:
        raise click.UsageError("--since and --calls belong to --from-ledger")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise click.UsageError(f"--plot: {plot.name} does not end with .svg; only SVG is written")


def _list() -> None:
    from keyturn.simulation import EXAMPLES, read_scenario

    for name in EXAMPLES:
        click.echo(f"{name:20}  {read_scenario(name, Path.cwd())[0].title}")


def _simulate(file: str, strategies: tuple[str, ...], seed: int | None, plot: Path | None, as_json: bool) -> None:
    watch = _Watch()
    with watch:  # from the start: what is to be loaded takes a moment
        comparison = _compared(file, strategies, seed, watch)
    if comparison is None:
        say("Ended early: nothing was simulated yet.")
        raise SystemExit(INTERRUPTED)
    for note in comparison.notes:
        say(note)
    if as_json:
        print_json(comparison.told())
    else:
        _print(comparison)
    if plot is not None:
        plot.write_text(_drawn(comparison), "utf-8")
    if watch.asked:
        say("Ended early: the last row is what had been simulated by then, beside no bound.")
        raise SystemExit(INTERRUPTED)


def _compared(file: str, strategies: tuple[str, ...], seed: int | None, watch: _Watch) -> Comparison | None:
    """None: ended before anything was simulated."""
    from keyturn.simulation import compare, read_scenario

    try:
        scenario, folder = read_scenario(file, Path.cwd())
    except ConfigError as error:
        raise Invalid("\n  ".join(["The scenario cannot be used:", *error.problems])) from error
    changed: dict[str, object] = {} if seed is None else {"seed": seed}
    if strategies:
        changed["strategies"] = tuple(_strategy(name) for name in strategies)
    scenario = scenario.model_copy(update=changed)
    try:
        return compare(scenario, folder, watch.heard)
    except KeyboardInterrupt:
        return None


def _strategy(name: str) -> str:
    from keyturn.providers import nearest
    from keyturn.simulation import STRATEGIES

    spelled = name.lower().replace("-", "_")
    if spelled not in STRATEGIES:
        near = nearest(spelled, STRATEGIES)
        meant = f"did you mean {near}?" if near else f"there are {', '.join(STRATEGIES)}"
        raise click.UsageError(f"--strategy: {name!r} is none; {meant}")
    return spelled


class _Watch:
    """Shows how far it is, on a terminal, and ends the run when somebody presses Ctrl-C: at its next step, in order."""

    def __init__(self) -> None:
        self.asked = False
        self._shown = ""
        self._before: Any = None
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> _Watch:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        self._show("")

    def heard(self, tally: Tally, part: float) -> None:
        """A run is this far. Raises KeyboardInterrupt when it is to end."""
        self._show(f"{tally.strategy.replace('_', ' ')}: {part:.0%}, {tally.served:,} served")
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one ends it at once

    def _show(self, text: str) -> None:
        if self._terminal and text != self._shown:
            click.echo(f"\r{text.ljust(len(self._shown))}\r", nl=False, err=True)
            self._shown = text


def _print(comparison: Comparison) -> None:
    from .tables import print_figures

    scenario = comparison.scenario
    click.echo(_subtitle(comparison))
    print_figures(HEAD, [_cells(row) for row in comparison.rows], 1)
    click.echo(LEGEND)
    click.echo(_waited(scenario))
    if any(row.invalid for row in comparison.rows):
        dead = ", ".join(f"{row.strategy.replace('_', ' ')} {row.invalid:,}" for row in comparison.rows)
        click.echo(f"Requests with dead keys: {dead}.")
    if scenario.strategies != tuple(row.strategy for row in comparison.rows):
        left = [name for name in scenario.strategies if name not in {row.strategy for row in comparison.rows}]
        click.echo(f"Not simulated: {', '.join(left)}.")


def _subtitle(comparison: Comparison) -> str:
    scenario, most = comparison.scenario, comparison.bound
    hours = scenario.duration / 3600
    length = f"{hours:g} h" if hours >= 1 else f"{scenario.duration / 60:g} min"
    return (
        f"{scenario.title or 'A scenario'}: {length}, {comparison.keys:,} keys, {most.asked:,} calls, of which anybody "
        f"could serve {most.served:,.0f} at most."
    )


def _waited(scenario: Scenario) -> str:
    """How long callers wait, and why SERVED alone says too little."""
    patience = scenario.calls.patience
    waits = ", ".join(f"{part:.0%} of them {time}" if len(patience) > 1 else time for time, part in patience.items())
    return (
        f"Callers wait for an answer at most {waits}. Who serves more may still be worse: 429s get keys and accounts\n"
        "blocked, and a low FAIR says that loud callers took the place of others."
    )


def _cells(row: Figures) -> tuple[str, ...]:
    ended = "" if row.complete else f" (to {row.until / 3600:.1f} h)"
    return (
        row.strategy.replace("_", " ") + ended,
        f"{row.served:,}",
        f"{row.refused:,}",
        "-" if row.of_bound is None else f"{row.of_bound:.1%}",
        f"{row.wait_p50:.1f} s",
        f"{row.wait_p99:.1f} s",
        f"{row.limited_per_1000:,.2f}",
        f"{row.attempts_per_served:.3f}",
        f"{row.cost:,.2f}",
        f"{row.cached:.0%}",
        f"{row.fairness:.3f}",
        "-" if row.kept is None else f"{row.kept:.0%}",
    )


def _drawn(comparison: Comparison) -> str:
    from keyturn.simulation import plot

    return plot(comparison.scenario.title or "Simulation", _subtitle(comparison), comparison.rows)


def _drafted(config: Config, since: str | None, calls: Path | None) -> str:
    from keyturn.simulation import drafted, lines, recorded

    from .periods import period
    from .recorded import now

    start, end = period(since, None, False, now(), "24h")
    found = recorded(_rows(config, start, end))
    if not any(call.model for call in found):
        raise Failure("the ledger has no answered call of that time; say an earlier one with --since, such as 30d")
    if calls is not None:
        calls.write_text(lines(found), "utf-8")
        say(f"{len(found):,} calls are in {calls}; the scenario must lie beside it.")
    return drafted(found, config, _limits_of(config), calls.name if calls is not None else "")


def _rows(config: Config, start: int, end: int) -> list[dict[str, Any]]:
    """The calls of that time, the latest when there are very many."""
    from keyturn.stores import UsageQuery

    from .recorded import ask_usage

    found: dict[str, dict[str, Any]] = {}
    for _ in range(MOST_PAGES):
        rows = ask_usage(config, UsageQuery("call", start, end, PAGE))
        fresh = [row for row in rows if row["name"] not in found and row.get("at")]
        found |= {row["name"]: row for row in fresh}
        if len(rows) < PAGE or not fresh:
            return list(found.values())
        end = min(_milliseconds(row["at"]) for row in fresh) + 1
    say(f"There are more calls: this is made from the latest {len(found):,}.")
    return list(found.values())


def _milliseconds(at: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() * 1000)


def _limits_of(config: Config) -> Callable[[Deployment, Credential], list[Limit]]:
    """The limits that hold for a credential, as this configuration and what a gateway left behind know them."""
    from .pool import open_pool
    from .stopped import left_behind

    left = left_behind(config)
    gateway = open_pool(config) if left is None else left[0]

    def limits(deployment: Deployment, credential: Credential) -> list[Limit]:
        for entry in gateway.pools.of(deployment).entries:
            if entry.candidate.credential.fingerprint == credential.fingerprint:
                return [limit for scope in entry.limit_scopes for limit in gateway.live.limits(scope)]
        return []

    return limits
