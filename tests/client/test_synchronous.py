"""The synchronous client on real sockets: threads, streams, a running loop, forgotten clients, the end of a program."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keyturn import Client, ProviderExhaustedError
from keyturn.client.crossing import LoopThread, Pump
from keyturn.errors import Draining, KeyturnError, UpstreamInterrupted
from tests.support.serving import Upstreams

MODEL = "groq/llama-3.1-8b-instant"
HI = [{"role": "user", "content": "Hi"}]
SAID = "You said: Hi"
PATIENCE = 20.0


def soon(true: Callable[[], object]) -> bool:
    """Whether it becomes true, on a machine that is busy with other things."""
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("keyturn", "asyncio"))]


def sockets(url: str) -> int:
    """Connections of this process to *url*."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(port) and row[3] == "01" for row in rows)


def test_LIB_01_API_02_a_plain_call_and_everything_beside_it(elsewhere: Path) -> None:
    with Client() as client:
        reply = client.completion(model=MODEL, messages=HI)
        assert reply.choices[0].message.content.endswith(SAID)
        assert client.get_current_provider() == "groq"
        assert client.chat("Hi", MODEL).endswith(SAID)
        assert client.messages(MODEL, HI).content[0].text.endswith(SAID)
        assert client.responses("Hi", MODEL).output_text.endswith(SAID)
        assert client.anthropic_count_tokens(MODEL, HI).input_tokens > 0
        assert client.token_count(MODEL, "Hi") > 0
        assert MODEL in client.get_all_available_models(grouped=False)
        assert client.get_available_models("groq") == client.get_all_available_models()["groq"]
        assert client.get_status_summary()["groq"]["total_success_calls"] == 4
        assert client.get_quota_stats()["totals"] == client.force_refresh_quota()["totals"]
        assert client.get_available_providers() == client.get_providers_by_priority() == ["groq"]
        assert client.get_provider_priority("groq") == 2
        assert client.clear_rate_limits() == []
        assert client.reload_usage_from_disk()["keys"]
        assert client.complete(MODEL, "Hi").endswith(SAID)
        assert client.ask("chat", b"{}").status == 400


def test_LIB_01_streams_are_iterators(elsewhere: Path, upstreams: Upstreams) -> None:
    with Client() as client:
        stream = client.completion(MODEL, HI, stream=True)
        assert stream.keyturn.provider == "groq"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices).endswith(SAID)
        assert list(stream) == []
        assert "".join(client.chat("Hi", MODEL, stream=True)).endswith(SAID)
        assert [event.type for event in client.messages(MODEL, HI, stream=True)][-1] == "message_stop"
        _, pieces = client.stream_from(
            "chat",
            b'{"model":"%s","messages":[%s],"stream":true}' % (MODEL.encode(), b'{"role":"user","content":"Hi"}'),
        )
        assert pieces is not None
        assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
        upstreams.settled()
        assert {each.result for each in upstreams.seen()} == {"served"}


@pytest.mark.realtime
def test_LIB_01_a_stream_that_is_closed_or_forgotten_ends_upstream(elsewhere: Path, upstreams: Upstreams) -> None:
    upstreams.script({"pace": 0.3})
    with Client() as client:
        closed = client.chat("Hi", MODEL, stream=True)
        next(closed)
        closed.close()
        assert list(closed) == []
        for _ in client.chat("Hi", MODEL, stream=True):
            break
        gc.collect()
        assert soon(lambda: upstreams.running() == 0)
        assert {each.result for each in upstreams.seen()} == {"cancelled"}


def test_LIB_01_a_stream_that_is_cut_raises(elsewhere: Path, upstreams: Upstreams) -> None:
    upstreams.script({"at_chunk": 3, "does": "reset"})
    with Client() as client:
        stream = client.chat("Hi", MODEL, stream=True)
        assert next(stream)
        with pytest.raises(UpstreamInterrupted):
            list(stream)


@pytest.mark.realtime
def test_LIB_01_closing_under_calls_and_streams_ends_them(elsewhere: Path, upstreams: Upstreams) -> None:
    upstreams.script({"stream": True, "at_chunk": 3, "does": "hang"}, {"latency": 20})
    client = Client()
    stream = client.chat("Hi", MODEL, stream=True)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(client.chat, "Hi", MODEL)
        assert soon(lambda: upstreams.running() == 2)
        client.close()
        with pytest.raises(KeyturnError):
            waits.result(PATIENCE)
    with pytest.raises(UpstreamInterrupted):
        list(stream)
    assert list(stream) == []
    assert soon(lambda: upstreams.running() == 0)


def test_LIB_01_eight_threads_share_one_client_and_leave_nothing(elsewhere: Path, upstreams: Upstreams) -> None:
    def ask(number: int) -> list[str]:
        return [client.chat(f"{number} {each}", MODEL).rpartition("said: ")[2] for each in range(50)]

    with Client() as client, ThreadPoolExecutor(8, thread_name_prefix="asking") as pool:
        answers = list(pool.map(ask, range(8)))
        assert answers == [[f"{number} {each}" for each in range(50)] for number in range(8)]
        assert client.get_status_summary()["groq"]["total_success_calls"] == 400
        assert own_threads()
    assert own_threads() == []
    assert sockets(upstreams.url) == 0
    assert LoopThread._shared is None


def test_CAC_02_embeddings_of_threads_are_joined(elsewhere: Path, upstreams: Upstreams, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("OPENAI_API_BASE", f"{upstreams.url}/openai/v1")
    with Client(embedding_batch_window=0.2) as client, ThreadPoolExecutor(8) as pool:
        client.get_quota_stats()
        vectors = list(pool.map(lambda text: client.embed(text, "openai/text-embedding-3-small"), "abcdefgh"))
        assert len({str(each) for each in vectors}) == 8
        assert len(upstreams.seen()) < 8


def test_LIB_01_inside_a_running_loop_it_blocks_and_works(elsewhere: Path) -> None:
    """As in a notebook, whose cells run in a loop."""

    async def cell() -> str:
        with Client() as client:
            return client.chat("Hi", MODEL)

    assert asyncio.run(cell()).endswith(SAID)


def test_LIB_03_a_callback_cannot_wait_for_its_own_client(elsewhere: Path) -> None:
    with (
        Client(pre_request_callback=lambda *_: client.chat("Hi", MODEL)) as client,
        pytest.raises(RuntimeError, match="use AsyncClient there"),
    ):
        client.chat("Hi", MODEL)


def test_LIB_01_clients_share_one_thread_and_close_once(elsewhere: Path) -> None:
    first, second = Client(), Client()
    assert own_threads() == [], "nothing begins before it is used"
    first.chat("Hi", MODEL)
    second.chat("Hi", MODEL)
    assert own_threads().count("keyturn") == 1
    first.close()
    assert second.chat("Hi", MODEL)
    second.close()
    second.close()
    assert own_threads() == []
    with pytest.raises(Draining, match="this client is closed"):
        second.chat("Hi", MODEL)


def test_LIB_01_a_forgotten_client_gives_everything_back(elsewhere: Path) -> None:
    client = Client()
    client.chat("Hi", MODEL)
    del client
    gc.collect()
    assert soon(lambda: own_threads() == [])
    with Client() as other:
        other.chat("Hi", MODEL)  # the data folder is free again: no warning, which would be an error here


def test_ERR_07_with_no_key_at_all_the_variables_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Client() as client:
        with pytest.raises(ProviderExhaustedError, match="All API keys exhausted across all providers") as caught:
            client.chat("Hi")
        assert (caught.value.code, caught.value.status) == ("no_valid_credentials", 503)
        assert "GROQ_API_KEY" in str(caught.value)
        assert set(client.get_status_summary()) == {"timestamp"}, "no demo in a library"
    assert list(tmp_path.iterdir()) == [], "nothing to keep, so no folder is made"


PROGRAM = f"""
from keyturn import Client
client = Client()
stream = client.chat("Hi", {MODEL!r}, stream=True)
print(next(stream))
print(client.chat("Hi", {MODEL!r}))
"""


@pytest.mark.realtime
def test_LIB_01_a_program_that_closes_nothing_ends_all_the_same(elsewhere: Path, upstreams: Upstreams) -> None:
    upstreams.script({"stream": True, "pace": 0.1})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{SAID}\n")


def test_LIB_01_a_stream_that_breaks_off_in_the_middle_is_never_taken_for_whole() -> None:
    class Source:
        def __aiter__(self) -> Source:
            self.left = 2
            return self

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                await asyncio.Event().wait()
            return self.left

        def close(self) -> None: ...

    async def main() -> None:
        pump = Pump(Source())
        assert await pump.take() == [1, 0]
        pump._task.cancel()
        with pytest.raises(UpstreamInterrupted):
            await pump.take()

    asyncio.run(main())
