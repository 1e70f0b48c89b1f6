"""The composition root: from a configuration to a gateway that can answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from keyturn.config import Config, DataFolder, Pin
from keyturn.core import Clock, Marks, Redactor, Transport
from keyturn.stores import MemoryState, Snapshots
from keyturn.transport import ASGIApp, Transports

from .clock import SystemClock
from .gateway import Gateway
from .hidden import secrets_of
from .overview import switch_off
from .restoring import Restoring
from .storing import ledger_of, live_state_of, state_file_of

BUILT: list[Callable[[Gateway], object]] = []
"""Called with every gateway that this process makes: instrumentation of programs that use the library."""


def build(
    config: Config,
    *,
    clock: Clock | None = None,
    transport: Transport | None = None,
    apps: Mapping[str, ASGIApp] | None = None,
    disabled: Collection[str] = (),
    folder: DataFolder | None = None,
    pins: Sequence[Pin] = (),
) -> Gateway:
    """A gateway over everything in *config*. *apps* answer providers that live in this process (the demo);
    *disabled* holds the fingerprints of credentials that the owner took out of use, *pins* the limits
    that they pinned. What must last is read from *folder* and kept there; only its owner may hand it in."""
    clock = clock or SystemClock()
    marks = Marks()
    live = live_state_of(config, marks, clock)
    file = state_file_of(config, folder)
    ledger = ledger_of(config, folder, clock, file)
    gateway = Gateway(
        config,
        clock,
        transport or Transports(clock, apps or {}),
        live,
        marks,
        ledger,
        Redactor(secrets_of(config)),
        folder,
    )
    if file is not None and isinstance(live, MemoryState):
        gateway.restoring = Restoring(gateway, live, Snapshots(file))
    gateway.adapting.pins = tuple(pins)
    gateway.disabled = set(disabled)
    switch_off(gateway, gateway.disabled)
    for told in BUILT:
        told(gateway)
    return gateway
