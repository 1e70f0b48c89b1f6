"""`keyturn serve`: reads the configuration, takes the data folder, serves, and says what it serves."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import click

from .output import say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.dispatch import Gateway
    from keyturn.telemetry import Exporting, Telemetry


@click.command()
@click.option("--host", help="The address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port (8000); 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1), help="How many processes; more than one needs REDIS_URL.")
@click.option(
    "--log-requests",
    "--enable-request-logging",
    is_flag=True,
    default=None,
    help="Keep requests, attempts and answers in DATA/requests/, redacted.",
)
@click.option(
    "--trust-local", is_flag=True, default=None, help="Callers on this machine with an allowed Host need no caller key."
)
@click.option("--log-format", type=click.Choice(["console", "json"]), help="How log lines look (console).")
@place_options
def command(
    host: str | None,
    port: int | None,
    workers: int | None,
    log_requests: bool | None,
    trust_local: bool | None,
    log_format: Literal["console", "json"] | None,
    **place: Any,
) -> None:
    """Run the gateway until Ctrl-C; running answers are then finished first."""
    if workers is not None and workers > 1:
        raise click.UsageError("more than one worker would multiply every limit without shared state (REDIS_URL)")

    def read() -> Config:
        return read_config(
            Place(**place),
            host=host,
            port=port,
            log_requests=log_requests,
            trust_local=trust_local,
            log_format=log_format,
        )

    config = read()
    from keyturn.config import DataFolder
    from keyturn.server import run
    from keyturn.telemetry import redact_libraries

    from .banner import banner
    from .pool import open_pool

    folder = DataFolder(config.data)
    folder.lock()
    written = True
    try:
        gateway = open_pool(config, folder)
        redact_libraries(gateway.redactor, sys.stderr)
        telemetry, told = telling(config, gateway)

        def on_ready(url: str) -> None:
            for line in (*told, *banner(config, url)):
                telemetry.say(line) if config.server.log_format == "json" else say(line)

        try:
            code = run(gateway, folder=folder, observer=telemetry, on_ready=on_ready, read=read)
        finally:
            written = telemetry.close()
    finally:
        folder.release()
    if not written:
        os._exit(code)  # at its end Python would wait for the log for ever
    sys.exit(code)


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
