"""`keyturn routes …`: the names that can be asked for, and who would answer one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .entry import Failure
from .output import json_option, print_json, print_table
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config


@click.group()
def command() -> None:
    """List roles, aliases and routes, and explain who would answer one."""


@command.command("list")
@place_options
@json_option
def list_routes(as_json: bool, **place: Any) -> None:
    """List every role, alias and route id with what stands behind it, and `auto` for calls without a model."""
    rows = list(_rows(read_config(Place(**place))))
    if as_json:
        print_json(rows)
        return
    head = ("NAME", "KIND", "BEHIND IT", "PAID", "PRICE TIER", "BUDGET")
    print_table(
        head,
        [
            (
                row["name"],
                row["kind"],
                " → ".join(row["chain"]) + (f" at {', '.join(row['providers'])}" if row["providers"] else ""),
                "" if row["paid"] is None else "yes" if row["paid"] else "no",
                row["price_tier"] or "",
                "" if row["budget_usd"] is None else f"{row['budget_usd']:g} USD a month",
            )
            for row in rows
        ],
    )


def _rows(config: Config) -> Iterator[dict[str, Any]]:
    from keyturn.config import default_models
    from keyturn.core import AUTO, dollars

    for route in config.names.values():
        yield {
            "name": route.name,
            "kind": route.kind,
            "chain": list(route.chain),
            "providers": list(route.providers),
            "strategy": route.strategy,
            "paid": None,
            "price_tier": None,
            "budget_usd": dollars(route.budget.capacity) if route.budget is not None else None,
        }
    for name, deployments in config.routes.items():
        facts = [config.facts[each] for each in deployments if each in config.facts]
        tiers = {each.price_tier for each in facts if each.price_tier}
        yield {
            "name": name,
            "kind": "route",
            "chain": [str(each) for each in deployments],
            "providers": [],
            "strategy": "in_order",
            "paid": any(each.paid for each in facts),
            "price_tier": ", ".join(sorted(tiers)) or None,
            "budget_usd": None,
        }
    defaults = default_models(config).get("chat", ())
    if defaults and AUTO not in config.names and AUTO not in config.routes:
        yield {
            "name": AUTO,
            "kind": "default",
            "chain": [str(each) for each in defaults],
            "providers": [],
            "strategy": "in_order",
            "paid": None,
            "price_tier": None,
            "budget_usd": None,
        }


@command.command()
@click.argument("name")
@click.option("--caller", help="As this caller of callers.yaml would be answered.")
@click.option(
    "--needs",
    type=click.Choice(["vision", "audio", "tools", "json"]),
    multiple=True,
    help="What the call needs; may be given again.",
)
@click.option("--stream", is_flag=True, help="The call is streamed.")
@place_options
@json_option
def explain(name: str, caller: str | None, needs: tuple[str, ...], stream: bool, as_json: bool, **place: Any) -> None:
    """Print who would be asked for NAME, in which order, and who is left out and why. Sends nothing.

    Exits with 1 when nobody could answer.
    """
    from .live import find_gateway

    config = read_config(Place(**place))
    gateway = find_gateway(config, "this is the configuration, without live state")
    if gateway is not None:
        asked = {"route": name, "caller": caller, "needs": list(needs), "stream": stream}
        told = gateway.ask("/admin/explain", asked)
    else:
        told = asyncio.run(_explain_here(config, name, caller, needs, stream))
    if as_json:
        print_json(told)
    else:
        for line in explained(told):
            click.echo(line)
    if told["error"] is not None:
        raise Failure(f"{told['error']['code']}: {told['error']['message']}")


async def _explain_here(
    config: Config, name: str, caller: str | None, needs: tuple[str, ...], stream: bool
) -> dict[str, Any]:
    from keyturn.core import Call

    from .named import caller_named
    from .pool import open_pool

    gateway = open_pool(config)
    try:
        call = Call("openai_chat", "chat", name, {}, 0, stream, needs=frozenset(needs))
        return await gateway.explain(call, caller_named(config, caller))
    finally:
        await gateway.close()


def explained(told: dict[str, Any]) -> Iterator[str]:
    """What `explain` found, a line each."""
    yield f"{told['route']} for caller {told['caller']}:"
    for number, step in enumerate(told["steps"], 1):
        for deployment in step["deployments"]:
            price = deployment["usd_per_million"]
            cost = "price unknown" if price is None else f"{price['input']:g} / {price['output']:g} USD per million"
            same = f", the same model, provider tier {deployment['provider_tier']}" if deployment["stands_in"] else ""
            yield f"  {number}. {deployment['provider']}/{deployment['model']} ({cost}{same})"
            for row in deployment["candidates"]:
                if row["state"] == "free":
                    yield f"       {row['key']}"
                else:
                    when = "" if row["wait_s"] is None else f", free again in {row['wait_s']:g} s"
                    yield f"     - {row['key']}: {row['state']}, {row['why']}{when}"
    for refusal in told["refusals"]:
        yield f"  left out: {refusal}"
    for limit in told.get("own_limits", ()):
        used = f"{limit['used']:g} of {limit['capacity']:g} {limit['metric']} a {limit['window']} used"
        yield f"  {limit['of']} {limit['name']}: {used}"
