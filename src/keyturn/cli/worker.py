"""One of several workers: `keyturn serve --workers N` starts it, nobody else does."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .output import say
from .serve import serve, serve_options
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config


@click.command(hidden=True)
@click.option("--number", type=click.IntRange(1), required=True, help="Its place among the workers.")
@click.option("--listening", type=click.IntRange(3), required=True, help="The descriptor of the bound socket.")
@click.option("--channel", type=click.IntRange(3), required=True, help="That of the way to who started it.")
@serve_options
@place_options
def command(number: int, listening: int, channel: int, **said: Any) -> None:
    """Serve on a socket that another process has bound."""
    from keyturn.config import WorkerFolder
    from keyturn.server import Seat

    seat = Seat(number, socket.socket(fileno=listening), socket.socket(fileno=channel))
    for each in (seat.listening, seat.channel):
        each.set_inheritable(False)  # not for the tools that this process may start
    place = Place(said.pop("config"), said.pop("data"), said.pop("env_file"))
    read = _read(place, said)
    config = read()
    folder = WorkerFolder(config.data, number)
    folder.lock(say)
    serve(config, folder, read, lambda url: [], seat)


def _read(place: Place, said: dict[str, Any]) -> Callable[[], Config]:
    """Reads the configuration with this worker's part of what is counted over all of them."""

    def read() -> Config:
        from dataclasses import replace

        config = read_config(place, **said)
        server = config.server
        part = -(-server.max_connections // server.workers)
        return replace(config, server=replace(server, max_connections=part))

    return read
