"""`keyturn trace CALL`: what happened to one call, attempt by attempt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from .chat import trail_lines
from .entry import FAILED
from .output import json_option, print_json, printable, say
from .setup import Place, place_options, read_config


@click.command()
@click.argument("call")
@place_options
@json_option
def command(call: str, as_json: bool, **place: Any) -> None:
    """Say what happened to one call: every attempt, refusal and change, how keys were chosen, and its deadlines.

    CALL is its id, as the header x-keyturn-call, the log and `keyturn usage --by call` have it, or the last 6 or more
    characters of it, or the first 8 or more: ids begin with their time, so those of one minute begin alike. Exits with
    1 when no call is called so, or more than one.
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
            say(printable(line))
        sys.exit(FAILED)
    if as_json:
        print_json(found["story"])
        return
    for line in _told(found["story"]):
        click.echo(printable(line))


def _told(story: dict[str, Any]) -> Iterator[str]:
    yield f"call {story['call']}, attempts: {len(story['attempts'])}"
    caller = f" by {story['caller']}" if story["caller"] else ""
    took = "" if story["ms"] is None else f", {story['ms']:,.0f} ms"
    yield f"{_time(story)}, {story['route'] or '-'}{caller}: {_status(story)}{took}"
    yield from trail_lines(story)
    yield from _circumstances(story)


def _circumstances(story: dict[str, Any]) -> Iterator[str]:
    """What a gateway remembers of its latest calls: the plan, how keys were chosen, the deadlines."""
    if len(story.get("plan") or ()) > 1:
        how = "" if story["ordered"] == "in_order" else f" ({story['ordered']} first)"
        yield f"- planned{how}: {', '.join(story['plan'])}"
    for number, attempt in enumerate(story["attempts"], 1):
        pick, limit = attempt.get("pick"), attempt.get("content_by_ms")
        said = [f"{attempt['key']} was chosen of {_chosen(pick)}"] if pick is not None else []
        if limit is not None:
            said.append(f"its first content was to come within {limit / 1000:.1f} s")
        if said:
            yield f"- attempt {number}: {'; '.join(said)}"
    if story.get("shared"):
        yield f"- shared answer: {story['shared']}"
    if (deadlines := story.get("deadlines")) is not None:
        content, wait = deadlines["content_ms"] / 1000, deadlines["wait_ms"] / 1000
        until = f"{content:.0f} s until its first content, " if deadlines["content_ms"] < deadlines["total_ms"] else ""
        yield f"- deadlines: {deadlines['total_ms'] / 1000:.0f} s in all, {until}{wait:.0f} s waiting for a key"


def _chosen(pick: dict[str, Any]) -> str:
    from keyturn.core import Pick

    pace = None if pick["pace_ms"] is None else pick["pace_ms"] / 1000
    return Pick(pick["ready"], pick["load"], pick["active"], pace).said()


def _status(story: dict[str, Any]) -> str:
    if story["status"] is None:
        return "not over: it is under way, or ended with a crash"
    return f"{story['status']} {story['code']}".rstrip()


def _time(row: dict[str, Any]) -> str:
    return f"{str(row['at'])[:19].replace('T', ' ')} UTC"


def _unknown(call: str, found: dict[str, Any]) -> Iterator[str]:
    if found["alike"]:
        yield f"More than one call begins or ends with {call}; give more of its id, its last 6 characters for instance:"
    elif found["near"]:
        yield f"No call is called {call}; the latest are:"
    else:
        yield f"No call is called {call}, and none is recorded."
    for row in found["near"]:
        yield f"  {row['call']}  {_time(row)}  {row['route'] or '-'}  {_status(row)}"
