"""`keyturn classify`: what an upstream's answer means, by the rules that the gateway itself uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, Any

import click


@click.command()
@click.option("--provider", help="Whose answer it is; rules of OpenAI-compatible servers for an unknown one.")
@click.option("--status", type=click.IntRange(100, 999), help="Its HTTP status.")
@click.option("--headers", default="{}", help="Its headers, a JSON object.")
@click.option("--body", default="", help="Its body.")
@click.option("--stream", is_flag=True, help="The body came inside a stream.")
@click.option("--now", help="When it came (RFC 3339); else its date header, else the clock.")
@click.option("--jsonl", type=click.File(encoding="utf-8"), help="A file with one sample per line; - for stdin.")
def command(
    provider: str | None,
    status: int | None,
    headers: str,
    body: str,
    stream: bool,
    now: str | None,
    jsonl: IO[str] | None,
) -> None:
    """Say what a provider's answer means: one JSON object per sample."""
    if jsonl is not None:
        for number, line in enumerate(jsonl, 1):
            if line.strip():
                try:
                    _print(_sample(line))
                except ValueError as error:
                    raise click.UsageError(f"line {number} of {jsonl.name}: {error}") from error
        return
    if provider is None or status is None:
        raise click.UsageError("--provider and --status are needed (or --jsonl FILE)")
    try:
        given = json.loads(headers)
        _print({"provider": provider, "status": status, "headers": given, "body": body, "stream": stream, "now": now})
    except ValueError as error:
        raise click.UsageError(f"--headers or --now: {error}") from error


def _sample(line: str) -> dict[str, Any]:
    sample = json.loads(line)
    if not isinstance(sample, dict) or not isinstance(sample.get("provider"), str) or "status" not in sample:
        raise ValueError('must be an object with "provider" and "status"')
    return sample


def _print(sample: Mapping[str, Any]) -> None:
    from keyturn.core import GENERIC, Facts, classify
    from keyturn.providers import known

    status = sample["status"]
    if status is not None and (not isinstance(status, int) or isinstance(status, bool)):
        raise ValueError("status must be a number")
    headers = sample.get("headers") or {}
    if not isinstance(headers, dict):
        raise ValueError("headers must be an object")
    headers = {str(name).lower(): str(value) for name, value in headers.items() if value is not None}
    provider = known(sample["provider"])
    facts = Facts(
        status=status,
        headers=headers,
        body=_bytes(sample.get("body")),
        now=_now(sample.get("now"), headers),
        stream=bool(sample.get("stream")),
        rules=provider.rules if provider is not None else GENERIC,
    )
    click.echo(json.dumps(classify(facts).as_json()))


def _bytes(body: object) -> bytes:
    """A body as it was on the wire: text as it stands, anything else as JSON."""
    if body is None:
        return b""
    return (body if isinstance(body, str) else json.dumps(body)).encode("utf-8", "replace")


def _now(stated: object, headers: Mapping[str, str]) -> float:
    """Unix seconds: as stated, else the date header, else the clock. Raises ValueError."""
    from keyturn.dispatch import SystemClock

    if isinstance(stated, (int, float)):
        return float(stated)
    if stated is not None:
        moment = datetime.fromisoformat(str(stated))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return SystemClock().wall()
