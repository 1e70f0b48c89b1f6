"""How many tokens a prompt has, and what a call would cost: asked of the provider where it counts, else estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from keyturn.core import Call, Caller, Deployment, Usage, dollars, needs_listing, resolve
from keyturn.errors import PoolError
from keyturn.providers import prices_dated
from keyturn.wire import count_body

from .answering import JSON, request_ids
from .reply import Reply

if TYPE_CHECKING:
    from .gateway import Gateway

ESTIMATED = (b"x-keyturn-estimated", b"true")
PER_MILLION = 1_000_000


async def first_asked(gateway: Gateway, call: Call, caller: Caller) -> Deployment:
    """Who would be asked first for *call*. Raises what `resolve` raises."""
    lists = gateway.lists
    if needs_listing(call, lists.catalog):
        await lists.refresh()
    return resolve(call, caller, lists.catalog).deployments[0]


async def count(gateway: Gateway, call: Call, caller: Caller, call_id: str) -> Reply:
    """The tokens of *call*, of kind `count`, in the shape of its dialect.

    The provider that would be asked first counts itself, with a key of the pool and without a part of its limits, if it
    speaks the dialect and can; what it says of a mistake is handed on. Else, and while it cannot be asked, it is our
    estimate, with the header `x-keyturn-estimated: true`.
    """
    first = await first_asked(gateway, replace(call, kind="chat"), caller)
    provider = gateway.config.providers[first.provider]
    if call.kind in gateway.lists.catalog.offers[first.provider].kinds and provider.dialect == call.dialect:
        reply = await gateway.handle(call, caller, call_id)
        if reply.status < 429:
            return reply
    tokens = gateway.estimator.estimate(call, str(first)).likely
    headers = [JSON, *request_ids(call.dialect, call_id), ESTIMATED]
    return Reply(200, headers, count_body(call.dialect, tokens))


async def cost(gateway: Gateway, caller: Caller, model: str, usage: Usage) -> dict[str, Any]:
    """What *usage* would cost on *model*, in USD; with `error` instead of a figure when nobody knows its price."""
    asked = Call("openai_chat", "chat", model, {}, 0)
    try:
        first = await first_asked(gateway, asked, caller)
    except PoolError:  # no key for it now: its price is known all the same
        provider, _, name = model.partition("/")
        first = Deployment(provider, name)
    price = gateway.generation.prices.of(first)
    told: dict[str, Any] = {"model": model, "deployment": str(first), "currency": "USD"}
    told["tokens"] = {"input": usage.input, "cached": usage.cached, "output": usage.output}
    if price is None:
        return {
            **told,
            "cost": None,
            "error": f"nobody knows what {first} costs; give its route a price in models.yaml",
        }
    price = price.at(usage.input)
    cached = price.input if price.cached is None else price.cached
    per_token = {"input": price.input, "cached": cached, "output": price.output}
    told["pricing"] = {name: nano * PER_MILLION / 1e9 for name, nano in per_token.items()}
    return {**told, "cost": dollars(price.of(usage)), "source": _source(gateway, first)}


def _source(gateway: Gateway, deployment: Deployment) -> str:
    """Where the price is from."""
    if gateway.lists.catalog.about(deployment).price is not None:
        return "models.yaml"
    return f"the price list of {prices_dated()}"
