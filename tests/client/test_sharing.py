"""Who owns the data folder: a gateway that is asked, a pool of this process that is shared, or nobody yet."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyturn import AsyncClient, Client, ProviderExhaustedError
from keyturn.client import Upcoming, open_doorway
from keyturn.client.neighbour import NeighbourDoorway
from keyturn.client.remote import RemoteDoorway, counted
from keyturn.config import DataFolder
from keyturn.core import HttpRequest, Secret, UpstreamResponse
from keyturn.errors import Draining, ModelNotFound, UpstreamInterrupted
from tests.support.serving import PATIENCE, Served, Upstreams, serve

from .conftest import environ_of

MODEL = "groq/llama-3.1-8b-instant"
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
SAID = "You said: Hi"


def pool_of(client: AsyncClient | Client) -> object:
    return client._inner._pool if isinstance(client, Client) else client._pool


# --- within one process -----------------------------------------------------------------------------------------------


def test_LIB_01_the_first_client_takes_the_folder_and_gives_it_up(elsewhere: Path) -> None:
    async def main() -> None:
        async with AsyncClient() as client:
            assert (await client.acompletion(MODEL, HI)).keyturn.provider == "groq"
            assert (elsewhere / ".cache" / "lock").read_text() == str(os.getpid())
            assert DataFolder(elsewhere / ".cache").owner() is None, "it does not listen"
        folder = DataFolder(elsewhere / ".cache")
        folder.lock()
        folder.release()

    asyncio.run(main())


def test_LIB_01_clients_of_one_loop_share_one_pool(elsewhere: Path) -> None:
    async def main() -> None:
        async with AsyncClient() as first, AsyncClient() as second:
            await first.chat("Hi", MODEL)
            await second.chat("Hi", MODEL)
            summary = await second.get_status_summary()
            assert summary["groq"]["total_success_calls"] == 2
            await first.close()
            assert await second.chat("Hi", MODEL)

    asyncio.run(main())


def test_LIB_01_clients_of_two_loops_share_one_pool(elsewhere: Path, upstreams: Upstreams) -> None:
    async def main() -> None:
        async with AsyncClient() as inner:
            await inner.chat("Hi", MODEL)
            assert isinstance(pool_of(inner), NeighbourDoorway)
            stream = await inner.acompletion(MODEL, HI, stream=True)
            assert stream.keyturn.provider == "groq"
            assert len([chunk async for chunk in stream]) > 3
            with pytest.raises(ModelNotFound) as caught:
                await inner.chat("Hi", "nobody/x")
            assert caught.value.trail is not None
            assert caught.value.trail["code"] == "model_not_found"
            assert (await inner.get_status_summary())["groq"]["total_success_calls"] == 3
            assert await inner.clear_rate_limits() == []
            assert await inner.get_available_providers() == ["groq"]
            assert MODEL in await inner.get_all_available_models(grouped=False)
            assert (await inner.get_quota_stats())["totals"]["keys"] == 1
            assert await inner.token_count(MODEL, "Hi") > 0
            upstreams.script({"pace": 0.2})
            async with await inner.acompletion(MODEL, HI, stream=True) as left:
                await left.__anext__()
            upstreams.script({"latency": 5.0})
            before = len(upstreams.seen())
            cancelled = asyncio.create_task(inner.chat("Hi", MODEL))
            until = time.monotonic() + PATIENCE
            while len(upstreams.seen()) == before:
                assert time.monotonic() < until, cancelled
                await asyncio.sleep(0.005)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)

    with Client() as outer:
        outer.chat("Hi", MODEL)
        asyncio.run(main())
        upstreams.settled()
        upstreams.script()
        assert [each.result for each in upstreams.seen()][-2:] == ["cancelled", "cancelled"]
        assert outer.chat("Hi", MODEL)


def test_LIB_01_other_keys_in_one_process_are_a_pool_of_their_own(elsewhere: Path, upstreams: Upstreams) -> None:
    async def main() -> None:
        async with AsyncClient() as first:
            await first.chat("Hi", MODEL)
            with pytest.warns(UserWarning, match="with other keys or settings: its limits are counted apart"):
                async with AsyncClient(api_keys={"groq": "gsk_other"}) as second:
                    await second.chat("Hi", MODEL)
            assert [each.key for each in upstreams.seen()] == ["gsk_of_environment", "gsk_other"]

    asyncio.run(main())


MOVING = f"""
import asyncio, warnings
warnings.simplefilter("error", UserWarning)
from keyturn import AsyncClient
client = AsyncClient()
for _ in range(2):
    print(asyncio.run(client.chat("Hi", {MODEL!r})))
asyncio.run(client.close())
"""


def test_LIB_01_a_client_moves_on_when_its_loop_is_over(elsewhere: Path) -> None:
    """In a process of its own, for what is left of the first loop can no longer be closed, and says so."""
    program = [sys.executable, "-c", MOVING]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert (done.returncode, done.stdout.count(SAID)) == (0, 2), done.stderr
    assert "UserWarning" not in done.stderr, "the data folder was taken over"


def test_LIB_01_a_client_is_for_one_loop_at_a_time(elsewhere: Path) -> None:
    async def both() -> None:
        used = AsyncClient()
        await used.chat("Hi", MODEL)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(lambda: asyncio.run(used.chat("Hi", MODEL)))
            with pytest.raises(RuntimeError, match="in use on another event loop"):
                await asyncio.wrap_future(other)
        await used.close()

    asyncio.run(both())


def test_LIB_01_a_folder_that_cannot_be_written_keeps_nothing_and_says_so(elsewhere: Path) -> None:

    async def main() -> None:
        with pytest.warns(UserWarning, match="nothing of what this pool learns or spends lasts"):
            client = await open_doorway(data_dir="/proc/nowhere")
        assert await client.chat("Hi", MODEL)
        await client.close()

    asyncio.run(main())


def test_LIB_01_a_program_that_does_not_listen_is_worked_beside_with_a_warning(elsewhere: Path) -> None:
    folder = DataFolder(elsewhere / ".cache")
    folder.lock()

    async def main() -> None:
        with pytest.warns(UserWarning, match="another program that does not listen"):
            client = await open_doorway()
        assert await client.chat("Hi", MODEL)
        async with AsyncClient() as other:
            assert await other.chat("Hi", MODEL)
            assert (await other.get_status_summary())["groq"]["total_success_calls"] == 2
        await client.close()

    try:
        asyncio.run(main())
    finally:
        folder.release()


# --- through a gateway ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(simulator: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    place = tmp_path_factory.mktemp("gateway")
    with serve(place, environ_of(simulator)) as gateway:
        yield gateway, place


@pytest.fixture
def beside(served: tuple[Served, Path], elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a gateway that runs."""
    monkeypatch.chdir(served[1])
    return served[1]


def test_LIB_01_a_client_calls_through_the_gateway_that_owns_the_folder(beside: Path, upstreams: Upstreams) -> None:
    seen: list[Upcoming] = []

    async def main() -> None:
        async with AsyncClient(pre_request_callback=lambda request, parameters: seen.append(request)) as client:
            assert isinstance(pool_of(client), RemoteDoorway)
            reply = await client.acompletion(MODEL, HI)
            assert reply.choices[0].message.content.endswith(SAID)
            assert (reply.keyturn.provider, client.get_current_provider()) == ("groq", "groq")
            assert [(each.number, each.route, each.provider) for each in seen] == [(1, MODEL, None)]
            stream = await client.acompletion(MODEL, HI, stream=True)
            assert len([chunk async for chunk in stream]) > 3
            assert (await client.messages(MODEL, HI)).content[0].text.endswith(SAID)
            with pytest.raises(ModelNotFound, match="nobody") as caught:
                await client.chat("Hi", "nobody/x")
            assert caught.value.trail is not None
            assert "refusals" in caught.value.trail
            assert MODEL in await client.get_all_available_models(grouped=False)
            assert await client.get_available_providers() == ["groq"]
            assert await client.token_count(MODEL, "Hello") > 0
            assert (await client.anthropic_count_tokens(MODEL, HI)).input_tokens > 0
            assert (await client.get_quota_stats("groq"))["totals"]["keys"] == 1
            assert (await client.get_quota_stats())["totals"]["keys"] == 1
            summary = await client.get_status_summary()
            assert summary["groq"]["total"] == 1
            assert summary["groq"]["total_success_calls"] >= 3
            assert await client.clear_rate_limits("groq") == []

    asyncio.run(main())


def test_LIB_01_errors_and_cuts_through_the_gateway(beside: Path, served: Any, upstreams: Upstreams) -> None:
    upstreams.script({"stream": True, "at_chunk": 3, "does": "reset"}, {"error": "daily_quota"})

    async def main() -> None:
        async with AsyncClient() as client:
            stream = await client.acompletion(MODEL, HI, stream=True)
            with pytest.raises(UpstreamInterrupted):
                await stream_to_end(stream)
            with pytest.raises(ProviderExhaustedError, match="All API keys exhausted") as caught:
                await client.acompletion(MODEL, HI)
            assert caught.value.trail is not None
            attempts: Any = caught.value.trail["attempts"]
            assert [row["meaning"] for row in attempts] == ["daily_quota"]
            assert "detail" in attempts[0], "the whole story, not only what the error carries"
            assert len(await client.clear_rate_limits("groq")) == 1

    asyncio.run(main())


async def stream_to_end(stream: Any) -> None:
    async for _ in stream:
        pass


def test_LIB_01_the_same_keys_are_shared_and_others_are_not(beside: Path, upstreams: Upstreams) -> None:
    async def main() -> None:
        async with AsyncClient(api_keys={"groq": "gsk_of_environment"}) as same:
            assert isinstance(pool_of(same), RemoteDoorway)
        with pytest.warns(UserWarning, match="does not hold the given api_keys"):
            async with AsyncClient(api_keys={"groq": "gsk_unknown"}) as other:
                await other.chat("Hi", MODEL)
        with pytest.warns(UserWarning, match="share=False, though a gateway runs on"):
            apart = await open_doorway(share=False)
        await apart.chat("Hi", MODEL)
        assert not isinstance(pool_of(apart), RemoteDoorway)
        await apart.close()
        assert [each.key for each in upstreams.seen()] == ["gsk_unknown", "gsk_of_environment"]

    asyncio.run(main())


def test_LIB_01_threads_through_the_gateway(beside: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Client() as client, ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: client.chat(str(number), MODEL), range(40)))
    assert [answer.rpartition(" ")[2] for answer in answers] == [str(number) for number in range(40)]


def test_LIB_01_a_caller_of_the_gateway_is_told_by_its_key(beside: Path) -> None:
    (beside / "config").mkdir(exist_ok=True)

    async def main() -> None:
        with pytest.raises(ValueError, match="give caller_key, not caller"):
            await AsyncClient(caller="default").chat("Hi", MODEL)

    asyncio.run(main())


def test_LIB_01_when_the_gateway_stops_the_client_goes_on_by_itself(
    elsewhere: Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        client = AsyncClient()
        with serve(elsewhere, environ_of(upstreams)):
            await client.chat("Hi", MODEL)
            assert isinstance(pool_of(client), RemoteDoorway)
        assert (await client.chat("Hi", MODEL)).endswith(SAID)
        assert not isinstance(pool_of(client), RemoteDoorway)
        assert (elsewhere / ".cache" / "lock").read_text() == str(os.getpid())
        await client.close()

    asyncio.run(main())


def test_the_metrics_page_is_counted() -> None:
    page = (
        "# HELP keyturn_upstream_attempts_total x\n"
        'keyturn_upstream_attempts_total{provider="groq",tier="2",model="a,b",result="ok"} 3.0\n'
        'keyturn_upstream_attempts_total{provider="groq",tier="2",model="c",result="ok"} 1.0\n'
        'keyturn_upstream_attempts_total{provider="groq",tier="2",model="c",result="rate_limited"} 2.0\n'
        'keyturn_upstream_attempts_total{provider="g4f",tier="5",model="c",result="cancelled"} 2.0\n'
        'keyturn_tokens_total{provider="groq"} 99\n'
    )
    assert counted(page) == {"groq": (4, 2)}
    assert counted("") == {}


def test_LIB_01_a_gateway_that_was_started_anew_at_its_old_place_is_found(beside: Path) -> None:
    async def main() -> None:
        async with AsyncClient() as client:
            assert await client.get_status_summary()
            before = pool_of(client)
            assert isinstance(before, RemoteDoorway)
            before._admin = ("x-keyturn-admin", "", Secret("of the one before"))
            assert (await client.get_status_summary())["groq"]["total"] == 1
            assert pool_of(client) is not before

    asyncio.run(main())


def test_LIB_01_a_gateway_that_is_shutting_down_is_waited_for(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = RemoteDoorway._send
    refusal = b'{"error":{"message":"shutting down","code":"draining","keyturn":{"call":"c","attempts":[]}}}'
    refused: list[str] = []

    async def leaving(self: RemoteDoorway, request: HttpRequest) -> UpstreamResponse:
        if len(refused) < 2:
            refused.append(request.url)
            found: UpstreamResponse = await refuse(request, refusal)
            return found
        return await sent(self, request)

    async def refuse(request: HttpRequest, body: bytes) -> Any:
        return SimpleNamespace(status=503, headers={}, read=lambda most: answered(body), close=lambda: None)

    async def answered(body: bytes) -> bytes:
        return body

    async def main() -> None:
        async with AsyncClient() as client:
            await client.chat("Hi", MODEL)
            monkeypatch.setattr(RemoteDoorway, "_send", leaving)
            with pytest.raises(Draining, match=r"the gateway \(process \d+\) is shutting down"):
                await client.chat("Hi", MODEL, timeout=0.02)
            assert (await client.chat("Hi", MODEL)).endswith(SAID)

    asyncio.run(main())


def test_LIB_01_what_a_killed_gateway_left_behind_is_taken_away(elsewhere: Path) -> None:
    folder = DataFolder(elsewhere / ".cache")
    folder.create()
    folder.publish("http://127.0.0.1:9")
    folder.new_admin_key()
    with Client() as client:
        client.chat("Hi", MODEL)
        assert (folder.owner(), folder.admin_key()) == (None, None)
