"""`keyturn watch`: named here, and not part of this version."""

from __future__ import annotations

import click

from .entry import Failure


@click.command()
def command() -> None:
    """Watch a folder of tasks (not in this version)."""
    raise Failure("The task watcher is not part of this version yet; the gateway works without it.")
