"""The simulator as a client sees it: answers, limits, scripted faults, what it counts and how fast it notices."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gzip
import json
import math
import re
import struct
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from keyturn.errors import ConfigError
from keyturn.simulator import Fault, KeyRule, Persona, Simulator, application, fault_of
from tests.support import asgi, virtual

GROQ = "/groq/v1/chat/completions"
OPENAI = "/openai/v1/chat/completions"


def chat(text: str = "Hello there", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | more


def play(story: Callable[[Simulator], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """Run *story* with a fresh simulator in virtual time."""

    async def main() -> Any:
        return await story(Simulator(virtual.VirtualClock(), virtual.seeded(1), **options))

    return virtual.run(main)


def post(body: Any = None, *, path: str = OPENAI, key: str = "k1", **options: Any) -> asgi.Reply:
    async def story(simulator: Simulator) -> asgi.Reply:
        return await asgi.call(simulator, "POST", path, json=chat() if body is None else body, key=key)

    reply: asgi.Reply = play(story, **options)
    return reply


# Answers


def test_an_answer_is_plainly_simulated_and_echoes_the_end_of_the_prompt() -> None:
    reply = post(chat("x" * 500 + " the end"))
    message = reply.json()["choices"][0]["message"]
    assert message["content"].startswith("This is the Keyturn simulator (openai/m): … You said: xxx")
    assert message["content"].endswith("x the end")
    assert len(message["content"]) < 300


def test_usage_is_what_the_limits_are_charged() -> None:
    async def story(simulator: Simulator) -> tuple[dict[str, int], asgi.Reply]:
        first = await asgi.call(simulator, "POST", GROQ, json=chat("word " * 40), key="k")
        return first.json()["usage"], await asgi.call(simulator, "POST", GROQ, json=chat(), key="k")

    usage, second = play(story, keys={"groq": {"k": KeyRule(tpm=1000)}})
    spent = usage["total_tokens"] + second.json()["usage"]["prompt_tokens"]
    assert second.headers["x-ratelimit-remaining-tokens"] == str(1000 - spent)


def test_max_tokens_cuts_the_answer() -> None:
    choice = post(chat(max_tokens=3)).json()["choices"][0]
    assert choice["message"]["content"] == "This is the"
    assert choice["finish_reason"] == "length"


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
            "required": ["city"],
        },
    },
}


@pytest.mark.parametrize(
    ("more", "called"),
    [
        ({}, False),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, True),
        ({"tool_choice": "none", "messages": [{"role": "user", "content": "use the tool"}]}, False),
        ({"messages": [{"role": "user", "content": "use the tool"}]}, True),
        ({"messages": [{"role": "user", "content": "call get_weather"}]}, True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_when_asked_for(more: dict[str, Any], called: bool, stream: bool) -> None:
    reply = post(chat(tools=[WEATHER], stream=stream) | more)
    if stream:
        deltas = [event["choices"][0]["delta"] for event in reply.events()[:-1]]
        parts = [call for delta in deltas for call in delta.get("tool_calls", [])]
        arguments = "".join(part["function"]["arguments"] for part in parts)
        finish = reply.events()[-2]["choices"][0]["finish_reason"]
    else:
        choice = reply.json()["choices"][0]
        parts = choice["message"].get("tool_calls", [])
        arguments, finish = "".join(part["function"]["arguments"] for part in parts), choice["finish_reason"]
    assert (finish == "tool_calls") is called
    if called:
        assert parts[0]["function"]["name"] == "get_weather"
        assert json.loads(arguments) == {"city": "simulated", "unit": "celsius"}


def test_a_tool_result_is_answered_in_words() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "use the tool"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ]
    text = post(chat(tools=[WEATHER], messages=messages)).text()
    assert text.endswith("The tool answered: 21 degrees")


def test_a_json_schema_is_followed() -> None:
    schema = {
        "$defs": {"step": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 7}}}},
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 2},
            "kind": {"anyOf": [{"const": "a"}, {"type": "null"}]},
            "ok": {"type": "boolean"},
            "ratio": {"type": ["number", "null"]},
        },
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = json.loads(post(chat(response_format=wanted)).text())
    assert answer == {"steps": [{"n": 7}, {"n": 7}], "kind": "a", "ok": True, "ratio": 1}


def test_images_are_taken_and_counted() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this"}, image]}]
    reply = post(chat(messages=messages))
    assert "I was sent 1 image(s)." in reply.text()
    assert reply.json()["usage"]["prompt_tokens"] > 85


def test_several_choices() -> None:
    assert [choice["index"] for choice in post(chat(n=3)).json()["choices"]] == [0, 1, 2]
    events = post(chat(n=2, stream=True)).events()
    assert {choice["index"] for event in events[:-1] for choice in event["choices"]} == {0, 1}


def test_embeddings_as_floats_and_as_base64() -> None:
    path = "/demo/v1/embeddings"
    asked = {"model": "embed", "input": ["a", "b"], "dimensions": 8}
    plain = post(asked, path=path).json()["data"]
    packed = post(asked | {"encoding_format": "base64"}, path=path).json()["data"]
    assert [row["index"] for row in plain] == [0, 1]
    assert plain[0]["embedding"] != plain[1]["embedding"]
    assert math.hypot(*plain[0]["embedding"]) == pytest.approx(1)
    decoded = struct.unpack("<8f", base64.b64decode(packed[0]["embedding"]))
    assert list(decoded) == pytest.approx(plain[0]["embedding"], rel=1e-6)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"model":"m","messages":[]}', b'{"model":"m","messages":[1]}'])
def test_a_bad_request_is_refused_in_the_providers_words(body: bytes) -> None:
    async def story(simulator: Simulator) -> asgi.Reply:
        return await asgi.call(simulator, "POST", OPENAI, body=body, key="k")

    reply = play(story)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_unknown_models_are_not_found_where_a_list_is_given() -> None:
    assert post(models={"openai": ["gpt-x"]}).json()["error"]["code"] == "model_not_found"
    assert post(path="/demo/v1/chat/completions").status == 404
    assert post(chat(model="fast"), path="/demo/v1/chat/completions").status == 200


def test_context_length_is_checked() -> None:
    small = Persona(name="openai", context=20)
    assert post(chat("word " * 30), personas=[small]).json()["error"]["code"] == "context_length_exceeded"


def test_a_provider_is_found_by_path_or_by_host() -> None:
    async def story(simulator: Simulator) -> list[int | str]:
        found = list[int | str]()
        for path, host in (
            ("/gemini/v1beta/openai/chat/completions", "x"),
            ("/openai/v1/chat/completions", "api.groq.com:443"),
            ("/chat/completions", "x"),
            ("/groq/v1/nothing", "x"),
        ):
            reply = await asgi.call(simulator, "POST", path, json=chat(), headers=[("Host", host)])
            found.append(reply.status)
        return [*found, *(exchange.provider for exchange in simulator.log)]

    assert play(story) == [200, 200, 404, 404, "gemini", "groq"]

    async def by_host(simulator: Simulator) -> str:
        await asgi.call(
            simulator, "POST", "/v1beta/x/chat/completions", json=chat(), headers=[("host", "api.groq.com")]
        )
        return simulator.log[0].provider

    assert play(by_host) == "groq"


# Keys and limits


def test_a_minute_limit_is_kept_and_counted_as_the_simulators_own() -> None:
    async def story(simulator: Simulator) -> list[int]:
        statuses = []
        for wait in (0, 0, 0, 59, 1):
            await asyncio.sleep(wait)
            statuses.append((await asgi.call(simulator, "POST", OPENAI, json=chat(), key="k")).status)
        assert simulator.own_429 == 2
        assert simulator.stats()["own_429"] == 2
        return statuses

    rule = KeyRule(rpm=2, limiter="rolling")
    assert play(story, keys={"openai": {"k": rule}}) == [200, 200, 429, 429, 200]


def test_keys_of_one_project_share_limits_and_models_do_not() -> None:
    async def story(simulator: Simulator) -> list[int]:
        statuses = []
        for key, model in (("a", "m"), ("b", "m"), ("c", "m"), ("a", "other")):
            statuses.append((await asgi.call(simulator, "POST", OPENAI, json=chat(model=model), key=key)).status)
        return statuses

    shared = KeyRule(rpm=1, project="p")
    keys = {"a": shared, "b": shared, "c": KeyRule(rpm=1)}
    assert play(story, keys={"openai": keys}) == [200, 429, 200, 200]
    whole = KeyRule(rpm=1, project="p", per_model=False)
    assert play(story, keys={"openai": {"a": whole, "b": whole, "c": whole}}) == [200, 429, 429, 429]


def test_a_refused_request_is_charged_nowhere() -> None:
    async def story(simulator: Simulator) -> list[int]:
        statuses = []
        for wait in (0, 0, 60):
            await asyncio.sleep(wait)
            statuses.append((await asgi.call(simulator, "POST", OPENAI, json=chat(), key="k")).status)
        return statuses

    rule = KeyRule(rpm=1, rpd=2, limiter="rolling", day="rolling")
    assert play(story, keys={"openai": {"k": rule}}) == [200, 429, 200]


def test_the_providers_clock_does_not_follow_a_corrected_wall_clock() -> None:
    async def main() -> int:
        clock = virtual.VirtualClock()
        simulator = Simulator(clock, virtual.seeded(), keys={"openai": {"k": KeyRule(rpm=1, limiter="fixed")}})
        await asgi.call(simulator, "POST", OPENAI, json=chat(), key="k")
        clock.wall_shift = 3600
        return (await asgi.call(simulator, "POST", OPENAI, json=chat(), key="k")).status

    assert virtual.run(main) == 429


def test_keys_that_are_not_listed() -> None:
    assert post(key="anything").status == 200
    assert post(key="stranger", keys={"openai": {"k": KeyRule()}}).status == 401
    assert post(key="stranger", keys={"openai": {"k": KeyRule()}}, unknown=KeyRule()).status == 200


def test_a_key_may_be_kept_from_a_model() -> None:
    assert post(keys={"openai": {"k1": KeyRule(models=("other",))}}).status == 403


# The script of faults


def outcomes(fault: Fault, calls: int = 6, pause: float = 0.0) -> list[int]:
    async def story(simulator: Simulator) -> list[int]:
        statuses = []
        for _ in range(calls):
            statuses.append((await asgi.call(simulator, "POST", OPENAI, json=chat(), key="k1")).status)
            await asyncio.sleep(pause)
        return statuses

    found: list[int] = play(story, faults=[fault])
    return found


def test_which_requests_meet_a_fault() -> None:
    assert outcomes(Fault(status=503)) == [503] * 6
    assert outcomes(Fault(status=503, times=2)) == [503, 503, 200, 200, 200, 200]
    assert outcomes(Fault(status=503, skip=2, times=1)) == [200, 200, 503, 200, 200, 200]
    assert outcomes(Fault(status=503, every=3)) == [503, 200, 200, 503, 200, 200]
    assert outcomes(Fault(status=503, after=2, until=4), pause=1) == [200, 200, 503, 503, 200, 200]
    assert outcomes(Fault(status=503, share=0.5)).count(503) in (1, 2, 3, 4, 5)
    for spared in ({"provider": "groq"}, {"key": "k2"}, {"model": "x*"}, {"kind": "embeddings"}, {"stream": True}):
        assert outcomes(Fault(status=503, **spared), calls=1) == [200]
    for hit in ({"provider": "open*"}, {"key": "k*"}, {"model": "m"}, {"kind": "chat"}, {"stream": False}):
        assert outcomes(Fault(status=503, **hit), calls=1) == [503]


def test_an_error_may_be_changed_in_status_headers_and_body() -> None:
    hint = post(faults=[Fault(error="rate_limited", wait=7.2)])
    assert hint.headers["retry-after"] == "8"
    assert "try again in 7.2s" in hint.json()["error"]["message"]
    changed = post(faults=[Fault(error="overloaded", status=200)])
    assert (changed.status, changed.json()["error"]["type"]) == (200, "server_error")
    page = post(faults=[Fault(status=502, body="<html>", headers={"Content-Type": "text/html", "X-Y": "z"})])
    assert (page.status, page.body, page.headers["content-type"], page.headers["x-y"]) == (
        502,
        b"<html>",
        "text/html",
        "z",
    )


def test_a_key_quoted_in_the_error() -> None:
    reply = post(key="sk-planted-secret-1234", faults=[Fault(error="invalid_key", quirks=frozenset({"echo_key"}))])
    assert "sk-planted-secret-1234" in reply.json()["error"]["message"]


def test_latency_and_pace_pass_in_virtual_time() -> None:
    async def story(simulator: Simulator) -> tuple[float, float]:
        start = simulator.clock.mono()
        async with asgi.open_stream(simulator, "POST", OPENAI, json=chat(stream=True)) as stream:
            first = simulator.clock.mono() - start
            pieces = await stream.rest()
            return first, (simulator.clock.mono() - start - first) / (len(pieces) - 1)

    assert play(story, faults=[Fault(latency=2.0, pace=0.5)]) == (2.0, 0.5)
    assert play(story, latency=3.0, pace=0.25) == (3.0, 0.25)


def test_a_hang_before_the_status_ends_when_the_client_leaves() -> None:
    async def story(simulator: Simulator) -> tuple[float, str, int | None]:
        stream = asgi.begin(simulator, "POST", OPENAI, json=chat())
        await asyncio.sleep(30)
        assert simulator.log[0].result == "open"
        stream.leave()
        await stream.gone()
        await stream.close()
        exchange = simulator.log[0]
        assert exchange.ended is not None
        return exchange.ended - exchange.started, exchange.result, exchange.status

    assert play(story, faults=[Fault(does="hang")]) == (30.0, "cancelled", None)


@pytest.mark.parametrize("fault", [Fault(does="hang", at_chunk=3), Fault(pace=1e9), Fault(does="hang", at_byte=100)])
def test_a_client_that_leaves_a_stream_is_noticed_at_once(fault: Fault) -> None:
    async def story(simulator: Simulator) -> tuple[float, str]:
        async with asgi.open_stream(simulator, "POST", OPENAI, json=chat(stream=True)) as stream:
            await stream.chunk()
            await asyncio.sleep(5)
            stream.leave()
            await stream.gone()
        exchange = simulator.log[0]
        assert exchange.ended is not None
        return exchange.ended - exchange.started, exchange.result

    assert play(story, faults=[fault]) == (5.0, "cancelled")


def test_a_client_that_nobody_can_write_to_any_more_has_left() -> None:
    async def story(simulator: Simulator) -> tuple[str, float | None]:
        scope = {"type": "http", "method": "POST", "path": OPENAI, "headers": []}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(chat()).encode(), "more_body": False}

        async def send(message: Any) -> None:
            raise OSError("nobody is listening")

        await simulator(scope, receive, send)
        return simulator.log[0].result, simulator.log[0].ended

    assert play(story) == ("cancelled", virtual.START_MONO)


def test_an_application_that_is_cancelled_counts_the_call_and_frees_its_slot() -> None:
    async def story(simulator: Simulator) -> tuple[str, int]:
        task = asyncio.ensure_future(asgi.call(simulator, "POST", OPENAI, json=chat(), key="k"))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return simulator.log[0].result, simulator.stats()["open"]

    slot = {"openai": {"k": KeyRule(concurrency=1)}}
    assert play(story, keys=slot, faults=[Fault(does="hang")]) == ("cancelled", 0)


def test_a_reset_fails_the_application_before_or_within_the_answer() -> None:
    async def before(simulator: Simulator) -> None:
        await asgi.call(simulator, "POST", OPENAI, json=chat())

    with pytest.raises(ConnectionResetError):
        play(before, faults=[Fault(does="reset")])

    async def within(simulator: Simulator) -> int:
        async with asgi.open_stream(simulator, "POST", OPENAI, json=chat(stream=True)) as stream:
            pieces = [await stream.chunk() for _ in range(2)]
            with pytest.raises(ConnectionResetError):
                await stream.chunk()
            assert simulator.log[0].result == "faulted"
            return len(pieces)

    assert play(within, faults=[Fault(does="reset", at_chunk=2)]) == 2


def streamed(**fault: Any) -> bytes:
    quirks = frozenset(fault.pop("quirks", ()))
    return post(chat("Grüße", stream=True), faults=[Fault(quirks=quirks, **fault)]).body


def test_where_a_stream_is_cut() -> None:
    whole = streamed()
    assert streamed(does="end", at_chunk=0) == b""
    assert streamed(does="end", at_chunk=2) == b"".join(part + b"\n\n" for part in whole.split(b"\n\n")[:2])
    assert streamed(does="end", at_byte=57) == whole[:57]
    inside = streamed(does="end", at_chunk=2, inside="event")
    assert whole.startswith(inside)
    assert not inside.endswith(b"\n\n")
    torn = streamed(does="end", at_chunk=0, inside="character")
    assert whole.startswith(torn)
    with pytest.raises(UnicodeDecodeError):
        torn.decode()


def test_a_plain_answer_cut_with_and_without_its_length() -> None:
    assert len(post(faults=[Fault(does="end", at_byte=10)]).body) == 10
    truncated = post(faults=[Fault(quirks=frozenset({"truncated_json"}))])
    assert len(truncated.body) == int(truncated.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        truncated.json()


def test_quirks_of_streams() -> None:
    whole = streamed()
    assert streamed(quirks=["crlf"]) == whole.replace(b"\n", b"\r\n")
    assert streamed(quirks=["pings"]).count(b": ping\n\n") == whole.count(b"data: ")
    assert not streamed(quirks=["no_done"]).endswith(b"[DONE]\n\n")
    assert streamed(quirks=["bytewise"]) == whole
    assert len(streamed(quirks=["huge"])) > 10_000_000
    assert zlib.decompress(streamed(quirks=["gzip"]), wbits=31) == whole
    assert b"usage" not in post(
        chat(stream=True, stream_options={"include_usage": True}), faults=[Fault(quirks=frozenset({"no_usage"}))]
    ).body.replace(b'"usage":null', b"")


def test_quirks_of_plain_answers() -> None:
    def quirk(name: str) -> asgi.Reply:
        return post(faults=[Fault(quirks=frozenset({name}))])

    assert quirk("html").headers["content-type"] == "text/html"
    assert quirk("html").status == 200
    assert (quirk("redirect").status, quirk("redirect").headers["location"][:7]) == (302, "http://")
    assert json.loads(gzip.decompress(quirk("gzip").body))["choices"]
    assert quirk("gzip").headers["content-encoding"] == "gzip"
    assert quirk("empty").json()["choices"] == []
    assert "usage" not in quirk("no_usage").json()
    assert quirk("blank_lines").body.startswith(b"\n\n\n{")


def test_bytewise_sends_single_bytes() -> None:
    reply = post(chat(stream=True), faults=[Fault(quirks=frozenset({"bytewise"}))])
    assert {len(chunk) for chunk in reply.chunks} == {1}


def test_pings_without_end() -> None:
    async def story(simulator: Simulator) -> list[bytes | None]:
        async with asgi.open_stream(simulator, "POST", OPENAI, json=chat(stream=True)) as stream:
            return [await stream.chunk() for _ in range(50)]

    assert play(story, faults=[Fault(quirks=frozenset({"pings_only"}))]) == [b": ping\n\n"] * 50


def test_mistakes_in_a_script_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        fault_of({"quirks": ["nonsense"], "error": "bad", "every": 0, "inside": "event"})
    assert len(caught.value.problems) == 4
    with pytest.raises(ConfigError, match="providr"):
        fault_of({"providr": "groq"})


# What it counts


def test_the_log_and_the_counts() -> None:
    async def story(simulator: Simulator) -> None:
        for key in ("good", "good", "dead"):
            await asgi.call(simulator, "POST", GROQ, json=chat(), key=key)
        assert [exchange.result for exchange in simulator.log] == ["served", "limited", "refused"]
        assert [exchange.status for exchange in simulator.select(key="good")] == [200, 429]
        assert simulator.log[0].body == json.dumps(chat()).encode()
        assert simulator.log[0].headers["authorization"] == "Bearer good"
        stats = simulator.stats()
        assert (stats["requests"], stats["served"], stats["limited"], stats["refused"]) == (3, 1, 1, 1)
        row = next(row for row in stats["by_key"] if row["key"].startswith("good"))
        assert row == {"provider": "groq", "key": row["key"], "model": "m", "requests": 2, "served": 1} | {
            "limited": 1,
            "status_200": 1,
            "status_429": 1,
        }

    keys = {"groq": {"good": KeyRule(rpm=1), "dead": KeyRule(state="invalid_key")}}
    play(story, keys=keys, keep_bodies=True)


def test_stats_show_no_key() -> None:
    async def story(simulator: Simulator) -> str:
        await asgi.call(simulator, "POST", GROQ, json=chat(), key="gsk_planted_secret_value")
        return (await asgi.call(simulator, "GET", "/_simulator/stats")).body.decode()

    stats = play(story)
    assert "gsk_…" in stats
    assert "planted" not in stats


def test_a_script_can_be_posted() -> None:
    async def story(simulator: Simulator) -> list[int]:
        path = "/_simulator/script"
        added = await asgi.call(simulator, "POST", path, json={"faults": [{"provider": "groq", "status": 500}]})
        assert added.json() == {"faults": 1}
        statuses = [(await asgi.call(simulator, "POST", GROQ, json=chat())).status]
        wrong = await asgi.call(simulator, "POST", path, json={"faults": [{"quirks": ["x"]}]})
        assert "unknown quirk" in wrong.json()["error"]["message"]
        broken = await asgi.call(simulator, "POST", path, body=b"[")
        for body, said in (
            ({"fault": []}, "unknown member 'fault', known are clear, faults"),
            (
                {"faults": [{"provder": "groq"}]},
                "unknown member 'provder' of a fault (did you mean 'provider'?), known are after",
            ),
            ({"faults": [{"times": "two"}]}, "a fault: Expected `int | null`, got `str` - at `$.times`"),
        ):
            refused = await asgi.call(simulator, "POST", path, json={"clear": True, **body})
            assert refused.status == 400
            assert said in refused.json()["error"]["message"]
            assert len(simulator.script.faults) == 1, "nothing of it was done"
        await asgi.call(simulator, "POST", path, json={"clear": True})
        statuses.append((await asgi.call(simulator, "POST", GROQ, json=chat())).status)
        return [*statuses, wrong.status, broken.status]

    assert play(story) == [500, 200, 400, 400]


@pytest.mark.parametrize(("heading", "shape"), [("Faults", Fault), ("Keys", KeyRule)])
def test_the_page_of_the_simulator_names_every_member(heading: str, shape: type[Fault | KeyRule]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    table = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].partition("\n| provider | `limiter`")[0]
    named = {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall("`(\\w+)`", line.split("|")[1])
    }
    assert named == {each.name for each in dataclasses.fields(shape)}


def test_the_script_of_the_page_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    options = json.loads(page.partition("```json\n")[2].partition("```")[0])

    async def main() -> list[int]:
        simulator = application(options, virtual.VirtualClock(), virtual.seeded())
        keys = ("gsk-1", "gsk-2", "gsk-1", "gsk-2", "gsk-3", "gsk-4", "other")
        return [(await asgi.call(simulator, "POST", GROQ, json=chat(), key=key)).status for key in keys]

    assert virtual.run(main) == [200, 200, 200, 429, 200, 401, 401], "three a minute for the two of one project"


def test_mistakes_in_rules_of_keys_name_what_is_meant() -> None:
    keys = {
        "k1": {"projct": "p"},
        "k2": {"state": "invalidkey"},
        "k3": {"rpm": "three"},
        "k4": {"zone": "Nowhere"},
        "k5": {"rpm": -1},
        "k6": 7,
    }
    with pytest.raises(ConfigError) as caught:
        application({"keys": {"groq": keys, "gemini": 1}, "falts": []}, virtual.VirtualClock(), virtual.seeded())
    said = caught.value.problems
    assert len(said) == 8
    for problem, part in zip(
        said,
        (
            "keys.groq: unknown member 'projct' of a key (did you mean 'project'?), known are charge, concurrency",
            "keys.groq: unknown state 'invalidkey' (did you mean invalid_key?), one of ok, bad_request",
            "keys.groq: Expected `int | null`, got `str` - at `$.rpm`",
            "keys.groq: zone: there is no time zone 'Nowhere'",
            "keys.groq: a limit must not be negative",
            "keys.groq: a key's rule must be an object",
            "keys.gemini: must be an object",
            "unknown member 'falts' of a script (did you mean 'faults'?)",
        ),
        strict=True,
    ):
        assert problem.startswith(part), problem


def test_an_application_from_json_options() -> None:
    async def main() -> list[int]:
        options = {
            "keys": {"groq": {"gsk_a": {"rpm": 1, "project": "p"}, "gsk_dead": {"state": "invalid_key"}}},
            "faults": [{"provider": "openai", "error": "overloaded"}],
            "latency": [0.1, 0.2],
        }
        simulator = application(options, virtual.VirtualClock(), virtual.seeded())
        calls = [(GROQ, "gsk_a"), (GROQ, "gsk_a"), (GROQ, "gsk_dead"), (OPENAI, "any")]
        return [(await asgi.call(simulator, "POST", path, json=chat(), key=key)).status for path, key in calls]

    assert virtual.run(main) == [200, 429, 401, 503]


def test_mistakes_in_options_are_named_all_at_once() -> None:
    wrong = {"keys": {"groq": {"a": {"rpn": 1}, "b": {"state": "sad"}}}, "fault": [], "faults": [{"error": "x"}]}
    with pytest.raises(ConfigError) as caught:
        application(wrong, virtual.VirtualClock(), virtual.seeded())
    assert len(caught.value.problems) == 4


def test_lifespan() -> None:
    async def story(simulator: Simulator) -> list[str]:
        messages = iter(["lifespan.startup", "lifespan.shutdown"])
        sent = list[str]()

        async def receive() -> dict[str, str]:
            return {"type": next(messages)}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await simulator({"type": "lifespan"}, receive, send)
        return sent

    assert play(story) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_two_runs_are_alike() -> None:
    async def story(simulator: Simulator) -> list[tuple[float, int | None]]:
        await asyncio.gather(*(asgi.call(simulator, "POST", GROQ, json=chat(), key=f"k{n % 3}") for n in range(30)))
        return [(exchange.ended or 0.0, exchange.status) for exchange in simulator.log]

    options: dict[str, Any] = {"latency": (0.1, 2.0), "faults": [Fault(status=500, share=0.3)]}
    assert play(story, **options) == play(story, **options)
