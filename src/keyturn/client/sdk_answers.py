"""What an SDK's request is answered with: its path is read as the server reads it, then the pool is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from keyturn.dispatch import PLACES, Door, Reply, call_headers, new_id, place_at, spoken
from keyturn.errors import MethodNotAllowed, ModelNotFound, UnknownPath
from keyturn.providers import known, nearest
from keyturn.wire import model_page, models_page

from .asynchronous import AsyncClient
from .local import JSON, refused

LONGEST_ECHO = 200


async def answer(
    pool: AsyncClient,
    usual: str,
    method: str,
    raw_path: bytes,
    query: str,
    headers: Mapping[bytes, bytes],
    body: bytes,
    now: float,
) -> Reply:
    """The answer to one request as the gateway would give it over HTTP, errors included; to be closed by who takes it.

    *usual* is the dialect of whose SDK asks. Header names are lower case, *now* is Unix seconds. Raises KeyturnError
    when the pool cannot be reached.
    """
    found = spoken(raw_path, headers)
    told = usual if found == "openai_chat" else found
    try:
        place, argument = _find(method, raw_path)
        if place == "models":
            rows = ((name, provider, 0) for name, provider in await _offered(pool))
            return Reply(200, [JSON], models_page(told, rows))
        if place == "model":
            return Reply(200, [JSON], model_page(told, (argument, _owner(argument, await _offered(pool)), 0)))
    except (UnknownPath, MethodNotAllowed, ModelNotFound) as error:
        return refused(error, told, new_id(now))
    return await pool.ask(place, body, call_headers(headers), argument, query)


def _find(method: str, raw_path: bytes) -> tuple[Door | Literal["models", "model"], str]:
    """What is asked for at a path, and what else the path says. Raises UnknownPath, MethodNotAllowed."""
    found = place_at(raw_path)
    if found is None:
        shown = repr(raw_path[:LONGEST_ECHO])[2:-1]
        served = ", ".join(f"{place.method} {place.path}" for place in PLACES)
        raise UnknownPath(f"nothing is served at {shown}; served are {served}")
    place, argument = found
    if method != place.method:
        raise MethodNotAllowed(f"{place.path} is served with {place.method}")
    return place.name, argument


async def _offered(pool: AsyncClient) -> list[tuple[str, str]]:
    """Every name that can be asked for, with the provider that answers it."""
    grouped = await pool.get_all_available_models(grouped=True)
    return [(name, provider) for provider, names in grouped.items() for name in names]


def _owner(name: str, offered: list[tuple[str, str]]) -> str:
    """The provider behind *name*. Raises ModelNotFound, which names the nearest."""
    head, _, rest = name.partition("/")
    row = known(head)
    for offer, provider in offered:
        if offer == name or (rest and row is not None and offer == f"{row.name}/{rest}"):
            return provider
        if offer.partition("/")[2] == name:
            return provider
    shown = name[:LONGEST_ECHO]
    near = nearest(shown, [offer for offer, _ in offered])
    hint = f"nearest: {near}" if near else "GET /v1/models lists what is"
    raise ModelNotFound(f"model {shown!r} is not offered by any configured provider; {hint}", param="model")
