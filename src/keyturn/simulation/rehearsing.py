"""A real gateway on virtual time: built from a configuration, its upstreams played in this process, nothing kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from keyturn.config import Config
from keyturn.core import Clock, Transport
from keyturn.dispatch import Gateway, build
from keyturn.transport import ASGIApp

STAGE = "rehearsal"
"""The name of the application that plays the upstreams."""


def staged(config: Config, app: str = STAGE) -> Config:
    """*config* with every provider answered by the application *app* of this process, under `/<provider>/v1`.

    Nothing of it reaches out of the process or outlives it: no Redis, no ledger, no export of traces. Left out is what
    can be no part of a rehearsal: command line tools, and credentials whose tokens come from a login.
    """
    rows = {
        name: replace(
            row,
            local_app=app,
            base_url=f"http://simulator/{name}/v1",
            endpoints={each: f"http://simulator/{name}/{each}/v1" for each in row.endpoints},
        )
        for name, row in config.providers.items()
        if row.tool is None
    }
    credentials = {name: tuple(key for key in config.credentials[name] if key.account is None) for name in rows}
    playing = {name: row for name, row in rows.items() if credentials[name]}
    return replace(
        config,
        providers=playing,
        credentials={name: credentials[name] for name in playing},
        redis=None,
        ledger=replace(config.ledger, enabled=False, database_url=None),
        otel=None,
    )


@asynccontextmanager
async def rehearsal(
    config: Config,
    clock: Clock,
    *,
    apps: Mapping[str, ASGIApp] | None = None,
    transport: Transport | None = None,
    disabled: Collection[str] = (),
) -> AsyncIterator[Gateway]:
    """The gateway that *config* makes, open until the block ends. *config* comes from `staged`, unless *transport*
    answers every request itself. On the running loop, so inside `virtual.run`, with its VirtualClock."""
    gateway = build(config, clock=clock, transport=transport, apps=apps, disabled=disabled)
    await gateway.open()
    try:
        yield gateway
    finally:
        await gateway.close()
