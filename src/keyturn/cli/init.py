"""`keyturn init`: commented configuration files to start from, and never over one that is there."""

from __future__ import annotations

from pathlib import Path

import click

from .output import say


@click.command()
@click.option(
    "--config", type=click.Path(file_okay=False, path_type=Path), default="config", help="The folder (config)."
)
@click.option("--env-file", type=click.Path(path_type=Path), help="The env file, instead of .env or PROXY_ENV.")
def command(config: Path, env_file: Path | None) -> None:
    """Write commented configuration files and an env file to start from. What is there already is left alone."""
    from keyturn.config import environment, write_initial

    cwd = Path.cwd()
    told = []
    for file, made in write_initial(environment(), env_file, cwd, config):
        if file.name.endswith(".schema.json"):
            file = file.parent  # a line for all of them
        shown = file.relative_to(cwd) if file.is_relative_to(cwd) else file
        told.append(f"made: {shown}" if made else f"left as it is: {shown}")
    for line in dict.fromkeys(told):
        click.echo(line)
    say("Next: put your keys into the env file; `keyturn config check` says what is wrong, `keyturn serve` starts.")
