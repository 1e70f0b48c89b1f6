"""`keyturn env merge`: bring a new env file's names into the one in use, without losing a value."""

from __future__ import annotations

from pathlib import Path

import click

from .output import say
from .stamps import time_stamp


@click.group()
def command() -> None:
    """Change the env file safely."""


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--env-file", type=click.Path(path_type=Path), help="The env file, instead of .env or PROXY_ENV.")
@click.option("--keep-source", is_flag=True, help="Leave FILE where it is.")
def merge(file: Path, env_file: Path | None, keep_source: bool) -> None:
    """Add what FILE (.env.new) has more than the env file. No value that is set is changed.

    A copy of the env file as it was is kept beside it; FILE is removed once both are on the disk.
    """
    from keyturn.config import environment, merge_env

    done = merge_env(environment(), env_file, Path.cwd(), file, stamp=time_stamp(), keep_source=keep_source)
    click.echo(f"merged {file} into {done.file}")
    for said, names in (
        ("added", done.added),
        ("filled in", done.filled),
        ("kept, where the new file has another value", done.kept),
        ("still blank", done.blank),
    ):
        if names:
            click.echo(f"{said}: {', '.join(names)}")
    if done.backup is not None:
        click.echo(f"the file as it was before: {done.backup}")
    if done.source_left is not None:
        say(f"{file} is still there: {done.source_left}")
