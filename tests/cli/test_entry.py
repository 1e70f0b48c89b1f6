"""The command itself: what it loads, what it lists, and what its exit codes mean."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keyturn.cli.entry import COMMANDS

from .conftest import Terminal


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["no-such-command"]])
def test_what_needs_no_server_loads_none(args: list[str]) -> None:
    script = (
        "import sys\n"
        "from keyturn.cli import main\n"
        f"try: main({args!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp', 'starlette', 'uvicorn', 'pydantic', 'rich', 'dotenv', 'keyturn.config', 'keyturn.core'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1:] if "no-such" not in args[0] else []) == (0, [])


def test_serve_loads_neither_rich_nor_ruamel(terminal: Terminal) -> None:
    script = (
        "import sys\n"
        "import keyturn.server, keyturn.telemetry, keyturn.cli.serve, keyturn.cli.banner, keyturn.cli.pool\n"
        "sys.exit(' '.join(sorted({'rich', 'ruamel', 'ruamel.yaml', 'pydantic'} & set(sys.modules))) or None)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_command_is_listed_and_can_be_loaded(terminal: Terminal) -> None:
    listing = terminal.run("--help").output
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in listing
        assert line in listing
        assert terminal.run(name, "--help").exit_code == 0


def test_exit_codes(terminal: Terminal) -> None:
    assert terminal.run("config", "check").exit_code == 0
    assert terminal.run("no-such-command").exit_code == 2
    assert terminal.run("serve", "--no-such-option").exit_code == 2
    terminal.set(GROQ_API_KEY="two words", KEYTURN_PORT="x")
    invalid = terminal.run("config", "check")
    assert invalid.exit_code == 3
    assert invalid.stderr.splitlines()[0] == "The configuration has 2 mistakes:"
    assert "two words" not in invalid.output
