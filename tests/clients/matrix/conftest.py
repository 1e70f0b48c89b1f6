"""One gateway and one simulator for the whole package; each upstream dialect is a provider of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Served, Upstreams, serve, simulate

from .cells import UPSTREAMS, Upstream
from .clients import CLIENTS, Client


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Upstreams]]:
    models = {upstream.provider: upstream.models for upstream in UPSTREAMS.values()}
    simulator = Simulator(SystemClock(), draw, models=models, keep_bodies=True)
    with simulate(simulator) as upstreams:
        environ = {"OPENAI_DIALECT": "openai_responses", "TIMEOUT_QUEUE_WAIT": "0.1"}
        environ["LEARNING_ENABLED"] = "false"  # what one test has a key refuse is no limit of the next
        for upstream in UPSTREAMS.values():
            name = upstream.provider.upper()
            environ |= {f"{name}_API_KEY": f"key-of-{name}", f"{name}_API_BASE": upstreams.url + upstream.base}
        with serve(tmp_path_factory.mktemp("gateway"), environ) as gateway:
            yield gateway, upstreams


@pytest.fixture(scope="package")
def clients(running: tuple[Served, Upstreams]) -> Iterator[dict[str, Client]]:
    """Each client, connected once."""
    gateway, _ = running
    connected = {name: kind(gateway.url, gateway.caller_key) for name, kind in CLIENTS.items()}
    yield connected
    for each in connected.values():
        each.close()


@pytest.fixture
def gateway(running: tuple[Served, Upstreams]) -> Served:
    return running[0]


@pytest.fixture
def upstreams(running: tuple[Served, Upstreams]) -> Upstreams:
    """The providers with an empty log."""
    running[1].settled()
    running[1].forget()
    return running[1]


@pytest.fixture
def client(clients: dict[str, Client], cell: tuple[str, str]) -> Client:
    """The client of a cell."""
    return clients[cell[0]]


@pytest.fixture
def upstream(cell: tuple[str, str]) -> Upstream:
    """The upstream of a cell."""
    return UPSTREAMS[cell[1]]
