"""Calls that are passed on unread, and legacy completions: pooled, counted and failed over like all others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.dispatch import new_id, read_call
from keyturn.simulator import Fault, KeyRule
from tests.scenario.shapes import events, play
from tests.support.world import Answer, World

BOUNDARY = "----parts7"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
NOISE = bytes(range(256)) * 3 + b"\r\n--not-a-boundary\r\n"


def form(model: str, file: str = "audio.wav", **fields: str) -> bytes:
    """A multipart body with a file of arbitrary bytes in it."""
    rows = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"model": model, **fields}.items()
    ]
    name = "image" if file.endswith(".png") else "file"
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
    return (
        b"".join(rows) + head.encode() + b"Content-Type: audio/wav\r\n\r\n" + NOISE + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


async def post(world: World, door: str, argument: str, body: object) -> Answer:
    """One call that is passed on; *body* is a form where it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": FORM if isinstance(body, bytes) else "application/json"}
    call = read_call(door, data, headers, argument)
    reply = await world.gateway.handle(call, world.gateway.config.default_caller, new_id(world.clock.wall()))
    chunks: list[bytes] = []
    try:
        if reply.stream is not None:
            chunks = [chunk async for chunk in reply.stream]
    finally:
        reply.close()
    return Answer(reply, chunks)


CALLS: dict[str, tuple[str, str, Any]] = {
    "generations": ("images", "generations", {"model": "openai/gpt-image-1", "prompt": "a cat", "n": 1}),
    "edits": ("images", "edits", form("openai/gpt-image-1", "cat.png", prompt="a hat")),
    "transcriptions": ("audio", "transcriptions", form("openai/whisper-1", response_format="json")),
    "speech": ("audio", "speech", {"model": "openai/tts-1", "input": "Hello", "voice": "alloy"}),
    "moderations": ("moderations", "", {"model": "openai/omni-moderation", "input": "Hello"}),
    "rerank": ("rerank", "", {"model": "together/rank-1", "query": "cat", "documents": ["a cat", "a dog"]}),
}


@pytest.mark.parametrize("what", CALLS)
def test_passed_on_with_another_key_after_a_429(what: str) -> None:
    door, argument, body = CALLS[what]

    async def story(world: World) -> None:
        answer = await post(world, door, argument, body)
        assert answer.status == 200, answer.body
        limited, served = world.seen()
        assert (limited.status, served.status) == (429, 200)
        assert limited.key != served.key
        assert answer.headers["x-keyturn-attempts"] == "2"
        name = (body["model"] if isinstance(body, dict) else "openai/x").partition("/")[0]
        assert answer.headers["x-keyturn-provider"] == name
        assert served.path.endswith(f"/{door}/{argument}".rstrip("/"))
        if isinstance(body, bytes):
            assert served.headers["content-type"].startswith("multipart/form-data")
            assert served.body == body.replace(b"openai/", b"")
            assert NOISE in served.body
        else:
            sent = json.loads(served.body)
            assert sent == body | {"model": body["model"].partition("/")[2]}
        if what == "speech":
            assert answer.headers["content-type"] == "audio/mpeg"
            assert answer.body == b"".join(answer.chunks)
            assert len(answer.body) == served.bytes_sent

    play(story, {"openai": 2, "together": 2}, faults=[Fault(error="rate_limited", wait=30, times=1)])


@pytest.mark.parametrize("what", CALLS)
def test_its_requests_count_in_the_limits(what: str) -> None:
    door, argument, body = CALLS[what]

    async def story(world: World) -> None:
        for _ in range(2):
            assert (await post(world, door, argument, body)).status == 200
        began = world.clock.mono()
        assert (await post(world, door, argument, body)).status == 200
        assert world.clock.mono() - began > 50, "the key's two requests of this minute were used"
        assert world.upstream.own_429 == 0

    rules = {"openai": [KeyRule(rpm=2)], "together": [KeyRule(rpm=2)]}
    environ = {"LIMITS_OPENAI": "rpm=2", "LIMITS_TOGETHER": "rpm=2", "TIMEOUT_QUEUE_WAIT": "120"}
    play(story, rules, environ=environ)


def test_who_does_not_offer_it_is_passed_over() -> None:
    async def story(world: World) -> None:
        answer = await post(world, "images", "generations", {"model": "team", "prompt": "a cat"})
        assert answer.status == 200, answer.body
        assert [each.provider for each in world.seen()] == ["openai"]
        nobody = await post(world, "images", "generations", {"model": "groq/llama-3.1-8b-instant", "prompt": "a cat"})
        assert nobody.status == 404
        assert "images" in nobody.json()["error"]["message"]
        assert len(world.seen()) == 1

    roles = "  team: { model_chain: [groq/llama-3.1-8b-instant, anthropic/claude-opus-4-6, openai/gpt-image-1] }\n"
    play(story, {"groq": 1, "anthropic": 1, "openai": 1}, roles=roles)


def test_a_cut_sound_is_no_silent_success() -> None:
    async def story(world: World) -> None:
        door, argument, body = CALLS["speech"]
        answer = await post(world, door, argument, body)
        trail = world.gateway.recent[answer.headers["x-keyturn-call"]]
        assert trail.code == "upstream_interrupted"

    play(story, {"openai": 2}, faults=[Fault(does="reset", at_chunk=2)], pace=0.1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("together/llama", "/together/v1/completions"),
        ("groq/llama-3.1-8b-instant", "/groq/v1/chat/completions"),
        ("anthropic/claude-opus-4-6", "/anthropic/v1/messages"),
        ("gemini/gemini-3-pro", "/gemini/v1/models/gemini-3-pro:"),
    ],
)
def test_legacy_completions(model: str, path: str, stream: bool) -> None:
    async def story(world: World) -> None:
        options = {"stream_options": {"include_usage": True}} if stream else {}
        asked = {"model": model, "prompt": "Once upon a time", "max_tokens": 300, "stream": stream, **options}
        answer = await world.send("completions", asked)
        assert answer.status == 200, answer.body
        rows = events(answer) if stream else [answer.json()]
        assert {row["object"] for row in rows} == {"text_completion"}
        choices = [choice for row in rows for choice in row["choices"]]
        assert "".join(choice["text"] for choice in choices).endswith("Once upon a time")
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
        assert [row["usage"]["completion_tokens"] for row in rows if row.get("usage")][-1] > 5
        if stream:
            assert answer.body.endswith(b"data: [DONE]\n\n")
        assert world.seen()[0].path.startswith(path)

    play(story, {"together": 1, "groq": 1, "anthropic": 1, "gemini": 1})
