"""Commands as a person runs them: in an empty folder, with a simulator and a gateway in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keyturn.cli import main

KEYTURN = (sys.executable, "-c", "from keyturn.cli import main; main(prog_name='keyturn')")


class Terminal:
    """Runs commands in *cwd*, with nothing in the environment that would configure Keyturn but what a test sets."""

    def __init__(self, cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cwd = cwd
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(cwd)

    def set(self, **environ: str) -> None:
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)

    def run(self, *args: str, input: str | None = None) -> Result:
        return CliRunner().invoke(main, args, input=input, catch_exceptions=False)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(tmp_path, monkeypatch)


def start(*args: str, cwd: Path, until: str, environ: Mapping[str, str]) -> tuple[subprocess.Popen[str], str]:
    """A command in a process of its own, and what it has said up to the line that holds *until*."""
    process = subprocess.Popen([*KEYTURN, *args], cwd=cwd, env=dict(environ), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while until not in said:
        line = process.stderr.readline()
        assert line, f"it ended: {said}"
        said += line
    return process, said


def stop(process: subprocess.Popen[str]) -> int:
    """Ctrl-C; the exit code."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    return process.returncode


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of simulated providers: groq knows two good keys and a revoked one, the others take any."""
    folder = tmp_path_factory.mktemp("simulator")
    rules = '{"gsk_good_1": {}, "gsk_good_2": {}, "gsk_revoked": {"state": "invalid_key"}}'
    (folder / "script.json").write_text(f'{{"keys": {{"groq": {rules}}}}}')
    process, said = start(
        "simulator", "--port", "0", "--script", "script.json", cwd=folder, until="_simulator/stats", environ={}
    )
    yield said.split("Simulated providers at ")[1].partition(": ")[0]
    assert stop(process) == 0
