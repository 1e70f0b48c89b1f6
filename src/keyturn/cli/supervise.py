"""`keyturn serve --workers N`: owns data folder and port, and keeps N processes that serve."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from keyturn.errors import KeyturnError

from .serve import banner_of, take_in_left
from .setup import Place

if TYPE_CHECKING:
    from keyturn.config import Config

LOG_PATIENCE = 2.0
"""Seconds that a log which nobody reads is waited for at the end."""


def supervise(config: Config, place: Place, said: dict[str, Any]) -> None:
    """Serves by *config* in several processes until a signal ends them; then exits. *said* are the other options."""
    if sys.platform == "win32":
        raise KeyturnError("several workers need a Unix system: on Windows run one, or several gateways on one Redis")
    from keyturn.config import DataFolder
    from keyturn.core import Redactor
    from keyturn.dispatch import SystemClock, secrets_of
    from keyturn.server import Job, Supervisor, WorkerLog, bind, url_of
    from keyturn.telemetry import Lines

    clock, as_json = SystemClock(), config.server.log_format == "json"
    lines, log = Lines(Redactor(secrets_of(config)), as_json=as_json), WorkerLog(sys.stderr.fileno(), as_json=as_json)
    sys.stderr.flush()

    def note(text: str) -> None:
        log.say(lines.note(text, clock.wall()))

    folder = DataFolder(config.data)
    folder.lock()
    try:
        take_in_left(config, folder, note)
        with bind(config.server.host, config.server.port) as listening:
            if config.caller_key is None:
                folder.caller_key()
            folder.new_admin_key()
            url, count = url_of(listening), config.server.workers

            def on_ready() -> None:
                try:
                    folder.publish(url)
                except OSError as error:
                    note(
                        f"commands do not find this gateway: {folder.gateway_file} cannot be written: {error.strerror}"
                    )
                note(f"{count} workers of process {os.getpid()} listen on {url}")
                for line in banner_of(config)(url):
                    note(line) if as_json else log.say(line)

            def command(number: int, socket: int, channel: int) -> list[str]:
                seat = ["--number", str(number), "--listening", str(socket), "--channel", str(channel)]
                return [sys.executable, "-P", "-m", "keyturn", "worker", *seat, *words]

            words = _words(place, {**said, "workers": count})
            patience = config.server.grace_seconds + config.server.drain_seconds
            job = Job(command, count, listening, patience)
            with asyncio.Runner() as runner:
                code = runner.run(Supervisor(job, clock, log, note, on_ready).run())
    finally:
        folder.release()
        log.close(LOG_PATIENCE)
    sys.exit(code)


def _words(place: Place, said: dict[str, Any]) -> list[str]:
    """The options of a command line that say *place* and *said*."""
    words: list[str] = []
    for name, value in {**place._asdict(), **said}.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None:
            words += [option, str(value)]
    return words
