"""`keyturn bot`: named here, and not part of this version."""

from __future__ import annotations

import click

from .entry import Failure


@click.command()
def command() -> None:
    """Run the Discord bot (not in this version)."""
    raise Failure("The Discord bot is not part of this version yet; the gateway works without it.")
