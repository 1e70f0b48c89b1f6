"""`keyturn serve`: reads the configuration, takes the data folder, serves, and says what it serves."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from keyturn.errors import ConfigError, KeyturnError, StoreError

from .entry import FAILED
from .output import say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config, DataFolder
    from keyturn.dispatch import Gateway
    from keyturn.server import Seat
    from keyturn.telemetry import Exporting, Telemetry

Command = TypeVar("Command", bound=Callable[..., Any])


def serve_options(command: Command) -> Command:
    """Adds what one process and each of several are told alike."""
    for option in (
        click.option("--log-format", type=click.Choice(["console", "json"]), help="How log lines look (console)."),
        click.option(
            "--trust-local",
            is_flag=True,
            default=None,
            help="Callers on this machine with an allowed Host need no caller key.",
        ),
        click.option(
            "--log-requests",
            "--enable-request-logging",
            is_flag=True,
            default=None,
            help="Keep requests, attempts and answers in DATA/requests/, redacted.",
        ),
        click.option("--workers", type=click.IntRange(1), help="How many processes; more than one needs REDIS_URL."),
        click.option("--port", type=click.IntRange(0, 65535), help="The port (8000); 0 takes a free one."),
        click.option("--host", help="The address to listen on (127.0.0.1)."),
    ):
        command = option(command)
    return command


@click.command()
@serve_options
@place_options
def command(**said: Any) -> None:
    """Run the gateway until Ctrl-C; running answers are then finished first."""
    place = Place(said.pop("config"), said.pop("data"), said.pop("env_file"))

    def read() -> Config:
        return read_config(place, **said)

    config = _checked(read, workers=said["workers"])
    if config.server.workers > 1:
        from .supervise import supervise

        supervise(config, place, said)
        return
    from keyturn.config import DataFolder

    folder = DataFolder(config.data)
    folder.lock()
    take_in_left(config, folder, say)
    serve(config, folder, read, banner_of(config))


def _checked(read: Callable[[], Config], workers: int | None) -> Config:
    """What *read* reads. Raises UsageError when nothing but an option of the command is wrong."""
    try:
        return read()
    except ConfigError as error:
        if workers is not None and len(error.problems) == 1 and error.problems[0].startswith("--workers: "):
            raise click.UsageError(error.problems[0]) from error
        raise


def take_in_left(config: Config, folder: DataFolder, say: Callable[[str], None]) -> None:
    """What another number of workers left unwritten is put into the ledger; says so when it has to wait."""
    from keyturn.dispatch import SystemClock, left_by_others, take_in

    clock = SystemClock()
    left = left_by_others(folder, config.server.workers, clock.wall()) if config.ledger.enabled else []
    if not left:
        return
    try:
        asyncio.run(take_in(config, folder, left, clock))
    except StoreError as error:
        say(
            f"note: what earlier workers recorded is not in the ledger yet, the next start tries again: {error.message}"
        )


def banner_of(config: Config) -> Callable[[str], list[str]]:
    """From the URL to the lines that tell a person what is served."""

    def lines(url: str) -> list[str]:
        from .banner import banner

        return [*banner(config, url)]

    return lines


def serve(
    config: Config,
    folder: DataFolder,
    read: Callable[[], Config],
    lines: Callable[[str], list[str]],
    seat: Seat | None = None,
) -> None:
    """Serves in this process, which holds the lock of *folder*, until a signal ends it; then exits. *lines* are said
    once it listens. With a *seat* it is one of several workers."""
    from keyturn.server import is_held_up

    try:
        code, written = _served(config, folder, read, lines, seat)
    except KeyturnError as error:
        code = _code_of(error, seat)
        if code == FAILED and not is_held_up():
            raise
        say(error.message)
        if is_held_up():
            os._exit(code)
        sys.exit(code)
    if not written or is_held_up():
        os._exit(code)  # at its end Python would wait for the log, or for a name that nobody resolves
    sys.exit(code)


def _code_of(error: KeyturnError, seat: Seat | None) -> int:
    """The exit code of *error*. Who keeps the workers is told which of them could not open a store."""
    from keyturn.server import UNOPENED

    return UNOPENED if seat is not None and isinstance(error, StoreError) else FAILED


def _served(
    config: Config,
    folder: DataFolder,
    read: Callable[[], Config],
    lines: Callable[[str], list[str]],
    seat: Seat | None,
) -> tuple[int, bool]:
    """Serves until a signal ends it; the exit code, and whether the log was written to its end."""
    from keyturn.server import run
    from keyturn.telemetry import redact_libraries

    from .pool import open_pool

    written = True
    try:
        gateway = open_pool(config, folder)
        redact_libraries(gateway.redactor, sys.stderr)
        telemetry, told = telling(config, gateway)

        def on_ready(url: str) -> None:
            for line in (*told, *lines(url)):
                telemetry.say(line) if config.server.log_format == "json" else say(line)

        try:
            code = run(gateway, folder=folder, observer=telemetry, on_ready=on_ready, read=read, seat=seat)
        finally:
            written = telemetry.close()
    finally:
        folder.release()
    return code, written


def telling(config: Config, gateway: Gateway) -> tuple[Telemetry, tuple[str, ...]]:
    """What tells of the gateway, as the configuration wants it, and what to say of it at the start."""
    from keyturn.telemetry import Telemetry

    exporting, told = exported(config, gateway)
    telemetry = Telemetry(
        gateway,
        sys.stderr,
        as_json=config.server.log_format == "json",
        recordings=config.data / "requests" if config.server.log_requests else None,
        figures=config.server.metrics,
        exporting=exporting,
    )
    return telemetry, told


def exported(config: Config, gateway: Gateway) -> tuple[Exporting | None, tuple[str, ...]]:
    """What exports traces and metrics, if the configuration asks for it, and what to say of it at the start.

    Without the extra that it needs the gateway serves all the same: the variables are often set for a whole platform.
    """
    from keyturn.errors import KeyturnError
    from keyturn.telemetry import export

    if config.otel is None:
        return None, ()
    try:
        exporting = export(config.otel, gateway)
    except KeyturnError as error:
        return None, (f"note: OTEL_EXPORTER_OTLP_… is set, but {error.message}",)
    sent = [name for name in ("traces", "metrics") if getattr(config.otel, name)]
    hosts = sorted({urlsplit(getattr(config.otel, name)).netloc.rpartition("@")[2] for name in sent})
    return exporting, (f"OpenTelemetry: {' and '.join(sent)} go to {', '.join(hosts)}",)
