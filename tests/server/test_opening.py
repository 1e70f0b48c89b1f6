"""A store that cannot be opened ends the server before it serves, with the reason and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from keyturn.cli import main
from keyturn.config import DataFolder
from keyturn.dispatch import Gateway
from keyturn.errors import StoreError
from keyturn.server import run

from .fakes import FakeGateway, FakeObserver
from .test_listener import MovedClock

WHY = "Redis evicts keys (maxmemory-policy allkeys-lru): set it to noeviction"


def test_it_is_raised_and_everything_is_closed(tmp_path: Path) -> None:
    class Refusing(FakeGateway):
        async def open(self) -> None:
            raise StoreError(WHY)

    gateway, observer = Refusing(clock=MovedClock(), port=0), FakeObserver()
    ready: list[str] = []
    with pytest.raises(StoreError, match="noeviction"):
        run(cast(Gateway, gateway), folder=DataFolder(tmp_path), observer=observer, on_ready=ready.append)
    assert gateway.closed
    assert (ready, observer.said) == ([], [])
    assert not (tmp_path / "gateway.json").exists()


def test_the_command_says_why_with_exit_code_1_and_lets_go_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any) -> None:
        raise StoreError(WHY)

    monkeypatch.setattr(Gateway, "open", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROQ_API_KEY", "gsk_0123456789")
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--data", str(tmp_path / "data")])
    assert result.exit_code == 1, result.output
    assert WHY in result.output
    folder = DataFolder(tmp_path / "data")
    folder.lock()
    folder.release()


def test_a_thread_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: Any) -> None:
        raise StoreError(WHY)

    def leave(code: int) -> None:
        raise SystemExit(code + 40)

    monkeypatch.setattr(Gateway, "open", refuse)
    monkeypatch.setattr("keyturn.server.is_held_up", lambda: True)
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROQ_API_KEY", "gsk_0123456789")
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--data", str(tmp_path / "data")])
    assert result.exit_code == 41, result.output
    assert WHY in result.output
    folder = DataFolder(tmp_path / "data")
    folder.lock()
    folder.release()
