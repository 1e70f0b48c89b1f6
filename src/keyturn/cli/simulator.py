"""`keyturn simulator`: simulated providers on a local port, to rehearse against."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click

from keyturn.errors import ConfigError

from .entry import Failure
from .output import say


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with keys, limits and faults; without it every key is good.",
)
def command(port: int, host: str, script: Path | None) -> None:
    """Serve simulated providers: true limits, real error bodies, scripted faults. Ends with Ctrl-C."""
    import socket

    import uvicorn

    from keyturn.dispatch import SystemClock, draw
    from keyturn.simulator import PERSONAS, application

    try:
        options = json.loads(script.read_bytes()) if script else {}
    except ValueError as error:
        raise ConfigError([f"{script}: is not JSON ({error})"]) from error
    if not isinstance(options, dict):
        raise ConfigError([f"{script}: must be a JSON object"])
    app = application(options, SystemClock(), draw)
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise Failure(f"cannot listen on {host}:{port}: {error.strerror}") from error
    url = f"http://{host}:{listening.getsockname()[1]}"
    say(f"Simulated providers at {url}: {', '.join(PERSONAS)}.")
    say(f"For example: GROQ_API_BASE={url}/groq/v1 GROQ_API_KEY=any keyturn serve")
    say(f"Counts: {url}/_simulator/stats")
    settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the Ctrl-C that it has obeyed once more
        uvicorn.Server(settings).run(sockets=[listening])
