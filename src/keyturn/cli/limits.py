"""`keyturn limits …`: every limit and who says so; pinning one, and forgetting what was learned."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NoReturn

import click

from keyturn.errors import BadRequest, KeyturnError

from .entry import Failure
from .named import provider_named
from .output import json_option, print_json, print_table
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config, LimitSpec, Pin

    from .live import Gateway

PATIENCE = 3.0
"""Seconds that a list of models may take, of which only a warning is made."""
OWN = ("declared", "default")
"""The sources of what stands in files, from which it is listed."""
NOTHING_KNOWN: dict[str, Any] = {
    "source": "declared",
    "holds": None,
    "keys": [],
    "metric": None,
    "window": None,
    "capacity": None,
    "date": None,
    "until": None,
    "evidence": [],
}


@click.group()
def command() -> None:
    """List limits with who says so, pin one, and forget what was learned.

    How much of each is used, `keyturn keys list` shows.
    """


@command.command("list")
@click.argument("provider", required=False)
@place_options
@json_option
def list_limits(provider: str | None, as_json: bool, **place: Any) -> None:
    """List the limits (of PROVIDER): declared, pinned, reported and learned, with where and when each is from.

    Without a running gateway: as the last one left them.
    """
    config = read_config(Place(**place))
    rows = [*_rows(config), *(_known(row) for row in _found(config) if row["source"] not in OWN)]
    wanted = provider_named(provider, {row["provider"] for row in rows} | set(config.providers))
    rows = [row for row in rows if wanted in (None, row["provider"])]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("PROVIDER", "MODELS", "LIMITS", "SOURCE", "PLAN", "COUNTED PER", "FROM"),
        [
            (
                row["provider"],
                row["models"],
                row["limits"] or "none",
                row["source"] if row["holds"] is not False else f"{row['source']}, not obeyed",
                row["plan"] or "any",
                row["per"],
                row["from"],
            )
            for row in rows
        ],
    )


def _rows(config: Config) -> Iterator[dict[str, Any]]:
    for provider, specs in config.limits.items():
        yield _row(provider, "*", specs, None, "quota group", "LIMITS_" + provider.upper())
    for provider, rules in config.limit_rules.items():
        for rule in rules:
            per = {"quota_group": "quota group", "key": "key", "shared": "all keys together"}[rule.scope]
            together = f", models {rule.quota_group}" if rule.quota_group else ""
            row = _row(provider, rule.pattern, rule.specs, rule.plan, per + together, rule.origin)
            yield row | ({"limits": "not offered"} if rule.unavailable else {})
    if config.default_limits:
        yield _row("*", "*", config.default_limits, "free", "quota group", "default_limits") | {"source": "default"}


def _row(
    provider: str, models: str, specs: tuple[LimitSpec, ...], plan: str | None, per: str, place: str
) -> dict[str, Any]:
    limits = " ".join(f"{spec.metric}/{spec.window}={spec.capacity}" for spec in specs)
    found = {"provider": provider, "models": models, "limits": limits, "plan": plan, "per": per, "from": place}
    return found | NOTHING_KNOWN


def _found(config: Config) -> list[dict[str, Any]]:
    """What a gateway knows, running or not."""
    from keyturn.config import DataFolder

    from .live import find_gateway, running
    from .stopped import ago, left_behind

    left = left_behind(config) if running(config) is None else None
    known = "only what is declared and pinned is known" if left is None else f"this is how it stood {ago(left[1])}"
    gateway = find_gateway(config, known)
    if gateway is not None:
        found: list[dict[str, Any]] = gateway.ask("/admin/limits")
        return found
    if left is None and not DataFolder(config.data).pins():
        return []
    from keyturn.dispatch import limit_rows

    from .pool import open_pool

    return limit_rows(open_pool(config) if left is None else left[0])


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """A row of what a gateway knows, beside those of what is declared."""
    keys = row["keys"]
    per = ", ".join(keys[:2]) + (f" and {len(keys) - 2} more" if len(keys) > 2 else "")
    evidence = f", 429 of {', '.join(row['evidence'])}" if row["evidence"] else ""
    return {
        **row,
        "models": row["model"] or "*",
        "limits": f"{row['metric']}/{row['window']}={row['capacity']}",
        "plan": None,
        "per": per,
        "from": (row["date"] or "") + evidence,
    }


class _Capacity(click.ParamType[int]):
    """A number of at least 1."""

    name = "capacity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            raise click.UsageError(_no_capacity(str(value)), ctx)
        return number


class _Pin(click.Command):
    """Knows `-3` for a number, if a wrong one, and not for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for given in args:
            if given.startswith("-") and given[1:].isdecimal():
                raise click.UsageError(_no_capacity(given), ctx)
        return super().parse_args(ctx, args)


def _no_capacity(given: str) -> str:
    return f"a capacity is a whole number of at least 1, and {given[:80]!r} is none"


@command.command(cls=_Pin)
@click.argument("provider")
@click.argument("model")
@click.argument("limit", metavar="METRIC/WINDOW")
@click.argument("value", type=_Capacity())
@click.option("--key", help="Only for this key, and those that share its quota group.")
@place_options
def pin(provider: str, model: str, limit: str, value: int, key: str | None, **place: Any) -> None:
    """Have a limit be VALUE, whatever anybody else says, until it is cleared.

    MODEL may be a pattern with `*` and `?`. METRIC/WINDOW is for example requests/minute, tokens/day, concurrency, or
    as in limits.yaml: rpm, tpd.
    """
    from keyturn.dispatch import read_pin

    from .live import find_gateway, leave_alone

    config = read_config(Place(**place))
    try:
        made = read_pin(config, provider, model, limit, value, key)
    except BadRequest as error:
        _misused(error)
    leave_alone(config)
    gateway = find_gateway(config, "the next one will obey it")
    asked = {"provider": made.provider, "model": made.model, "limit": limit, "capacity": value, "key": key}
    if gateway is not None:
        gateway.ask("/admin/limits/pin", asked)
    else:
        _pin_for_later(config, asked)
    who = f" with {key}" if key else ""
    click.echo(f"pinned: {made.metric}/{made.window} of {made.provider}/{made.model}{who} = {made.capacity}")
    if above := _above(config, made):
        click.echo(above, err=True)
    if not any(char in made.model for char in "*?[") and (unknown := _unknown(config, made, gateway)):
        click.echo(unknown, err=True)


def _above(config: Config, pin: Pin) -> str:
    """A word about a number of the owner's own files that *pin* is above; empty when it is above none."""
    specs = [(each, f"LIMITS_{pin.provider.upper()}", True) for each in config.limits.get(pin.provider, ())]
    for rule in config.limit_rules.get(pin.provider, ()):
        if fnmatchcase(pin.model.lower(), rule.pattern.lower()):
            specs += [(each, rule.origin, not (pin.key and rule.scope == "shared")) for each in rule.specs]
    stated = [
        (each.capacity, place, replaced)
        for each, place, replaced in specs
        if (each.metric, each.window) == (pin.metric, pin.window) and each.capacity < pin.capacity
    ]
    if not stated:
        return ""
    capacity, place, replaced = min(stated)
    ends = "which it replaces" if replaced else "which holds beside it: that one is for all keys together"
    return f"{pin.capacity} is above your own {capacity} ({place}), {ends}"


def _unknown(config: Config, pin: Pin, gateway: Gateway | None) -> str:
    """A word about a model that nobody offers, as far as is known; empty for one that somebody does."""
    from keyturn.providers import nearest

    from .pool import known_models

    provider, model = pin.provider, pin.model
    names = [each.partition("/")[2] for each in known_models(config) if each.startswith(f"{provider}/")]
    names += [rule.pattern for rule in config.limit_rules.get(provider, ())]
    if model in names:
        return ""
    if gateway is not None:
        try:
            rows = gateway.ask("/admin/models", patience=PATIENCE)
        except KeyturnError:
            rows = []  # the pin holds; only the warning is at stake
        names += [row["id"].partition("/")[2] for row in rows if row["provider"] == provider]
        if model in names:
            return ""
    near = nearest(model, names)
    meant = f"did you mean {near}?" if near else f"`keyturn models {provider}` lists what {provider} offers"
    return f"nobody offers {provider}/{model}, as far as is known here; {meant}"


def _pin_for_later(config: Config, asked: dict[str, Any]) -> None:
    from keyturn.config import DataFolder, with_pin
    from keyturn.dispatch import SystemClock, read_pin

    wall = SystemClock().wall()
    pin = read_pin(config, asked["provider"], asked["model"], asked["limit"], asked["capacity"], asked["key"], wall)
    folder = DataFolder(config.data)
    folder.lock()
    try:
        folder.write_pins(with_pin(folder.pins(), pin))
    finally:
        folder.release()


@command.command()
@click.argument("provider", required=False)
@click.argument("model", required=False)
@click.option("--key", help="Only of this key, and those that share its quota group.")
@click.option("--source", help="Only what is `learned`, `reported` or `pinned`.")
@click.option("--all", "everything", is_flag=True, help="Of all providers.")
@place_options
def clear(
    provider: str | None, model: str | None, key: str | None, source: str | None, everything: bool, **place: Any
) -> None:
    """Forget what was learned, reported and pinned of PROVIDER (and MODEL, which may be a pattern). What is declared
    stays."""
    from keyturn.dispatch import choice_of

    from .live import find_gateway, leave_alone
    from .pool import open_pool

    if provider is None and key is None and not everything:
        raise click.UsageError("of which provider? Name one, or a key with --key, or say --all")
    config = read_config(Place(**place))
    leave_alone(config)
    try:
        choice_of(open_pool(config), None, None, None, source)  # a gateway may know other providers and keys than we
    except BadRequest as error:
        _misused(error)
    gateway = find_gateway(config, "what the last one left is cleared")
    asked = {"provider": provider, "model": model, "key": key, "source": source}
    if gateway is None and config.redis is not None:
        raise Failure("limits that gateways learn together are in Redis: one must run to forget them")
    try:
        cleared = (
            _clear_left(config, asked) if gateway is None else gateway.ask("/admin/limits/clear", asked)["cleared"]
        )
    except BadRequest as error:
        _misused(error)
    for row in map(_known, cleared):
        click.echo(f"cleared: {row['source']} {row['limits']} of {row['provider']}/{row['models']}, {row['per']}")
    if not cleared:
        click.echo("cleared: nothing, nothing of that kind was known")


def _clear_left(config: Config, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Forget it in the data folder. Raises BadRequest, DataFolderInUse and StoreError."""
    from keyturn.config import DataFolder
    from keyturn.dispatch import choice_of, clear_limits, pins_but
    from keyturn.stores import forget_limits

    from .pool import open_pool
    from .stopped import left_behind

    folder = DataFolder(config.data)
    folder.lock()
    try:
        found = left_behind(config)
        gateway = open_pool(config) if found is None else found[0]
        choice = choice_of(gateway, asked["provider"], asked["model"], asked["key"], asked["source"])
        stay, gone = pins_but(gateway, choice)
        cleared, limits = clear_limits(gateway, choice)
        if gone:
            folder.write_pins(stay)
        if limits:
            forget_limits(config.data, limits)
        return cleared + gone
    finally:
        folder.release()


def _misused(error: BadRequest) -> NoReturn:
    raise click.UsageError(error.message) from error
