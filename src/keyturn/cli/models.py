"""`keyturn models`: what can be asked for, from the running gateway or from the providers themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from .named import provider_named
from .output import json_option, print_json
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config


@click.command()
@click.argument("provider", required=False)
@place_options
@json_option
def command(provider: str | None, as_json: bool, **place: Any) -> None:
    """List the models that can be asked for, as provider/model."""
    from .live import find_gateway

    config = read_config(Place(**place))
    gateway = find_gateway(config, "the providers are asked from here")
    names = config.providers if gateway is None else {row["provider"] for row in gateway.ask("/admin/keys")}
    wanted = provider_named(provider, names)
    rows = gateway.ask("/admin/models") if gateway is not None else asyncio.run(_ask_providers(config))
    rows = [row for row in rows if wanted in (None, row["provider"])]
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        click.echo(row["id"])


async def _ask_providers(config: Config) -> list[dict[str, Any]]:
    from .pool import open_pool

    gateway = open_pool(config)
    try:
        return [{"id": row.id, "provider": row.provider} for row in await gateway.models()]
    finally:
        await gateway.close()
