"""Streams that are cut on routes that hold calls back, and on routes whose texts go on elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import Trail
from keyturn.dispatch import new_id, read_call
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.meanings import Meaning, meaning
from tests.support.world import Answer, World

HOLDS = {"STREAM_HOLD_TOOLS": "*"}
GOES_ON = {"STREAM_CONTINUE": "*"}
BOTH = HOLDS | GOES_ON
CALLS = '[call: weather {"city":"Zürich"}] [call: weather {"city":"Rome"}]'
SAYS = "[say: I will look for it.] " + CALLS
HELLO = "Hello there"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Pair(NamedTuple):
    """A client's door and the provider that answers."""

    door: str
    provider: str
    model: str
    query: str = "alt=sse"


CHAT = Pair("chat", "groq", "llama-3.1-8b-instant")
PAIRS = {
    "chat": CHAT,
    "chat-anthropic": Pair("chat", "anthropic", "claude-sonnet-4-5"),
    "chat-gemini": Pair("chat", "gemini", "gemini-2.5-flash"),
    "messages": Pair("messages", "anthropic", "claude-sonnet-4-5"),
    "messages-groq": Pair("messages", "groq", "llama-3.1-8b-instant"),
    "responses-groq": Pair("responses", "groq", "llama-3.1-8b-instant"),
    "gemini": Pair("gemini", "gemini", "gemini-2.5-flash"),
    "gemini-array": Pair("gemini", "gemini", "gemini-2.5-flash", ""),
    "gemini-groq": Pair("gemini", "groq", "llama-3.1-8b-instant"),
}
RESPONSES = Pair("responses", "openai", "gpt-4o")
"""Relayed; its upstream cannot be told to go on."""


def body_of(pair: Pair, text: str, *, shaped: bool = False, **more: Any) -> dict[str, Any]:
    """A streamed question with a tool, or with *shaped* for JSON."""
    asked: dict[str, Any] = {"model": f"{pair.provider}/{pair.model}", "stream": True}
    form: dict[str, Any]
    tool: dict[str, Any]
    if pair.door == "gemini":
        asked = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        form = {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}}
        tool = {"functionDeclarations": [{"name": "weather", "parametersJsonSchema": SCHEMA}]}
    elif pair.door == "responses":
        asked |= {"input": text, "store": False}
        form = {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}}}
        tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
    elif pair.door == "messages":
        asked |= {"max_tokens": 500, "messages": [{"role": "user", "content": text}]}
        form = {
            "output_config": {"format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}}}
        }
        tool = {"name": "weather", "input_schema": SCHEMA}
    else:
        asked |= {"messages": [{"role": "user", "content": text}]}
        form = {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}}
        tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    return {**asked, **(form if shaped else {"tools": [tool]}), **more}


async def ask(world: World, pair: Pair, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    argument = f"{pair.provider}/{pair.model}:streamGenerateContent" if pair.door == "gemini" else ""
    return await world.send(pair.door, body, argument=argument, query=pair.query, headers=headers)


def trail_of(world: World) -> Trail:
    return next(reversed(world.gateway.recent.values()))


class Told(NamedTuple):
    answer: Answer
    found: Meaning
    trail: Trail
    keys: list[str]
    """Of the attempts, as the upstream saw them."""


def run(
    pair: Pair,
    text: str,
    *faults: Fault,
    environ: dict[str, str] = BOTH,
    keys: int = 2,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Told:
    """One call through a pool of *keys* keys that meets *faults*."""

    async def main() -> Told:
        async with World({pair.provider: keys}, environ=environ, faults=faults) as world:
            answer = await ask(world, pair, body_of(pair, text, **more), headers)
            assert answer.status == 200, answer.body
            seen = [each.key for each in world.seen()]
            return Told(answer, meaning(pair.door, answer.body), trail_of(world), seen)

    return virtual.run(main)


def cut(at: int | None = None, *, chunk: int | None = None, does: Any = "reset", **more: Any) -> Fault:
    return Fault(times=1, does=does, at_byte=at, at_chunk=chunk, **more)


def same(one: Meaning, other: Meaning) -> bool:
    """The same answer: its words, its calls, why it ended."""
    return (one.text, one.calls, one.stop) == (other.text, other.calls, other.stop)


# --- calls of tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PAIRS, "responses"])
def test_a_call_that_is_cut_anywhere_is_made_anew_and_nobody_has_seen_a_part_of_it(name: str) -> None:
    pair = PAIRS.get(name, RESPONSES)
    whole = run(pair, CALLS, environ=HOLDS)
    assert whole.found.calls == [("weather", {"city": "Zürich"}), ("weather", {"city": "Rome"})]
    for chunk in range(1, 9 if pair.provider != "gemini" else 3, 2):
        told = run(pair, CALLS, cut(chunk=chunk), environ=HOLDS)
        assert told.found.whole, (chunk, told.trail.notes)
        assert same(told.found, whole.found), chunk
        assert not told.trail.code


@given(at=st.integers(1, 2500), name=st.sampled_from([*PAIRS, "responses"]), does=st.sampled_from(["reset", "end"]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_whatever_byte_a_stream_breaks_off_at_its_client_has_all_of_it_or_is_told_so(
    at: int, name: str, does: str
) -> None:
    pair = PAIRS.get(name, RESPONSES)
    for text in (CALLS, SAYS, HELLO):
        told = run(pair, text, cut(at, does=does))
        found, whole = told.found, _WHOLE.setdefault((name, text), None) or run(pair, text).found
        _WHOLE[name, text] = whole
        assert found.whole != found.error
        if found.whole:
            assert same(found, whole), (text, told.answer.body)
        else:
            assert whole.text.startswith(found.text)
            assert not found.calls
            assert not found.stop
        assert found.whole == (not told.trail.code)
        if name != "responses":  # everybody else can be told to go on
            assert found.whole, (text, told.trail.notes)


_WHOLE: dict[tuple[str, str], Meaning | None] = {}


def test_without_the_setting_a_call_that_is_cut_ends_with_the_error_event() -> None:
    told = run(CHAT, CALLS, cut(chunk=3), environ={})
    assert told.found.error
    assert told.found.calls
    assert len(told.keys) == 1
    assert not told.trail.notes


def test_a_route_that_is_not_named_and_a_call_without_tools_are_relayed_as_ever() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"STREAM_HOLD_TOOLS": "groq/llama-3*,senior"}) as world:
            for body in (body_of(CHAT._replace(model="gemma2-9b-it"), CALLS), body_of(CHAT, HELLO, tools=[])):
                call = read_call("chat", json.dumps(body).encode(), {})
                reply = await world.gateway.handle(call, world.gateway.config.default_caller, new_id(0))
                assert type(reply.stream).__name__ == "RelayStream"
                reply.close()

    virtual.run(main)


def test_text_flows_while_the_call_behind_it_is_held_back() -> None:
    told = run(CHAT, SAYS, Fault(pace=1.0), environ=HOLDS)
    pieces = [piece for piece in told.answer.chunks if b'"content":"' in piece or b'"content": "' in piece]
    assert len(pieces) >= 5
    calls = [piece for piece in told.answer.chunks if b"tool_calls" in piece]
    assert len(calls) == 1, "in one piece, with the end"
    assert b"[DONE]" in calls[0]


def test_a_text_that_was_told_is_gone_on_with_when_the_call_behind_it_is_cut() -> None:
    told = run(CHAT, SAYS, cut(chunk=9), environ=HOLDS)
    assert told.found.text == "I will look for it."
    assert told.found.calls == [("weather", {"city": "Zürich"}), ("weather", {"city": "Rome"})]
    assert "went on behind 19 characters of text" in told.trail.notes[0]
    assert told.found.stop == "tool_calls"


def test_a_text_itself_does_not_go_on_on_a_route_that_only_holds_back() -> None:
    told = run(CHAT, SAYS, cut(chunk=3), environ=HOLDS)
    assert told.found.error
    assert told.found.text == "I will"
    assert "`continue` does not name this route" in told.trail.notes[0]


@pytest.mark.parametrize("name", ["chat", "messages", "gemini", "gemini-array", "responses", "messages-groq"])
def test_json_that_is_cut_is_made_anew(name: str) -> None:
    pair = PAIRS.get(name, RESPONSES)
    whole = run(pair, HELLO, environ=HOLDS, shaped=True)
    assert json.loads(whole.found.text) == {"city": "simulated"}
    for at in range(60, 1800, 331):
        told = run(pair, HELLO, cut(at), environ=HOLDS, shaped=True)
        assert told.found.whole, (at, told.trail.notes)
        assert same(told.found, whole.found), at
    assert not whole.trail.notes


def test_json_that_does_not_parse_is_relayed_as_it_came_and_noted() -> None:
    told = run(CHAT, HELLO, environ=HOLDS, shaped=True, max_tokens=1)
    assert told.found.stop == "length"
    assert told.trail.notes == ["groq/llama-3.1-8b-instant: the text is no JSON; relayed as it came"]


def test_thinking_flows_and_that_of_the_second_attempt_follows_it() -> None:
    pair = Pair("messages", "anthropic", "claude-sonnet-4-5")
    thinking = {"type": "enabled", "budget_tokens": 1024}
    whole = run(pair, CALLS, environ=HOLDS, thinking=thinking, max_tokens=4000).found
    assert whole.thought
    for chunk in range(8, 16):
        told = run(pair, CALLS, cut(chunk=chunk), environ=HOLDS, thinking=thinking, max_tokens=4000)
        assert told.found.whole, (chunk, told.trail.notes)
        assert same(told.found, whole)
        assert told.found.thought in (whole.thought, whole.thought * 2)


def test_who_waits_for_what_is_held_back_is_sent_comments() -> None:
    slow = Fault(pace=3.0)
    told = run(CHAT, CALLS, slow, environ=HOLDS)
    assert told.answer.body.count(b": keyturn held back until it is whole\n\n") >= 2
    told = run(PAIRS["gemini-groq"], CALLS, slow, environ=HOLDS)
    assert b": " not in told.answer.body.replace(b"data: ", b"").replace(b'": ', b"")
    told = run(PAIRS["gemini-array"], SAYS, slow, environ=HOLDS)
    json.loads(told.answer.body)


def test_more_than_may_be_held_back_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.dispatch.holding.MOST_HELD_BACK", 400)
    told = run(CHAT, CALLS, Fault(pace=0.1), environ=HOLDS)
    assert told.found.whole
    assert told.trail.notes == ["more than 400 bytes were held back: they flow from here on"]
    told = run(CHAT, CALLS, cut(chunk=6, pace=0.1), environ=HOLDS)
    assert told.found.error
    assert "the client has a part" in told.trail.notes[-1]


def test_an_array_that_flowed_from_its_first_byte_stays_one_when_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.dispatch.holding.MOST_HELD_BACK", 50)
    for at in range(250, 650, 100):
        told = run(PAIRS["gemini-array"], CALLS, cut(at), environ=HOLDS)
        assert told.found.error != told.found.whole
        json.loads(told.answer.body)


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PAIRS))
def test_a_text_that_is_cut_goes_on_where_it_was_cut(name: str) -> None:
    pair = PAIRS[name]
    whole = run(pair, HELLO, environ=GOES_ON).found
    for chunk in range(2, 16, 4):
        told = run(pair, HELLO, cut(chunk=chunk), environ=GOES_ON)
        assert told.found.whole, (chunk, told.trail.notes)
        assert same(told.found, whole), chunk
        if len(told.keys) == 2:
            assert told.keys[0] != told.keys[1]


def test_the_seam_is_marked_and_what_all_attempts_used_is_told() -> None:
    whole = run(CHAT, HELLO, stream_options={"include_usage": True}).found
    told = run(CHAT, HELLO, cut(chunk=5), stream_options={"include_usage": True})
    assert told.answer.body.count(b": keyturn continued on groq/llama-3.1-8b-instant\n\n") == 1
    assert whole.usage is not None
    assert told.found.usage is not None
    assert told.found.usage[0] > 2 * whole.usage[0]
    assert told.found.usage[1] >= whole.usage[1]
    assert [each.meaning for each in told.trail.attempts] == ["server_error", "ok"]
    assert told.trail.notes[0].startswith("attempt 1 was cut; groq/llama-3.1-8b-instant with groq-")
    last = told.trail.attempts[1].usage
    assert last is not None
    assert last.exact


def test_two_cuts_are_mended_and_a_third_ends_it() -> None:
    assert run(CHAT, HELLO, cut(chunk=4), cut(chunk=3), keys=4).found.whole
    told = run(CHAT, HELLO, cut(chunk=4), cut(chunk=3), cut(chunk=3), keys=4)
    assert told.found.error
    assert "it was cut 3 times" in told.trail.notes[-1]
    assert told.trail.code == "upstream_interrupted"


def test_the_only_key_is_asked_again() -> None:
    told = run(CHAT, HELLO, cut(chunk=4), keys=1)
    assert told.found.whole
    assert [each.resend for each in told.trail.attempts] == [False, True]


def test_nobody_left_to_go_on_ends_with_the_error_event() -> None:
    told = run(CHAT, HELLO, cut(chunk=4), Fault(error="invalid_key"), keys=2)
    assert told.found.error
    assert told.found.text == "This is the"
    assert told.answer.body.count(b'"error"') == 1
    error = json.loads(told.answer.events[-1])["error"]
    assert error["code"] == "upstream_interrupted"
    assert [each["meaning"] for each in error["keyturn"]["attempts"]] == ["server_error", "invalid_key"]


def test_the_header_asks_for_it_and_forbids_it() -> None:
    assert run(CHAT, HELLO, cut(chunk=4), environ={}, headers={"x-keyturn-on-cut": "continue"}).found.whole
    assert run(CHAT, HELLO, cut(chunk=4), headers={"x-keyturn-on-cut": "error"}).found.error

    async def wrong() -> None:
        async with World({"groq": 1}) as world:
            with pytest.raises(Exception, match="continue or error"):
                await ask(world, CHAT, body_of(CHAT, HELLO), {"x-keyturn-on-cut": "restart"})

    virtual.run(wrong)


@pytest.mark.parametrize(
    ("pair", "more", "why"),
    [
        (CHAT, {"n": 2}, "several answers"),
        (CHAT, {"logprobs": True}, "log probabilities"),
        (CHAT, {"shaped": True}, "is to be JSON"),
        (Pair("chat", "openai", "gpt-4o"), {}, "nobody can be told to go on"),
        (Pair("chat", "anthropic", "claude-opus-4-7"), {}, "nobody can be told to go on"),
        (Pair("chat", "groq", "openai/gpt-oss-20b"), {}, "nobody can be told to go on"),
        (RESPONSES, {}, "nobody can be told to go on"),
    ],
)
def test_what_must_not_be_gone_on_with_ends_with_the_error_event(pair: Pair, more: dict[str, Any], why: str) -> None:
    told = run(pair, HELLO, cut(chunk=3 if pair.door == "chat" else 8), environ=GOES_ON, **more)
    assert b"upstream_interrupted" in told.answer.body
    assert why in told.trail.notes[-1]
    assert len(told.keys) == 1


def test_a_call_that_flowed_forbids_it() -> None:
    told = run(CHAT, CALLS, cut(chunk=4), environ=GOES_ON)
    assert told.found.error
    assert "a call of a tool is open" in told.trail.notes[-1]


ROLE = """
roles:
  helper: { description: x, model_chain: [groq/llama-3.1-8b-instant, anthropic/claude-sonnet-4-5] }
"""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_another_model_goes_on_only_where_the_route_says_so(elsewhere: bool) -> None:
    environ = GOES_ON | ({"STREAM_CONTINUE_ELSEWHERE": "helper"} if elsewhere else {})

    async def main() -> None:
        faults = [cut(chunk=4, provider="groq"), Fault(provider="groq", error="invalid_key")]
        pool = {"groq": 2, "anthropic": 1}
        async with World(pool, environ=environ, files={"roles.yaml": ROLE}, faults=faults) as world:
            body = {**body_of(CHAT, HELLO), "model": "helper"}
            found = meaning("chat", (await ask(world, CHAT, body)).body)
            assert found.whole == elsewhere
            assert found.error != elsewhere
            if elsewhere:
                assert found.text.endswith("You said: Hello there")
            answered = trail_of(world).attempts[-1].provider
            assert answered == ("anthropic" if elsewhere else "groq")

    virtual.run(main)


def test_the_deadline_of_the_call_is_no_cut_to_mend() -> None:
    async def main() -> None:
        async with World({"groq": 2}, environ=BOTH, faults=[cut(chunk=4, does="hang")]) as world:
            answer = await world.send("chat", body_of(CHAT, HELLO), timeout=5.0)
            assert meaning("chat", answer.body).error
            assert "its time is up" in trail_of(world).notes[-1]

    virtual.run(main)


# --- leaving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "cancel"])
@pytest.mark.parametrize("after", [0.0, 0.5, 2.0])
def test_who_leaves_while_another_is_asked_leaves_nothing_behind(how: str, after: float) -> None:
    """The World itself looks for reservations, calls and exchanges that are left over."""

    async def main() -> None:
        faults = [cut(chunk=4), Fault(latency=1.0, pace=0.3)]
        async with World({"groq": 2}, environ=BOTH, faults=faults) as world:
            call = read_call("chat", json.dumps(body_of(CHAT, HELLO)).encode(), {})
            reply = await world.gateway.handle(call, world.gateway.config.default_caller, new_id(0))
            stream, read = reply.stream, list[bytes]()
            assert stream is not None
            seam: asyncio.Event = asyncio.Event()

            async def reading() -> None:
                async for piece in stream:
                    read.append(piece)
                    if b"broke off" in piece:
                        seam.set()

            task = asyncio.ensure_future(reading())
            await seam.wait()
            await world.clock.sleep_until(world.clock.mono() + after)
            if how == "cancel":
                task.cancel()
                await asyncio.wait([task])
            else:
                reply.close()
                task.cancel()
                await asyncio.wait([task])
            reply.close()
            assert world.held() == 0
            assert world.gateway.inflight == 0
            assert trail_of(world).code == ("client_left" if after < 1.0 else "")

    virtual.run(main)


def test_the_record_is_written_once() -> None:
    async def main() -> None:
        async with World({"groq": 2}, environ=BOTH, faults=[cut(chunk=4)]) as world:
            ended: list[object] = []
            world.gateway.events.subscribe(ended.append)
            await ask(world, CHAT, body_of(CHAT, HELLO))
            calls = [each for each in ended if type(each).__name__ == "CallEnded"]
            assert len(calls) == 1

    virtual.run(main)
