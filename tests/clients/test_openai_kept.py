"""The official `openai` SDK on answers that are kept by `keyturn serve`: two turns, asked for again, over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Served, Upstreams, serve, simulate

MODEL = "groq/llama-3.1-8b-instant"


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    models = {"groq": ["llama-3.1-8b-instant"]}
    with simulate(Simulator(SystemClock(), draw, models=models, keep_bodies=True)) as simulated:
        yield simulated


def environment(upstreams: Upstreams) -> dict[str, str]:
    return {"GROQ_API_KEY": "gsk_good", "GROQ_API_BASE": f"{upstreams.url}/groq/v1", "RESPONSES_STORE": "true"}


def client_of(gateway: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.base_url, api_key=gateway.caller_key, max_retries=0)


def asked(upstreams: Upstreams) -> list[str]:
    """The texts of the last request, by turn."""
    messages: list[dict[str, Any]] = json.loads(upstreams.seen()[-1].body)["messages"]
    return [each["content"] if isinstance(each["content"], str) else each["content"][0]["text"] for each in messages]


def streamed(client: openai.OpenAI, text: str, previous: str) -> Any:
    """The whole response that a stream ends with."""
    last = None
    for event in client.responses.create(model=MODEL, input=text, previous_response_id=previous, stream=True):
        last = event
    assert last is not None
    assert last.type == "response.completed"
    return last.response


def test_two_turns_a_restart_and_what_is_left_afterwards(tmp_path: Path, upstreams: Upstreams) -> None:
    with serve(tmp_path, environment(upstreams)) as gateway, client_of(gateway) as client:
        first = client.responses.create(model=MODEL, input="My name is Ada.")
        second = streamed(client, "What is my name?", first.id)
        assert asked(upstreams)[0] == "My name is Ada."
        assert asked(upstreams)[1] == first.output_text
        assert asked(upstreams)[-1] == "What is my name?"
        again = client.responses.retrieve(second.id)
        assert (again.id, again.output_text) == (second.id, second.output_text)
        assert (again.previous_response_id, again.store) == (first.id, True)  # type: ignore[attr-defined]
    with serve(tmp_path, environment(upstreams)) as gateway, client_of(gateway) as client:
        third = client.responses.create(model=MODEL, input="And now?", previous_response_id=second.id)
        assert asked(upstreams)[0] == "My name is Ada."
        assert asked(upstreams)[-1] == "And now?"
        assert client.responses.retrieve(first.id).output_text == first.output_text
        items = client.responses.input_items.list(second.id)
        assert ["What is my name?" in item.to_json() for item in items] == [True]
        client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(second.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.delete(second.id)
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model=MODEL, input="Go on.", previous_response_id=third.id)
        assert caught.value.code == "previous_response_not_found"
        assert caught.value.param == "previous_response_id"
        unkept = client.responses.create(model=MODEL, input="Hi", store=False)
        with pytest.raises(openai.NotFoundError):
            client.responses.input_items.list(unkept.id)
