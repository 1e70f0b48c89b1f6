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
    from keyturn.core import Call
    from keyturn.dispatch import Gateway


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
@click.option("--tokens", type=click.IntRange(1), help="Of its prompt: what it would be charged, and cost.")
@click.option("--output", type=click.IntRange(1), help="Of its answer at most (max_tokens); usual ones unless said.")
@place_options
@json_option
def explain(
    name: str,
    caller: str | None,
    needs: tuple[str, ...],
    stream: bool,
    tokens: int | None,
    output: int | None,
    as_json: bool,
    **place: Any,
) -> None:
    """Print who would be asked for NAME, in which order, and who is left out and why. Sends nothing.

    With each key stands how it would be chosen: the used share of its limits, its calls under way, how soon it answers.
    Exits with 1 when nobody could answer.
    """
    from .live import find_gateway, running
    from .stopped import ago, left_behind

    config = read_config(Place(**place))
    left = left_behind(config) if running(config) is None else None
    known = "this is the configuration, without live state" if left is None else f"this is how it stood {ago(left[1])}"
    gateway = find_gateway(config, known)
    state = "" if gateway is not None else "no live state is known" if left is None else f"as it stood {ago(left[1])}"
    if gateway is not None:
        asked = {"route": name, "caller": caller, "needs": list(needs), "stream": stream}
        told = gateway.ask("/admin/explain", asked | {"tokens": tokens, "output": output})
    else:
        from keyturn.core import call_of_size

        call = call_of_size(name, tokens or 0, output)
        call.stream, call.needs = stream, frozenset(needs)
        told = asyncio.run(_explain_here(config, call, caller, None if left is None else left[0]))
    if as_json:
        print_json(told)
    else:
        for line in explained(told, state):
            click.echo(line)
    if told["error"] is not None:
        raise Failure(f"{told['error']['code']}: {told['error']['message']}")


async def _explain_here(config: Config, call: Call, caller: str | None, left: Gateway | None) -> dict[str, Any]:
    """*left*: the pool as the last gateway left it."""
    from .named import caller_named
    from .pool import open_pool

    gateway = open_pool(config) if left is None else left
    try:
        return await gateway.explain(call, caller_named(config, caller))
    finally:
        await gateway.close()


def explained(told: dict[str, Any], state: str = "") -> Iterator[str]:
    """What `explain` found, a line each. *state*: what is known of limits and rests where no gateway runs."""
    yield f"{told['route']} for caller {told['caller']}{f', {state}' if state else ''}:"
    for number, step in enumerate(told["steps"], 1):
        for deployment in step["deployments"]:
            yield f"  {number}. {deployment['provider']}/{deployment['model']} ({', '.join(_costs(deployment))})"
            for row in deployment["candidates"]:
                yield _candidate(row)
    for refusal in told["refusals"]:
        yield f"  left out: {refusal}"
    if told.get("wait") is not None:
        yield _wait(told["wait"])
    for limit in told.get("own_limits", ()):
        used = f"{limit['used']:g} of {limit['capacity']:g} {limit['metric']} a {limit['window']} used"
        yield f"  {limit['of']} {limit['name']}: {used}"


def _costs(deployment: dict[str, Any]) -> Iterator[str]:
    """What is to be said of a deployment beside its name."""
    price = deployment["usd_per_million"]
    yield "price unknown" if price is None else f"{price['input']:g} / {price['output']:g} USD per million"
    if deployment.get("tokens") is not None:
        charged = deployment["tokens"]["input"] + deployment["tokens"]["output"]
        cost = "" if deployment["usd"] is None else f" and costs about {deployment['usd']:.6f} USD"
        yield f"this call is charged {charged:,} tokens{cost}"
    if deployment["stands_in"]:
        yield f"the same model, provider tier {deployment['provider_tier']}"


def _candidate(row: dict[str, Any]) -> str:
    """One key: how it would be chosen, or what keeps it away."""
    if row["state"] != "free":
        when = "" if row["wait_s"] is None else f", free again in {row['wait_s']:g} s"
        return f"     - {row['key']}: {row['state']}, {row['why']}{when}"
    scores = []
    if row.get("load"):
        scores.append(f"{row['load']:.0%} used".replace("%", " %"))
    if row.get("active"):
        scores.append(f"{row['active']} under way")
    if row.get("pace_ms") is not None:
        scores.append(f"answers begin after {row['pace_ms'] / 1000:.1f} s")
    return f"     {'>' if row.get('chosen') else ' '} {row['key']}" + (f" ({', '.join(scores)})" if scores else "")


def _wait(row: dict[str, Any]) -> str:
    if row["expected_s"] is None:
        return "  nobody is free, and nobody knows when: a call would " + ("wait" if row["waits"] else "be refused")
    ahead = f" at place {row['position']} of the line" if row["position"] > 1 else ""
    becomes = f"would wait, {row['patience_s']:g} s at most" if row["waits"] else "would be told to come back then"
    return f"  nobody is free: its turn would come in about {row['expected_s']:g} s{ahead}; a call {becomes}"
