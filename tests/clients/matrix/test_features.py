"""What models are used for, through every client at every upstream: text, tools, images, JSON by a schema, thinking."""

from __future__ import annotations

import re

import pytest

from tests.support.serving import Upstreams

from .cells import UPSTREAMS, Upstream, cells
from .clients import MODES, PNG, SIMULATED, Client, Mode

TOLD = "This is the Keyturn simulator"
THOUGHT = "Thinking about it."
EITHER = pytest.mark.parametrize("mode", MODES)


def assert_spoken(upstreams: Upstreams, upstream: Upstream, model: str, mode: Mode, times: int = 1) -> None:
    """The provider was asked so often, in its dialect, and had nothing to complain about."""
    seen = upstreams.seen()
    wanted = upstream.path(model, stream=mode != "plain")
    assert [(each.provider, each.dialect, each.path) for each in seen] == [
        (upstream.provider, upstream.dialect, wanted)
    ] * times
    assert [(each.status, each.result, each.stream) for each in seen] == [(200, "served", mode != "plain")] * times


@cells("plain")
def test_a_plain_answer(client: Client, upstream: Upstream, upstreams: Upstreams) -> None:
    turn = client.ask(upstream.name, client.prompt("Hello there"))
    assert turn.text == f"{TOLD} ({upstream.name}): … You said: Hello there"
    assert (turn.finish, turn.calls) == (client.finishes[0], [])
    assert_spoken(upstreams, upstream, upstream.model, "plain")
    [seen] = upstreams.seen()
    assert turn.tokens == (seen.input_tokens, seen.output_tokens)


@cells("stream")
@pytest.mark.parametrize("mode", ["stream", "helper"])
def test_a_streamed_answer(client: Client, upstream: Upstream, mode: Mode, upstreams: Upstreams) -> None:
    turn = client.ask(upstream.name, client.prompt("Hello there"), mode)
    assert turn.text == f"{TOLD} ({upstream.name}): … You said: Hello there"
    assert (turn.finish, turn.calls) == (client.finishes[0], [])
    assert turn.parts > 5
    assert_spoken(upstreams, upstream, upstream.model, mode)
    [seen] = upstreams.seen()
    assert turn.tokens == (seen.input_tokens, seen.output_tokens)


@EITHER
@cells("tool")
def test_a_tool_is_called_and_answered(client: Client, upstream: Upstream, mode: Mode, upstreams: Upstreams) -> None:
    history = client.prompt('Please [call: weather {"city": "Zürich"}]')
    first = client.ask(upstream.name, history, mode, tools=True)
    assert [(call.name, call.arguments) for call in first.calls] == [("weather", {"city": "Zürich"})]
    assert (first.finish, first.text) == (client.finishes[1], "")

    history += [*first.said, *client.results(first, ["18 degrees"])]
    last = client.ask(upstream.name, history, mode, tools=True)
    assert "The tool answered: 18 degrees" in last.text
    assert (last.finish, last.calls) == (client.finishes[0], [])
    assert_spoken(upstreams, upstream, upstream.model, mode, times=2)


@EITHER
@cells("parallel")
def test_two_tools_at_once(client: Client, upstream: Upstream, mode: Mode, upstreams: Upstreams) -> None:
    prompt = '[call: weather {"city": "Rome"}] [call: clock {"zone": "CET"}] [then: weather {"city": "Oslo"}]'
    history = client.prompt(prompt)
    first = client.ask(upstream.name, history, mode, tools=True)
    called = [(call.name, call.arguments) for call in first.calls]
    assert called == [("weather", {"city": "Rome"}), ("clock", {"zone": "CET"})]

    history += [*first.said, *client.results(first, ["18 degrees", "noon"])]
    second = client.ask(upstream.name, history, mode, tools=True)
    assert [(call.name, call.arguments) for call in second.calls] == [("weather", {"city": "Oslo"})]
    history += [*second.said, *client.results(second, ["-3 degrees"])]
    last = client.ask(upstream.name, history, mode, tools=True)
    assert "The tool answered: -3 degrees" in last.text
    assert_spoken(upstreams, upstream, upstream.model, mode, times=3)
    body = upstreams.seen()[-1].body.decode()
    assert body.index("18 degrees") < body.index("noon") < body.index("-3 degrees")


@cells("image")
def test_an_image(client: Client, upstream: Upstream, upstreams: Upstreams) -> None:
    turn = client.ask(upstream.name, client.prompt("What is this?", image=True))
    assert f"image seen: image/png, {len(PNG)} bytes" in turn.text
    assert "You said: What is this?" in turn.text
    assert_spoken(upstreams, upstream, upstream.model, "plain")


@EITHER
@cells("schema")
def test_an_answer_by_a_schema(client: Client, upstream: Upstream, mode: Mode, upstreams: Upstreams) -> None:
    turn = client.ask(upstream.name, client.prompt("The weather?"), mode, weather=True)
    assert turn.parsed == SIMULATED
    assert_spoken(upstreams, upstream, upstream.model, mode)


@EITHER
@cells("reasoning")
def test_thinking_and_its_signature(client: Client, upstream: Upstream, mode: Mode, upstreams: Upstreams) -> None:
    """Thinking is shown, and what proves it comes back to the upstream that gave it: it would refuse another's."""
    for model in (upstream.model, *upstream.others):
        upstreams.forget()
        name, thinking = f"{upstream.provider}/{model}", client.thinking(model)
        history = client.prompt("[call: clock {}] [then: weather {}]")
        for result in ("noon", "18 degrees"):
            turn = client.ask(name, history, mode, tools=True, thinking=thinking)
            assert turn.thinking.strip() == THOUGHT or lost(client, mode, model, result)
            history += [*turn.said, *client.results(turn, [result])]
        turn = client.ask(name, history, mode, tools=True, thinking=thinking)
        assert "The tool answered: 18 degrees" in turn.text
        turn = client.ask(name, [*history, *turn.said, *client.prompt("And now?")], mode, tools=True, thinking=thinking)
        assert turn.thinking.strip() == THOUGHT
        assert "You said: And now?" in turn.text
        assert_spoken(upstreams, upstream, model, mode, times=4)
        unsigned = upstream.dialect == "openai_chat" or "gemini-2.5" in model
        if not unsigned and not (client.dialect == "openai_chat" and mode == "stream"):
            assert returned(upstreams), "no signature came back"


def lost(client: Client, mode: Mode, model: str, result: str) -> bool:
    """A program that keeps texts and calls alone sends no thinking back: Claude with a budget of it then goes on
    without it until the turn is over."""
    return (client.dialect, mode, "haiku" in model, result) == ("openai_chat", "stream", True, "18 degrees")


def returned(upstreams: Upstreams) -> bool:
    """Whether the last request carried signatures of the upstream."""
    return re.search(rb"sim[-+]\w+[-+]", upstreams.seen()[-1].body) is not None  # the SDK of Gemini writes plain base64


@pytest.mark.parametrize("mode", ["plain", "stream"])
@cells("reasoning", [("openai_chat", upstream) for upstream in UPSTREAMS])
def test_an_effort_alone(client: Client, upstream: Upstream, mode: Mode, upstreams: Upstreams) -> None:
    """OpenAI's own `reasoning_effort` makes a model think; it does not ask to see it."""
    history, effort = client.prompt("[call: clock {}]"), {"reasoning_effort": "low"}
    turn = client.ask(upstream.name, history, mode, tools=True, thinking=effort)
    history += [*turn.said, *client.results(turn, ["noon"])]
    turn = client.ask(upstream.name, history, mode, tools=True, thinking=effort)
    assert "The tool answered: noon" in turn.text
    assert_spoken(upstreams, upstream, upstream.model, mode, times=2)


@cells("parallel")
def test_calls_that_come_in_pieces(client: Client, upstream: Upstream, upstreams: Upstreams) -> None:
    """Every event of the upstream by itself: what a client's format only shows later is no empty answer."""
    upstreams.script({"kind": "chat", "pace": 0.002})
    try:
        history = client.prompt('[call: weather {"city": "Rome"}] [call: clock {"zone": "CET"}]')
        turn = client.ask(upstream.name, history, "stream", tools=True)
    finally:
        upstreams.script()
    called = [(call.name, call.arguments) for call in turn.calls]
    assert called == [("weather", {"city": "Rome"}), ("clock", {"zone": "CET"})]
