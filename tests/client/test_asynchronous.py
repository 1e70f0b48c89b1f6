"""The asynchronous client over a simulated pool: every method, its errors, the callback before attempts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from keyturn import AsyncClient, ProviderExhaustedError, RotatingClient
from keyturn.client import Answer, Stream, Upcoming
from keyturn.errors import BadRequest, Draining, ModelNotFound, RequestError, UpstreamInterrupted, UpstreamRefused
from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
SAID = "This is the Keyturn simulator (groq/llama-3.1-8b-instant): … You said: Hi"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def over(world: World, **arguments: Any) -> AsyncClient:
    return AsyncClient.of(world.gateway, **arguments)


def run(test: Callable[[World, AsyncClient], Awaitable[None]], *, pool: Any = None, **options: Any) -> None:
    """*test* with a client over a World, in virtual time."""

    async def main() -> None:
        async with World(pool or {"groq": 2}, **options) as world, over(world) as client:
            await test(world, client)

    virtual.run(main)


async def read_into(chunks: list[Any], stream: Any) -> None:
    async for chunk in stream:
        chunks.append(chunk)


def test_API_02_LIB_02_a_completion_in_openais_shape() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        reply = await client.acompletion(model=MODEL, messages=HI, temperature=0.3, max_tokens=50, top_p=None)
        assert {"id", "object", "created", "model", "choices", "usage"} <= reply.keys()
        assert reply.object == "chat.completion"
        assert reply.choices[0].message.content == reply["choices"][0]["message"]["content"] == SAID
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
        assert (reply.keyturn.provider, reply.keyturn.attempts) == ("groq", 1)
        (seen,) = world.seen()
        body = json.loads(seen.body)
        assert (body["temperature"], body["max_tokens"]) == (0.3, 50)
        assert "top_p" not in body, "what is None was not given"
        again = await client.completion(model=MODEL, messages=[*HI, reply.choices[0].message, *HI])
        assert again.choices[0].message.role == "assistant"

    run(test, keep_bodies=True)


def test_LIB_02_a_stream_of_chunks() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        options = {"include_usage": True}
        stream = await client.acompletion(model=MODEL, messages=HI, stream=True, stream_options=options)
        assert isinstance(stream, Stream)
        assert stream.keyturn.provider == "groq"
        chunks = [chunk async for chunk in stream]
        assert chunks[0].object == "chat.completion.chunk"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
        assert chunks[-1].usage.completion_tokens > 0
        assert chunks[-2].choices[0].finish_reason == "stop"
        pieces = [piece async for piece in await client.chat(HI, MODEL, stream=True)]
        assert "".join(pieces) == SAID
        assert len(pieces) > 3
        assert [each.result for each in world.seen()] == ["served", "served"]

    run(test)


def test_LIB_02_a_stream_that_is_left_ends_upstream() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        async with await client.acompletion(model=MODEL, messages=HI, stream=True) as stream:
            async for _ in stream:
                break
        forgotten = await client.acompletion(model=MODEL, messages=HI, stream=True)
        await forgotten.__anext__()
        del forgotten
        await world.clock.sleep_until(world.clock.mono() + 1)
        assert world.gateway.inflight == 0
        assert {each.result for each in world.seen()} == {"cancelled"}

    run(test, pace=0.5)


def test_LIB_02_a_stream_that_is_cut_raises_after_what_came() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        for ask in (client.acompletion, client.messages):
            chunks: list[Any] = []
            stream = await ask(model=MODEL, messages=HI, stream=True)
            with pytest.raises(UpstreamInterrupted, match="interrupted") as caught:
                await read_into(chunks, stream)
            assert chunks, "what came is there"
            assert caught.value.trail is not None
            assert caught.value.trail["code"] == "upstream_interrupted"
            assert len(caught.value.trail["attempts"]) == 1  # type: ignore[arg-type]

    run(test, faults=[Fault(at_chunk=3, does="reset")])


def test_LIB_02_chat_takes_a_text_and_gives_one() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        assert await client.chat("Hi", MODEL) == SAID
        reply = await client.chat([*HI], MODEL, tools=[TOOL], tool_choice="required")
        assert reply == "", "a call of a tool has no text"

    run(test)


def test_LIB_02_without_a_model_the_route_auto_is_asked() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        assert (await client.chat("Hi")).endswith("You said: Hi")
        assert client.get_current_provider() == "groq"
        assert len(await client.embed(["a", "b"])) == 2
        assert client.get_current_provider() == "openai"

    run(test, pool={"groq": 1, "openai": 1}, environ={"PROVIDER_PRIORITY_OPENAI": "4"})


def test_LIB_02_the_other_forms() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        message = await client.messages(MODEL, HI, max_tokens=50)
        assert (message.type, message.content[0].text) == ("message", SAID)
        events = [event.type async for event in await client.anthropic_messages(MODEL, HI, stream=True)]
        assert (events[0], events[-1]) == ("message_start", "message_stop")
        response = await client.responses("Hi", MODEL)
        assert (response.object, response.output_text) == ("response", SAID)
        events = [event.type async for event in await client.responses("Hi", MODEL, stream=True)]
        assert (events[0], events[-1]) == ("response.created", "response.completed")
        counted = await client.anthropic_count_tokens(MODEL, HI)
        assert counted.input_tokens > 0
        assert await client.token_count(MODEL, text="Hello, how are you?") == await client.token_count(
            MODEL, "Hello, how are you?"
        )
        assert await client.token_count(MODEL, messages=HI * 50) > 100

    run(test)


def test_LIB_02_what_is_offered() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        names = await client.get_all_available_models(grouped=False)
        grouped = await client.get_all_available_models()
        assert MODEL in names
        assert MODEL in grouped["groq"]
        assert await client.get_available_models("groq") == grouped["groq"]
        assert await client.get_available_models("gemini") == []

    run(test)


def test_LIB_02_quotas_are_always_current() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        await client.chat("Hi", MODEL)
        stats = await client.get_quota_stats("groq")
        assert {"keys", "totals", "own"} <= stats.keys()
        assert stats["totals"]["keys"] == 2
        assert await client.force_refresh_quota("groq") == stats
        assert (await client.reload_usage_from_disk())["keys"] == stats["keys"]

    run(test)


def test_LIB_07_MON_10_status_summary_and_clearing() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        await client.chat("Hi", MODEL)
        with pytest.raises(ProviderExhaustedError):
            await client.chat("Hi", "gemini/gemini-3.8-flash")
        status = await client.get_status_summary()
        assert status.pop("timestamp") == "2026-03-02T12:00:00Z"
        assert set(status) == {"groq", "gemini"}
        assert status["gemini"] == {
            "total": 1,
            "available": 0,
            "rate_limited": 1,
            "total_success_calls": 0,
            "total_error_calls": 1,
        }
        assert status["groq"]["total_success_calls"] == 1
        assert status["groq"]["available"] == 2
        assert [key.partition(":")[0] for key in await client.clear_rate_limits("google_ai_studio")] == ["gemini-1"]
        assert (await client.get_status_summary())["gemini"]["available"] == 1
        assert await client.clear_rate_limits(["groq"]) == []
        assert await client.clear_rate_limits() == []

    run(test, pool={"groq": 2, "gemini": [KeyRule(state="daily_quota")]})


def test_ROT_16_the_provider_of_the_latest_answer() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        assert client.get_current_provider() is None
        first, second = (
            await client.acompletion(MODEL, HI),
            await client.acompletion("mistral/mistral-small-latest", HI),
        )
        assert client.get_current_provider() == "mistral"
        assert (first.keyturn.provider, second.keyturn.provider) == ("groq", "mistral"), "each answer tells it too"
        with pytest.raises(RequestError):
            await client.acompletion(MODEL, [])
        assert client.get_current_provider() == "mistral", "an error is no answer"
        assert over(world).get_current_provider() is None, "per client"

    run(test, pool={"groq": 1, "mistral": 1})


ROLES = "roles:\n  writer: { model_chain: [nix, llama-3.1-8b-instant], providers: [groq] }\n"


def test_LIB_10_a_role_answers_a_prompt() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        assert await client.complete("writer", "Hi") == SAID
        assert await client.complete("writer", "Hi", model_id=MODEL) == SAID
        assert await client.get_available_providers() == ["groq"]
        with pytest.raises(ModelNotFound, match="writer"):
            await client.complete("writre", "Hi")

    run(test, files={"roles.yaml": ROLES}, models={"groq": ["llama-3.1-8b-instant"]})


def test_LIB_09_CFG_51_priorities_as_the_client_is_configured() -> None:
    """The row has 10 for unknown providers; here everything else is 4 (design §5.8)."""

    async def test(world: World, client: AsyncClient) -> None:
        assert client.get_provider_priority("groq") == 7
        assert client.get_provider_priority("google_ai_studio") == 3
        assert client.get_provider_priority("nobody") == 4
        assert client.get_providers_by_priority() == ["mistral", "groq"]

    run(test, pool={"groq": 1, "mistral": 1}, environ={"PROVIDER_PRIORITY_GROQ": "7"})


def test_ERR_07_ERR_28_all_keys_exhausted_tells_the_whole_story() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        with pytest.raises(RuntimeError, match="All API keys exhausted") as caught:
            await client.acompletion(MODEL, HI)
        error = caught.value
        assert isinstance(error, ProviderExhaustedError)
        assert (error.code, error.status) == ("capacity", 429)
        assert error.retry_after is not None
        assert error.trail is not None
        attempts: Any = error.trail["attempts"]
        trail: Any = error.trail
        assert trail.attempts[0].provider == attempts[0]["provider"]
        assert [row["meaning"] for row in attempts] == ["daily_quota", "daily_quota"]
        assert {"route", "refusals", "notes", "waited_ms"} <= error.trail.keys()
        assert "secret-key" not in repr(error.trail) + str(error)

    run(test, pool={"groq": [KeyRule(state="daily_quota"), KeyRule(state="daily_quota")]})


def test_a_clients_mistake_is_raised_as_the_upstream_said_it() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        with pytest.raises(UpstreamRefused) as caught:
            await client.acompletion(MODEL, HI)
        assert caught.value.status == 400
        assert len(world.seen()) == 1, "sent once"
        with pytest.raises(BadRequest, match="messages"):
            await client.acompletion(MODEL, "Hi")
        with pytest.raises(TypeError, match="'tools' is a list"):
            await client.acompletion(MODEL, HI, tools=[object()])
        with pytest.raises(ValueError, match="timeout must be a positive number"):
            await client.acompletion(MODEL, HI, timeout=0)

    run(test, faults=[Fault(error="bad_request")])


def test_a_call_has_a_deadline_of_its_own() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        with pytest.raises(ProviderExhaustedError) as caught:
            await client.acompletion(MODEL, HI, timeout=2)
        assert (caught.value.code, caught.value.status) == ("deadline", 504)
        assert world.clock.mono() - virtual.START_MONO == pytest.approx(2, abs=0.1)

    run(test, latency=10.0)


def test_a_closed_client_says_so() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            client = over(world)
            await client.close()
            await client.close()
            with pytest.raises(Draining, match="this client is closed"):
                await client.chat("Hi", MODEL)

    virtual.run(main)


def test_ERR_28_the_older_name_of_the_client() -> None:
    assert RotatingClient is AsyncClient


# --- the callback before each attempt ---------------------------------------------------------------------------------


def test_LIB_03_the_callback_is_awaited_before_each_attempt_and_may_change_parameters() -> None:
    seen: list[tuple[Upcoming, dict[str, Any]]] = []

    async def callback(request: Upcoming, parameters: dict[str, Any]) -> None:
        seen.append((request, dict(parameters)))
        parameters["temperature"] = 0.5
        parameters["user"] = f"attempt {request.number}"
        parameters["messages"].append({"role": "user", "content": "and more"})
        parameters.pop("seed", None)

    async def main() -> None:
        pool = {"groq": [KeyRule(state="invalid_key"), KeyRule()]}
        async with World(pool, keep_bodies=True) as world:
            client = over(world, pre_request_callback=callback)
            reply = await client.acompletion(MODEL, HI, seed=7)
            assert [request.number for request, _ in seen] == [1, 2]
            first, second = (request for request, _ in seen)
            assert (first.provider, first.model, first.route) == ("groq", "llama-3.1-8b-instant", MODEL)
            assert first.call == second.call == reply.keyturn.call
            assert second.key == reply.keyturn.key != first.key
            assert "seed" in seen[0][1]
            assert "seed" not in seen[1][1], "what it changed stays changed"
            body = json.loads(world.seen()[-1].body)
            assert (body["temperature"], body["user"]) == (0.5, "attempt 2")
            assert len(body["messages"]) == 3
            assert "seed" not in body
            assert await client.chat("Hi", MODEL, pre_request_callback=lambda *_: None)
            assert len(seen) == 2, "a callback of one call stands in place of the client's"
            message = await client.messages(MODEL, HI)
            assert message.type == "message"

    virtual.run(main)


@pytest.mark.parametrize("abort", [True, False])
def test_LIB_03_a_callback_that_fails_ends_the_call_unless_told_otherwise(
    abort: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(request: Upcoming, parameters: dict[str, Any]) -> None:
        raise LookupError("no")

    async def main() -> None:
        async with World({"groq": 1}) as world:
            client = over(world, pre_request_callback=callback, abort_on_callback_error=abort)
            if abort:
                with pytest.raises(LookupError, match="no"):
                    await client.chat("Hi", MODEL)
                assert world.seen() == []
                with pytest.raises(LookupError):
                    await client.acompletion(MODEL, HI, stream=True)
            else:
                with caplog.at_level(logging.WARNING, "keyturn.client"):
                    assert await client.chat("Hi", MODEL)
                assert "pre_request_callback failed" in caplog.text

    virtual.run(main)


def test_LIB_03_a_callback_cannot_change_whom_to_ask() -> None:
    def callback(request: Upcoming, parameters: dict[str, Any]) -> None:
        parameters["model"] = "groq/other"

    async def main() -> None:
        async with World({"groq": 1}) as world:
            with pytest.raises(ValueError, match="cannot change 'model'"):
                await over(world, pre_request_callback=callback).chat("Hi", MODEL)

    virtual.run(main)


def test_LIB_03_a_call_that_is_cancelled_in_its_callback_leaves_nothing() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            reached, never = asyncio.Event(), asyncio.Event()

            async def callback(request: Upcoming, parameters: dict[str, Any]) -> None:
                reached.set()
                await never.wait()

            client = over(world, pre_request_callback=callback)
            task = asyncio.create_task(client.chat("Hi", MODEL))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert world.held() == 0
            assert world.gateway.inflight == 0

    virtual.run(main)


# --- many at once -----------------------------------------------------------------------------------------------------


def test_LIB_02_five_hundred_streams_at_once_leave_nothing() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        before = len(asyncio.all_tasks())

        async def read(number: int) -> str:
            stream = await client.chat(f"number {number}", MODEL, stream=True)
            return "".join([piece async for piece in stream])

        texts = await asyncio.gather(*(read(number) for number in range(500)))
        assert [text.endswith(f"You said: number {number}") for number, text in enumerate(texts)] == [True] * 500
        assert len(asyncio.all_tasks()) == before
        assert world.gateway.inflight == 0

    run(test, pace=0.01)


def test_answers_are_answers() -> None:
    async def test(world: World, client: AsyncClient) -> None:
        replies = await asyncio.gather(*(client.acompletion(MODEL, HI) for _ in range(3)))
        assert all(isinstance(reply, Answer) for reply in replies)
        assert len({reply.keyturn.call for reply in replies}) == 3

    run(test)


def test_calls_are_logged_when_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            with caplog.at_level(logging.INFO, "keyturn.client"):
                await over(world).chat("Hi", MODEL)
                assert caplog.text == ""
                await over(world, enable_request_logging=True).chat("Hi", MODEL)
            assert "200 by groq after 1" in caplog.text

    virtual.run(main)
