"""`keyturn limits …`: the limits that are declared, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .named import provider_named
from .output import json_option, print_json, print_table
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config, LimitSpec


@click.group()
def command() -> None:
    """List the limits that are declared. How much of them is used, `keyturn keys list` shows."""


@command.command("list")
@click.argument("provider", required=False)
@place_options
@json_option
def list_limits(provider: str | None, as_json: bool, **place: Any) -> None:
    """List declared limits (of PROVIDER), with the plan that they hold for and where they are written."""
    config = read_config(Place(**place))
    rows = list(_rows(config))
    wanted = provider_named(provider, {row["provider"] for row in rows} | set(config.providers))
    rows = [row for row in rows if wanted in (None, row["provider"])]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("PROVIDER", "MODELS", "LIMITS", "PLAN", "COUNTED PER", "FROM"),
        [
            (
                row["provider"],
                row["models"],
                row["limits"] or "none",
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
        yield _row("*", "*", config.default_limits, "free", "quota group", "default_limits")


def _row(
    provider: str, models: str, specs: tuple[LimitSpec, ...], plan: str | None, per: str, place: str
) -> dict[str, Any]:
    limits = " ".join(f"{spec.metric}/{spec.window}={spec.capacity}" for spec in specs)
    return {"provider": provider, "models": models, "limits": limits, "plan": plan, "per": per, "from": place}
