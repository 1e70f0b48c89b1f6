"""The options that choose a configuration, shared by all commands, and reading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from keyturn.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(NamedTuple):
    """Where the configuration is, as far as the command line says."""

    config: Path | None
    data: Path | None
    env_file: Path | None

    @property
    def for_client(self) -> dict[str, Any]:
        """The same as arguments of the library's clients."""
        said = {"config": self.config, "data_dir": self.data, "env_file": self.env_file}
        return {name: path for name, path in said.items() if path is not None}


def place_options(command: Command) -> Command:
    """Adds `--config`, `--data` and `--env-file`, handed to the command as `config`, `data` and `env_file`."""
    for option in (
        click.option("--env-file", type=click.Path(path_type=Path), help="The env file, instead of .env or PROXY_ENV."),
        click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The data folder (.cache)."),
        click.option(
            "--config",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="The folder of configuration files (config).",
        ),
    ):
        command = option(command)
    return command


def read_config(place: Place, **options: Any) -> Config:
    """The configuration at *place*, with further command line *options*. Raises ConfigError."""
    from keyturn.config import Options, environment, load

    chosen = Options(config=place.config, data=place.data, **options)
    return load(environment(), env_file=place.env_file, cwd=Path.cwd(), options=chosen)
