"""Simulated providers behind a port, for clients that live in threads and processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Upstreams, simulate


@pytest.fixture(scope="package")
def simulator() -> Iterator[Upstreams]:
    with simulate(Simulator(SystemClock(), draw, keep_bodies=True)) as running:
        yield running


@pytest.fixture
def upstreams(simulator: Upstreams) -> Upstreams:
    """The providers, with no faults and an empty log."""
    simulator.settled()
    simulator.script()
    simulator.forget()
    return simulator


@pytest.fixture
def elsewhere(upstreams: Upstreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and one groq key in the environment, answered by the simulator."""
    monkeypatch.chdir(tmp_path)
    for name, value in environ_of(upstreams).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def environ_of(upstreams: Upstreams) -> dict[str, str]:
    return {
        "GROQ_API_KEY": "gsk_of_environment",
        "GROQ_API_BASE": f"{upstreams.url}/groq/v1",
        "LEARNING_ENABLED": "false",  # the limit that one test has a refusal name is none of the next
    }
