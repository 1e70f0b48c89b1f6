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
    from keyturn.core import Call
    from keyturn.dispatch import Gateway


HELD = ("unfinished", "crashed")
"""Meanings of attempts of which only what was held for them is known."""


class Answer(NamedTuple):
    """What came back, with the trail of the call where it is known."""

    status: int
    headers: dict[str, str]
    body: bytes
    trail: dict[str, Any] | None


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
        status, headers, body = gateway.send(
            "/v1/chat/completions", payload, {"authorization": f"Bearer {key}"}, patience
        )
        told = gateway.ask("/admin/trace", {"call": headers.get("x-keyturn-call")}) if trace else None
        answer = Answer(status, headers, body, told)
    else:
        answer = asyncio.run(_ask_here(config, payload))
    if trace:
        for line in _trace(answer):
            say(line)
    try:
        read = json.loads(answer.body)
    except ValueError as error:
        raise KeyturnError(f"an answer came that is no JSON (status {answer.status})") from error
    if answer.status != 200:
        raise Failure(error_text(read, answer.status))
    click.echo(_text(read))


def _caller_key(config: Config) -> str:
    from keyturn.config import DataFolder

    key = config.caller_key or DataFolder(config.data).existing_caller_key()
    return key.reveal() if key else ""


async def _ask_here(config: Config, payload: dict[str, Any]) -> Answer:
    from keyturn.dispatch import read_call

    from .pool import open_pool, own_folder

    call = read_call("chat", json.dumps(payload).encode(), {})
    folder = own_folder(config)
    try:
        return await _answered(open_pool(config, folder), call)
    finally:
        if folder is not None:
            folder.release()


async def _answered(gateway: Gateway, call: Call) -> Answer:
    from keyturn.core import Caller
    from keyturn.dispatch import new_id

    call_id = new_id(gateway.clock.wall())
    try:
        await gateway.open()
        reply = await gateway.handle(call, Caller(), call_id)
        headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
        return Answer(reply.status, headers, reply.body, gateway.recent[call_id].told())
    finally:
        await gateway.close()


def _trace(answer: Answer) -> Iterator[str]:
    """What happened, a line each: provider → model → key → meaning → milliseconds."""
    headers, trail = answer.headers, answer.trail
    yield f"call {headers.get('x-keyturn-call', '-')}, attempts: {headers.get('x-keyturn-attempts', '0')}"
    if trail is None:
        return
    yield from trail_lines(trail)


def trail_lines(trail: dict[str, Any]) -> Iterator[str]:
    """A trail, as `Trail.told` gives it, as text."""
    for number, attempt in enumerate(trail["attempts"], 1):
        status = f" {attempt['status']}" if attempt["status"] else ""
        line = f"{number}. {attempt['provider']} → {attempt['model']} → {attempt['key']} → {attempt['meaning']}{status}"
        took = "" if attempt["ms"] is None else f" → {attempt['ms']:.0f} ms"
        again = " (sent again)" if attempt["resend"] else ""
        yield line + took + again + _used(attempt) + (f": {attempt['detail']}" if attempt["detail"] else "")
    if trail["waited_ms"]:
        yield f"waited {trail['waited_ms'] / 1000:.1f} s for a key{_expected(trail.get('wait') or {})}"
    for line in (*trail["refusals"], *trail["notes"]):
        yield f"- {line}"


def _expected(wait: dict[str, Any]) -> str:
    """`, at place 4 of the line, 3.2 s expected`, as far as it is known."""
    said = "" if wait.get("position") is None else f", at place {wait['position']} of the line"
    return said + ("" if wait.get("expected_ms") is None else f", {wait['expected_ms'] / 1000:.1f} s expected")


def _used(attempt: dict[str, Any]) -> str:
    """What an attempt used, as far as the trail says: ` (first token after 120 ms, 24+118 tokens, $0.000012)`."""
    said = []
    if attempt.get("first_token_ms") is not None:
        said.append(f"first token after {attempt['first_token_ms']:.0f} ms")
    if attempt.get("input") or attempt.get("output"):
        about = "" if attempt["exact"] else "about "
        said.append(f"{about}{attempt['input']}+{attempt['output']} tokens")
    if attempt.get("cost_nano") is not None:
        from .tables import in_dollars

        held = "held " if attempt["meaning"] in HELD else ""
        said.append(f"{held}${in_dollars(attempt['cost_nano'])}")
    return f" ({', '.join(said)})" if said else ""


def _text(body: Any) -> str:
    """The text of a completion; the message as JSON when it has none, as with tool calls."""
    try:
        message = body["choices"][0]["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise KeyturnError("the answer holds no message") from error
    return content if isinstance(content, str) and content else json.dumps(message, indent=2, ensure_ascii=False)
