"""What ends in the middle: calls and streams that are interrupted, loops that are over, processes that fork."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIConnectionError, OpenAI

from keyturn import AsyncClient, Client, transport_for_openai
from keyturn.client import crossing
from keyturn.client.crossing import Pump
from keyturn.errors import Draining, KeyturnError, UpstreamInterrupted
from tests.support.serving import PATIENCE, Upstreams

MODEL = "groq/llama-3.1-8b-instant"
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]

FORKING = f"""
import os, warnings
warnings.simplefilter("ignore")
from keyturn import Client, get_smart_client
from keyturn.config import DataFolder
client, smart = Client(), get_smart_client()
client.chat("Hi", {MODEL!r})
stream = client.chat("Hi", {MODEL!r}, stream=True)
begun, end = os.pipe()
worked, works = os.pipe()
if (child := os.fork()) == 0:
    try:
        try:
            list(stream)
        except Exception as error:
            print(type(error).__name__, flush=True)
        print(client.chat("a", {MODEL!r}), Client().chat("b", {MODEL!r}), get_smart_client().chat("c", {MODEL!r}))
        client.close()
        print("closed", flush=True)
    finally:
        os.close(end)
        os.close(works)
        os.read(begun, 1)
        os._exit(0)
os.close(begun)
os.close(works)
os.read(worked, 1)
client.chat("d", {MODEL!r})
print("parent", flush=True)
client.close(), smart.close()
from pathlib import Path
folder = DataFolder(Path(".cache"))
folder.lock()
print("free", flush=True)
os.close(end)
os.waitpid(child, 0)
"""


class Source:
    """Counts up to *most*, then waits for ever."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.come = 0

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        if self.come == self.most:
            await asyncio.Event().wait()
        self.come += 1
        await asyncio.sleep(0)
        return self.come

    def close(self) -> None: ...


@pytest.mark.realtime
def test_LIB_01_a_forked_process_begins_anew_and_takes_nothing_from_its_parent(elsewhere: Path) -> None:
    program = [sys.executable, "-c", FORKING]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert [
        word for word in ("UpstreamInterrupted", "said: a", "said: b", "said: c", "closed") if word not in said
    ] == []
    assert said.index("parent") < said.index("free")


def test_LIB_01_those_who_read_one_stream_together_get_all_of_it_and_no_early_end() -> None:
    async def main() -> None:
        pump = Pump(Source(3))
        readers = [asyncio.create_task(pump.take()) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert [task.result() for task in readers if task.done()] == [[1], [2], [3]]
        late = asyncio.create_task(pump.take())
        await asyncio.sleep(0)
        pump.close()
        with pytest.raises(UpstreamInterrupted):
            await late

    asyncio.run(main())


def test_LIB_01_a_stream_that_is_let_go_before_it_began_keeps_nobody_waiting() -> None:
    async def main() -> None:
        pump = Pump(Source(3))
        pump.close()
        with pytest.raises(UpstreamInterrupted):
            await asyncio.wait_for(pump.take(), 5)

    asyncio.run(main())


@pytest.mark.realtime
def test_LIB_01_who_is_interrupted_and_reads_on_is_not_told_that_it_is_all(
    elsewhere: Path, upstreams: Upstreams
) -> None:
    upstreams.script({"pace": 0.3})

    async def main() -> None:
        async with AsyncClient() as client:
            stream = await client.chat("Hi", MODEL, stream=True)
            await anext(stream)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.02)
            with pytest.raises(UpstreamInterrupted):
                await anext(stream)
            closed = await client.acompletion(MODEL, HI, stream=True)
            await anext(closed)
            closed.close()
            assert [chunk async for chunk in closed] == []

    asyncio.run(main())


@pytest.mark.realtime
def test_LIB_01_a_stream_that_ctrl_c_interrupts_ends_upstream(elsewhere: Path, upstreams: Upstreams) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    upstreams.script({"pace": 0.3})
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Client() as client:
            stream = client.chat("Hi", MODEL, stream=True)
            next(stream)
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            with pytest.raises(KeyboardInterrupt):
                list(stream)
            upstreams.settled()
            assert [each.result for each in upstreams.seen()] == ["cancelled"]
            assert list(stream) == []
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.realtime
def test_LIB_01_the_end_of_another_loop_is_no_cancellation(elsewhere: Path, upstreams: Upstreams) -> None:
    upstreams.script({"stream": True, "pace": 0.3}, {"stream": False, "latency": 5.0})
    opened, over, told = threading.Event(), threading.Event(), threading.Event()

    async def owner() -> None:
        client = AsyncClient()
        await client.get_quota_stats()
        opened.set()
        while not over.is_set():  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.01)
        await client.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:  # as `asyncio.run` does it
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        while not told.is_set():  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with AsyncClient() as client:
            stream = await client.chat("Hi", MODEL, stream=True)
            await anext(stream)
            call = asyncio.create_task(client.chat("Hi", MODEL))
            until = time.monotonic() + PATIENCE
            while len(upstreams.seen()) < 2:
                assert time.monotonic() < until, (upstreams.simulator.select(), call)
                await asyncio.sleep(0.005)
            over.set()
            with pytest.raises(KeyturnError, match="the event loop that the pool lived on has ended"):
                await call
            with pytest.raises(UpstreamInterrupted):
                [text async for text in stream]
        told.set()

    thread = threading.Thread(target=lambda: asyncio.run(owner()))
    thread.start()
    try:
        assert opened.wait(20)
        asyncio.run(main())
    finally:
        over.set()
        told.set()
        thread.join(20)


@pytest.mark.realtime
def test_LIB_01_closing_tells_calls_under_way_at_once_and_opens_nothing(elsewhere: Path, upstreams: Upstreams) -> None:
    upstreams.script({"latency": 20.0})

    async def main() -> None:
        client = AsyncClient()
        opening = [asyncio.create_task(client.chat("Hi", MODEL)) for _ in range(3)]
        await asyncio.sleep(0)
        await client.close()
        for error in await asyncio.wait_for(asyncio.gather(*opening, return_exceptions=True), 5):
            assert isinstance(error, Draining)
        assert client._pool is None
        other = AsyncClient()
        running = asyncio.create_task(other.chat("Hi", MODEL))
        await asyncio.sleep(0.1)
        await other.close()
        with pytest.raises(Draining, match="this client is closed"):
            await asyncio.wait_for(running, 2)

    asyncio.run(main())


@pytest.mark.realtime
def test_LIB_03_whatever_waits_for_the_clients_own_thread_is_refused_there(elsewhere: Path) -> None:
    seen: list[BaseException] = []

    def hook(*_: object) -> None:
        for use in (client.close, lambda: sdk.models.list(), lambda: next(stream)):
            try:
                use()
            except (RuntimeError, APIConnectionError) as error:
                seen.append(error.__cause__ or error)

    with Client() as client, OpenAI(api_key="x", max_retries=0, http_client=transport_for_openai(client)) as sdk:
        stream = client.chat("Hi", MODEL, stream=True)
        assert client.completion(MODEL, HI, pre_request_callback=hook)
        assert ["in its own callback" in str(error) for error in seen] == [True, True, True]
        assert "".join(stream)


@pytest.mark.parametrize("threaded", [False, True])
def test_LIB_01_what_begins_on_a_loop_that_is_just_ending_is_told(
    threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `asyncio.run` ends: its tasks are cancelled, then the loop runs a little longer, then it is closed."""
    monkeypatch.setattr(crossing, "LOOK_EVERY", 0.01)
    loop = asyncio.new_event_loop()

    async def never() -> None:
        await asyncio.Event().wait()

    begun = crossing.start(loop, never)
    loop.run_until_complete(asyncio.sleep(0))
    [task] = crossing._running
    loop.close()
    if threaded:
        with pytest.raises(Draining):
            crossing.result(begun)
    else:
        with pytest.raises(KeyturnError, match="the event loop that the pool lived on has ended"):
            asyncio.run(crossing.awaited(begun))
    crossing._running.discard(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
