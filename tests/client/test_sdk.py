"""The transports of the official SDKs beside what the SDKs' own tests show: how they are made, shared and refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import keyturn
from keyturn.client import AsyncClient, Client
from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Simulator
from tests.support.serving import Upstreams, simulate

ASKED: Any = {"model": "groq/llama-3.1-8b-instant", "messages": [{"role": "user", "content": "Hello"}]}
HELLO = "You said: Hello"


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    models = {"groq": ["llama-3.1-8b-instant"]}
    with simulate(Simulator(SystemClock(), draw, models=models)) as found:
        yield found


@pytest.fixture(autouse=True)
def place(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROQ_API_KEY", "gsk_good")
    monkeypatch.setenv("GROQ_API_BASE", f"{upstreams.url}/groq/v1")


@pytest.fixture
def pool() -> Iterator[Client]:
    with Client() as client:
        yield client


def ask(
    client: httpx2.Client, path: str = "/v1/chat/completions", method: str = "POST", **more: Any
) -> httpx2.Response:
    return client.request(method, f"http://anywhere.invalid{path}", **({"json": ASKED} | more))


def test_LIB_01_needs_no_address_and_leaves_a_given_pool_open(pool: Client) -> None:
    for _ in range(2):
        with openai.OpenAI(api_key="unused", http_client=keyturn.transport_for_openai(pool)) as client:
            answer = client.chat.completions.create(**ASKED)
            assert str(answer.choices[0].message.content).endswith(HELLO)
    assert pool.get_current_provider() == "groq"


def test_LIB_01_without_a_pool_the_shared_one_is_used() -> None:
    with openai.OpenAI(api_key="unused", http_client=keyturn.transport_for_openai()) as client:
        client.chat.completions.create(**ASKED)
    shared = keyturn.get_smart_client()
    assert shared.get_current_provider() == "groq"
    assert shared.get_status_summary()["groq"]["total_success_calls"] == 1
    shared.close()


def test_LIB_01_an_asynchronous_client_closes_the_pool_that_was_made_for_it() -> None:
    async def main() -> None:
        transport = keyturn.transport_for_openai(asynchronous=True)
        async with openai.AsyncOpenAI(api_key="unused", http_client=transport) as client:
            assert (await client.chat.completions.create(**ASKED)).choices
        async with AsyncClient() as pool:
            transport = keyturn.transport_for_openai(pool)
            async with openai.AsyncOpenAI(api_key="unused", http_client=transport, max_retries=0) as client:
                assert (await client.chat.completions.create(**ASKED)).choices
            assert await pool.chat("Hello", "groq/llama-3.1-8b-instant")

    asyncio.run(main())


def test_LIB_01_is_a_transport_too(pool: Client) -> None:
    with httpx2.Client(transport=keyturn.transport_for_openai(pool), trust_env=False) as client:
        answer = ask(client)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == answer.headers["x-keyturn-call"]
        assert answer.json()["choices"][0]["message"]["content"].endswith(HELLO)

    async def main() -> int:
        transport = keyturn.transport_for_anthropic(asynchronous=True)
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
            body = {**ASKED, "max_tokens": 50}
            return (await client.post("http://anywhere.invalid/v1/messages", json=body)).status_code

    assert asyncio.run(main()) == 200


def test_LIB_01_no_proxy_is_asked(pool: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(keyturn.transport_for_openai(pool)).status_code == 200


@pytest.mark.parametrize(
    ("path", "method", "status", "says"),
    [
        ("/v1/nothing", "POST", 404, "POST /v1/chat/completions"),
        ("/admin/keys", "GET", 404, "unknown_path"),
        ("/v1/chat/completions", "GET", 405, "served with POST"),
        ("/v1/models/gorq/x", "GET", 404, "model_not_found"),
        ("/v1/models", "GET", 200, "groq/llama-3.1-8b-instant"),
        ("/models/groq/llama-3.1-8b-instant", "GET", 200, '"owned_by":"groq"'),
        ("/v1beta/models", "GET", 200, "models/groq/llama-3.1-8b-instant"),
        ("/v1beta/models/groq/llama-3.1-8b-instant:countTokens", "POST", 200, "totalTokens"),
    ],
)
def test_LIB_01_paths_are_those_of_the_gateway(pool: Client, path: str, method: str, status: int, says: str) -> None:
    body = {"contents": [{"parts": [{"text": "Hello"}]}]}
    answer = ask(keyturn.transport_for_openai(pool), path, method, json=body)
    assert answer.status_code == status
    assert says in answer.text
    if status != 200:
        assert answer.headers["x-keyturn-call"]


def test_LIB_01_errors_are_in_the_words_of_who_asks(pool: Client) -> None:
    answer = ask(keyturn.transport_for_anthropic(pool), "/v1/nothing")
    assert (answer.status_code, answer.json()["type"]) == (404, "error")
    assert "code" in ask(keyturn.transport_for_openai(pool), "/v1/nothing").json()["error"]


def test_LIB_01_any_thread_may_ask(pool: Client) -> None:
    client = keyturn.transport_for_openai(pool)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(ask(client).status_code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 8


def test_LIB_01_a_closed_pool_is_a_connection_error(pool: Client) -> None:
    pool.close()
    transport = keyturn.transport_for_openai(pool)
    with (
        openai.OpenAI(api_key="unused", http_client=transport, max_retries=0) as client,
        pytest.raises(openai.APIConnectionError) as caught,
    ):
        client.chat.completions.create(**ASKED)
    assert "closed" in str(caught.value.__cause__)


def test_LIB_01_a_pool_of_the_other_kind_is_told(pool: Client) -> None:
    with pytest.raises(TypeError, match=r"keyturn\.AsyncClient"):
        keyturn.transport_for_openai(pool, asynchronous=True)  # type: ignore[call-overload]


def test_LIB_01_without_the_package_of_the_sdks_the_import_tells_what_to_install() -> None:
    code = """
import sys
sys.modules["httpx2"] = None
import keyturn
try:
    keyturn.transport_for_openai()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install openai" in done.stdout


def test_LIB_01_a_pool_that_is_closed_under_a_stream_cuts_it(pool: Client, upstreams: Upstreams) -> None:
    upstreams.script({"does": "hang", "at_chunk": 4})
    transport = keyturn.transport_for_openai(pool)
    with openai.OpenAI(api_key="unused", http_client=transport, max_retries=0) as client:
        stream = client.chat.completions.create(**ASKED, stream=True)
        next(iter(stream))
        pool.close()
        with pytest.raises((openai.APIError, httpx2.TransportError)):
            list(stream)
    upstreams.script()
