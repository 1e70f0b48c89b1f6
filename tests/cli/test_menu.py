"""`keyturn` without a command: a menu on a terminal, else the help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from keyturn.cli import main
from keyturn.cli.menu import ENTRIES, Entry, open_menu

from .conftest import KEYTURN, Terminal

QUITS = len(ENTRIES) + 1
"""The number of the last line of the menu, which leaves it."""


def lines(entries: tuple[Entry, ...] = ENTRIES) -> list[Entry]:
    return [each for entry in entries for each in (lines(entry.below) if entry.below else [entry])]


@pytest.mark.parametrize("entry", lines(), ids=lambda entry: "-".join(entry.command))
def test_TUI_01_every_line_of_the_menu_is_a_command_that_also_exists(entry: Entry) -> None:
    command: click.Command | None = main
    for word in entry.command:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    assert len(entry.asks) <= len(arguments)
    needed = [each.required for each in arguments]
    assert [must for _, must in entry.asks] == needed[: len(entry.asks)]
    assert not any(needed[len(entry.asks) :])


def test_TUI_01_it_has_a_line_for_each_purpose() -> None:
    titles = " ".join(entry.title for entry in ENTRIES).lower()
    for word in ("run", "keys", "settings", "quota", "models", "doctor"):
        assert word in titles


def test_TUI_01_it_runs_what_is_chosen_and_goes_on(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="gsk_planted_1")
    chosen = f"99\n7\n4\n2\ngroq\n5\n2\n1\n3\n4\n7\n{QUITS}\n"

    @click.command()
    def menu() -> None:
        open_menu(main)

    said = CliRunner().invoke(menu, input=chosen)
    assert said.exit_code == 0, said.output
    assert f"99 is not in the range 1<=x<={QUITS}" in said.output
    assert "$ keyturn doctor" in said.output
    assert "$ keyturn limits list groq" in said.output
    assert "$ keyturn config show" not in said.output  # 3, 2 is `config check`
    assert "gsk_planted_1" not in said.output


def test_TUI_01_an_empty_answer_goes_back(terminal: Terminal) -> None:
    @click.command()
    def menu() -> None:
        open_menu(main)

    said = CliRunner().invoke(menu, input=f"2\n3\n\n7\n{QUITS}\n")
    assert said.exit_code == 0, said.output
    assert said.output.count("Of which provider? (empty: back)") == 1
    assert "$ keyturn keys add" not in said.output


def test_TUI_01_a_command_that_fails_does_not_end_it(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_1="with a space")

    @click.command()
    def menu() -> None:
        open_menu(main)

    said = CliRunner().invoke(menu, input=f"3\n2\n4\n{QUITS}\n")
    assert said.exit_code == 0, said.output
    assert "copy it again" in said.output


def test_TUI_01_ctrl_d_leaves_it(terminal: Terminal) -> None:
    @click.command()
    def menu() -> None:
        open_menu(main)

    assert CliRunner().invoke(menu, input="").exit_code == 0


def test_TUI_02_without_a_terminal_there_is_the_help(terminal: Terminal) -> None:
    said = terminal.run()
    assert said.exit_code == 0
    assert "serve" in said.output
    assert "Quit" not in said.output


@pytest.mark.realtime
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_TUI_01_on_a_terminal_it_opens(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(KEYTURN, cwd=tmp_path, env={}, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    said = b""
    while b"> " not in said:
        said += os.read(leader, 4096)
    os.write(leader, f"{QUITS}\n".encode())
    assert process.wait(20) == 0
    os.close(leader)
    assert b"Quit" in said
