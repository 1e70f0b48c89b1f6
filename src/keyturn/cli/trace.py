"""`keyturn trace CALL`: what happened to one call, attempt by attempt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from .chat import trail_lines
from .entry import FAILED
from .output import json_option, print_json, say
from .setup import Place, place_options, read_config


@click.command()
@click.argument("call")
@place_options
@json_option
def command(call: str, as_json: bool, **place: Any) -> None:
    """Say what happened to one call: every attempt, refusal and change.

    CALL is its id, as the header x-keyturn-call, the log and `keyturn usage --by call` have it, or the first 8 or more
    characters of it. Exits with 1 when no call is called so, or more than one.
    """
    from keyturn.dispatch import call_named
    from keyturn.errors import BadRequest

    from .recorded import ask_story

    try:
        named = call_named(call)
    except BadRequest as error:
        raise click.UsageError(error.message) from error
    found = ask_story(read_config(Place(**place)), named)
    if found["story"] is None:
        for line in _unknown(call, found):
            say(line)
        sys.exit(FAILED)
    if as_json:
        print_json(found["story"])
        return
    for line in _told(found["story"]):
        click.echo(line)


def _told(story: dict[str, Any]) -> Iterator[str]:
    yield f"call {story['call']}, attempts: {len(story['attempts'])}"
    caller = f" by {story['caller']}" if story["caller"] else ""
    took = "" if story["ms"] is None else f", {story['ms']:,.0f} ms"
    yield f"{_time(story)}, {story['route'] or '-'}{caller}: {_status(story)}{took}"
    yield from trail_lines(story)


def _status(story: dict[str, Any]) -> str:
    if story["status"] is None:
        return "not over: it is under way, or ended with a crash"
    return f"{story['status']} {story['code']}".rstrip()


def _time(row: dict[str, Any]) -> str:
    return f"{str(row['at'])[:19].replace('T', ' ')} UTC"


def _unknown(call: str, found: dict[str, Any]) -> Iterator[str]:
    if found["alike"]:
        yield f"More than one call begins with {call}; the latest are:"
    elif found["near"]:
        yield f"No call is called {call}; the latest are:"
    else:
        yield f"No call is called {call}, and none is recorded."
    for row in found["near"]:
        yield f"  {row['call']}  {_time(row)}  {row['route'] or '-'}  {_status(row)}"
