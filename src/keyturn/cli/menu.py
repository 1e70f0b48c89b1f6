"""The small menu that `keyturn` opens on a terminal: every line of it is a command that also exists by itself."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """A line of the menu: a command, with what is still to be asked for, or lines of a menu below it."""

    title: str
    command: tuple[str, ...] = ()
    asks: tuple[tuple[str, bool], ...] = ()
    """What is asked for and added to the command: a question, and whether it must be answered."""
    below: tuple[Entry, ...] = ()


KEY = ("Which key, by its label such as groq-2?", True)
PIN = (
    ("Of which provider?", True),
    ("For which model, or a pattern such as '*'?", True),
    ("Which limit, such as requests/minute?", True),
    ("How much of it?", True),
)
ENTRIES = (
    Entry("Run the gateway", ("serve",)),
    Entry(
        "Keys",
        below=(
            Entry("List keys and how they stand", ("keys", "list")),
            Entry("Test keys with a small request each", ("keys", "test"), (("Of which provider? Empty: all", False),)),
            Entry("Add a key", ("keys", "add"), (("Of which provider?", True),)),
            Entry("Take a key out of use", ("keys", "disable"), (KEY,)),
            Entry("Take it into use again", ("keys", "enable"), (KEY,)),
            Entry("End the rest of resting keys", ("keys", "reset"), (("Which key? Empty: all", False),)),
        ),
    ),
    Entry(
        "Settings",
        below=(
            Entry("Show every setting and where it is from", ("config", "show")),
            Entry("Look for mistakes", ("config", "check")),
            Entry("Write commented files to start from", ("init",)),
        ),
    ),
    Entry(
        "Quota",
        below=(
            Entry("What is used and free, by key", ("keys", "list")),
            Entry("The limits, and who says so", ("limits", "list"), (("Of which provider? Empty: all", False),)),
            Entry("Pin a limit, whatever anybody else says", ("limits", "pin"), PIN),
            Entry("How much each route can take, refreshed each second", ("top",)),
        ),
    ),
    Entry(
        "Calls",
        below=(
            Entry("Who would answer a name, and why", ("routes", "explain"), (("Which model, role or alias?", True),)),
            Entry("What happened to one call", ("trace",), (("Which call, by its id or the end of it?", True),)),
            Entry("What was used and what it cost", ("usage",)),
        ),
    ),
    Entry("Models", ("models",)),
    Entry("Doctor: what is set up, missing, in the way", ("doctor",)),
    Entry("Drill: what failures would do to your clients", ("drill",)),
    Entry("Simulate a day of traffic", ("simulate",), (("Which scenario? Empty: list the examples", False),)),
)
QUIT, BACK = "Quit", "Back"


def open_menu(root: click.Group) -> None:
    """Shows the menu until somebody leaves it: by its last line, Ctrl-D or Ctrl-C."""
    click.echo("Keyturn: one endpoint that never runs out of keys. `keyturn --help` lists all commands.")
    try:
        _show(root, ENTRIES, QUIT)
    except (click.Abort, EOFError):
        click.echo()


def _show(root: click.Group, entries: Sequence[Entry], leave: str) -> None:
    while True:
        click.echo()
        for number, entry in enumerate((*entries, Entry(leave)), 1):
            said = f"  ({'keyturn ' + ' '.join(entry.command)})" if entry.command else ""
            click.echo(f"  {number}  {entry.title}{said}")
        number = click.prompt("", type=click.IntRange(1, len(entries) + 1), prompt_suffix="> ")
        if number > len(entries):
            return
        entry = entries[number - 1]
        if entry.below:
            _show(root, entry.below, BACK)
        else:
            _run(root, entry)


def _run(root: click.Group, entry: Entry) -> None:
    """Runs one line as if it had been typed; whatever becomes of it, the menu goes on."""
    args = [*entry.command]
    for question, needed in entry.asks:
        said = click.prompt(
            f"{question} (empty: {BACK.lower()})" if needed else question, default="", show_default=False
        )
        if needed and not said.strip():
            return
        args += [said] if said else []
    click.echo(f"$ keyturn {shlex.join(args)}\n")
    try:
        root.main(args, prog_name="keyturn")
    except SystemExit:
        return
