"""`keyturn chat`: one question, through the running gateway or through the pool inside this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keyturn.errors import KeyturnError

from .entry import Failure
from .output import say
from .setup import Place, place_options, read_config

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Trail


class Answer(NamedTuple):
    """What came back, with the trail of the call where it is known."""

    status: int
    headers: dict[str, str]
    body: bytes
    trail: Trail | None


@click.command()
@click.option("-m", "--model", help="The route: provider/model, or a model id.")
@click.option("--trace", is_flag=True, help="Print what happened: every attempt, refusal and change.")
@click.argument("text", nargs=-1, required=True)
@place_options
def command(model: str | None, trace: bool, text: tuple[str, ...], **place: Any) -> None:
    """Ask one question and print the answer."""
    from .live import error_text, find_gateway
    from .pool import model_to_ask

    config = read_config(Place(**place))
    chosen = model_to_ask(config, model)
    payload = {"model": chosen, "messages": [{"role": "user", "content": " ".join(text)}]}
    gateway = find_gateway(config, "the providers are asked from here")
    if gateway is not None:
        key = _caller_key(config)
        patience = config.timeouts.total + config.timeouts.queue_wait
        answer = Answer(
            *gateway.send("/v1/chat/completions", payload, {"authorization": f"Bearer {key}"}, patience), None
        )
    else:
        answer = asyncio.run(_ask_here(config, payload))
    if trace:
        for line in _trace(answer):
            say(line)
    try:
        body = json.loads(answer.body)
    except ValueError as error:
        raise KeyturnError(f"an answer came that is no JSON (status {answer.status})") from error
    if answer.status != 200:
        raise Failure(error_text(body, answer.status))
    click.echo(_text(body))


def _caller_key(config: Config) -> str:
    from keyturn.config import DataFolder

    key = config.caller_key or DataFolder(config.data).existing_caller_key()
    return key.reveal() if key else ""


async def _ask_here(config: Config, payload: dict[str, Any]) -> Answer:
    from keyturn.core import Caller
    from keyturn.dispatch import CallEnded, Event, new_id, read_call

    from .pool import open_pool

    call = read_call("chat", json.dumps(payload).encode(), {})
    gateway = open_pool(config)
    trails: list[Trail] = []

    def remember(event: Event) -> None:
        if isinstance(event, CallEnded):
            trails.append(event.trail)

    gateway.events.subscribe(remember)
    try:
        reply = await gateway.handle(call, Caller(), new_id(gateway.clock.wall()))
        headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
        return Answer(reply.status, headers, reply.body, trails[0])
    finally:
        await gateway.close()


def _trace(answer: Answer) -> Iterator[str]:
    """What happened, a line each; through a gateway only what its headers and its error bodies tell."""
    headers = answer.headers
    yield f"call {headers.get('x-keyturn-call', '-')}, attempts: {headers.get('x-keyturn-attempts', '?')}"
    if answer.trail is not None:
        yield from trail_lines(answer.trail)
        return
    for number, attempt in enumerate(_attempts(answer.body), 1):
        yield f"{number}. {_step(attempt)}"
    if answer.status == 200:
        yield _step(
            {name: headers.get(f"x-keyturn-{name}") for name in ("provider", "model", "key")} | {"meaning": "ok"}
        )
        if headers.get("x-keyturn-attempts") != "1":
            yield "the gateway's log tells of the attempts before this one"


def trail_lines(trail: Trail) -> Iterator[str]:
    """A trail as text: provider → model → key → meaning → milliseconds."""
    for number, attempt in enumerate(trail.attempts, 1):
        ended = attempt.ended if attempt.ended is not None else trail.ended
        took = "" if ended is None else f" → {round((ended - attempt.started) * 1000)} ms"
        again = " (sent again)" if attempt.resend else ""
        yield f"{number}. {_step(attempt.brief())}{took}{again}" + (f": {attempt.detail}" if attempt.detail else "")
    if trail.waited:
        yield f"waited {trail.waited:.1f} s for a key"
    for line in (*trail.refusals, *trail.notes):
        yield f"- {line}"


def _step(attempt: dict[str, Any]) -> str:
    status = f" {attempt['status']}" if attempt.get("status") else ""
    return f"{attempt['provider']} → {attempt['model']} → {attempt['key']} → {attempt['meaning']}{status}"


def _attempts(body: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)["error"]["keyturn"]["attempts"]
    except (ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _text(body: Any) -> str:
    """The text of a completion; the message as JSON when it has none, as with tool calls."""
    try:
        message = body["choices"][0]["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise KeyturnError("the answer holds no message") from error
    return content if isinstance(content, str) and content else json.dumps(message, indent=2, ensure_ascii=False)
