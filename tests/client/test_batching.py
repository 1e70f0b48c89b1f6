"""Embeddings: joined upstream, each caller with its own; and what other dialects make of dimensions and encoding."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn import AsyncClient, ProviderExhaustedError
from keyturn.client import Answer
from keyturn.client.batching import MOST_BYTES, MOST_INPUTS, Batcher, Part, divided
from keyturn.errors import BadUpstream, Draining, KeyturnError, UpstreamRefused
from tests.support import virtual
from tests.support.world import World

MODEL = "openai/text-embedding-3-small"


class Upstream:
    """Sends nothing: notes what it is asked, and answers each text by its length."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.error: dict[str, KeyturnError] = {}
        """Text -> what a request that holds it fails with."""
        self.release: asyncio.Event | None = None
        self.short = False

    async def send(self, members: Mapping[str, Any]) -> Answer:
        self.asked.append(members)
        if self.release is not None:
            await self.release.wait()
        texts = [members["input"]] if isinstance(members["input"], str) else members["input"]
        for text in texts:
            if text in self.error:
                raise self.error[text]
        rows = [{"index": index, "embedding": [len(text)]} for index, text in enumerate(texts)]
        total = sum(map(len, texts))
        rows = rows[1:] if self.short and len(rows) > 1 else rows
        return Answer({"object": "list", "data": rows, "usage": {"prompt_tokens": total, "total_tokens": total}})


async def embed(batcher: Batcher, *inputs: Any, **more: Any) -> list[Any]:
    """All at once: each caller's vectors, or its error."""
    calls = (batcher.embed({"model": "m", "input": each, **more}) for each in inputs)
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [
        each if isinstance(each, BaseException) else [row["embedding"][0] for row in each["data"]] for each in found
    ]


def batcher_of(upstream: Upstream, window: float = 0.005) -> Batcher:
    return Batcher(virtual.VirtualClock(), window, upstream.send)


def test_CAC_02_calls_within_the_window_are_one_request() -> None:
    async def main() -> None:
        upstream = Upstream()
        batcher = batcher_of(upstream)
        assert await embed(batcher, "a", ["bb", "ccc"], "dddd") == [[1], [2, 3], [4]]
        assert [each["input"] for each in upstream.asked] == [["a", "bb", "ccc", "dddd"]]
        upstream.asked.clear()
        assert await embed(batcher, "alone") == [[5]]
        assert upstream.asked == [{"model": "m", "input": "alone"}], "as it was given"

    virtual.run(main)


def test_CAC_02_only_what_differs_in_its_texts_alone_is_joined() -> None:
    async def main() -> None:
        upstream = Upstream()
        batcher = batcher_of(upstream)
        calls: list[dict[str, Any]] = [
            {"model": "m", "input": "a", "dimensions": 8, "user": "u"},
            {"model": "m", "input": "b", "user": "u", "dimensions": 8},
            {"model": "m", "input": "c", "dimensions": 9},
            {"model": "n", "input": "d"},
        ]
        await asyncio.gather(*(batcher.embed(each) for each in calls))
        assert [each["input"] for each in upstream.asked] == [["a", "b"], "c", "d"]
        with pytest.raises(TypeError):  # tokens are sent as they are, which this upstream does not read
            await batcher.embed({"model": "m", "input": [1, 2, 3]})
        assert upstream.asked[-1]["input"] == [1, 2, 3]

    virtual.run(main)


def test_CAC_02_a_request_has_at_most_so_many_texts_and_bytes() -> None:
    async def main() -> None:
        upstream = Upstream()
        batcher = batcher_of(upstream)
        started = virtual.VirtualClock().mono()
        await embed(batcher, *(["x"] * 40, ["y"] * 30, "z"))
        assert [len(each["input"]) for each in upstream.asked] == [40, 31]
        upstream.asked.clear()
        await embed(batcher, ["x"] * 63, "y")
        assert [len(each["input"]) for each in upstream.asked] == [MOST_INPUTS]
        upstream.asked.clear()
        await embed(batcher, ["x"] * 100)
        assert [len(each["input"]) for each in upstream.asked] == [100], "who sends many is not cut up"
        upstream.asked.clear()
        await embed(batcher, "x" * (MOST_BYTES - 1), "yy")
        assert len(upstream.asked) == 2
        assert virtual.VirtualClock().mono() - started < 0.02, "nobody waits longer than the window"

    virtual.run(main)


def test_CAC_02_one_texts_fault_is_that_callers_alone() -> None:
    async def main() -> None:
        upstream = Upstream()
        upstream.error["bad"] = UpstreamRefused("too long", 400, "context_length_exceeded")
        found = await embed(batcher_of(upstream), "good", "bad", ["fine", "too"])
        assert found[0] == [4]
        assert isinstance(found[1], UpstreamRefused)
        assert found[2] == [4, 3]
        assert [each["input"] for each in upstream.asked] == [
            ["good", "bad", "fine", "too"],
            "good",
            "bad",
            ["fine", "too"],
        ]

    virtual.run(main)


def test_CAC_02_an_answer_that_cannot_be_divided_is_asked_for_singly() -> None:
    async def main() -> None:
        upstream = Upstream()
        upstream.short = True
        assert await embed(batcher_of(upstream), "a", "bb") == [[1], [2]]

    virtual.run(main)


def test_CAC_02_what_is_nobodys_fault_is_told_to_all_and_not_asked_again() -> None:
    async def main() -> None:
        upstream = Upstream()
        upstream.error["a"] = BadUpstream("all failed")
        found = await embed(batcher_of(upstream), "a", "bb")
        assert [str(each) for each in found] == ["all failed"] * 2
        assert found[0] is not found[1]
        assert len(upstream.asked) == 1

    virtual.run(main)


def test_CAC_02_who_leaves_does_not_take_the_others_along() -> None:
    async def main() -> None:
        upstream = Upstream()
        batcher = batcher_of(upstream)
        clock = virtual.VirtualClock()
        before = asyncio.create_task(batcher.embed({"model": "m", "input": "left before"}))
        stays = asyncio.create_task(batcher.embed({"model": "m", "input": "stays"}))
        during = asyncio.create_task(batcher.embed({"model": "m", "input": "left"}))
        await asyncio.sleep(0)
        before.cancel()
        upstream.release = asyncio.Event()
        await clock.sleep_until(clock.mono() + 1)
        during.cancel()
        await asyncio.sleep(0)
        upstream.release.set()
        assert [row["embedding"] for row in (await stays)["data"]] == [[5]]
        assert [each["input"] for each in upstream.asked] == [["stays", "left"]]
        upstream.release.clear()
        all_of_them = [asyncio.create_task(batcher.embed({"model": "m", "input": each})) for each in ("a", "b")]
        await clock.sleep_until(clock.mono() + 1)
        for task in all_of_them:
            task.cancel()
        await asyncio.gather(*all_of_them, return_exceptions=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "nobody waits, so the request is given up"

    virtual.run(main)


def test_CAC_02_closing_ends_what_waits() -> None:
    async def main() -> None:
        upstream = Upstream()
        batcher = batcher_of(upstream, window=60.0)
        waits = asyncio.create_task(batcher.embed({"model": "m", "input": "a"}))
        await asyncio.sleep(0)
        upstream.release = asyncio.Event()
        sent = asyncio.gather(*(batcher.embed({"model": "m", "input": ["x"] * 32}) for _ in range(2)))
        await asyncio.sleep(0)
        await batcher.close()
        for each in (waits, sent):
            with pytest.raises(Draining, match="this client is closed"):
                await each

    virtual.run(main)


@settings(max_examples=40)
@given(st.lists(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4), min_size=1, max_size=6), st.data())
def test_CAC_02_shares_add_up_and_vectors_keep_their_order(parts: list[list[str]], data: st.DataObject) -> None:
    tokens = data.draw(st.integers(0, 10_000))

    async def main() -> None:
        future = asyncio.get_running_loop().create_future
        flat = [text for texts in parts for text in texts]
        rows = data.draw(st.permutations([{"index": i, "embedding": text} for i, text in enumerate(flat)]))
        joint = Answer({"data": rows, "usage": {"prompt_tokens": tokens, "cost": 1.0}, "model": "m"})
        answers = divided(joint, [Part(texts, len("".join(texts).encode()), future()) for texts in parts])
        assert [[row["embedding"] for row in answer["data"]] for answer in answers] == parts
        assert [[row["index"] for row in answer["data"]] for answer in answers] == [list(range(len(p))) for p in parts]
        assert sum(answer["usage"]["prompt_tokens"] for answer in answers) == tokens
        assert min(answer["usage"]["prompt_tokens"] for answer in answers) >= 0
        assert sum(answer["usage"]["cost"] for answer in answers) == pytest.approx(1.0)

    virtual.run(main)


def test_CAC_02_LIB_02_a_burst_of_embeddings_is_one_upstream_call() -> None:
    async def main() -> None:
        async with World({"openai": 1}, keep_bodies=True) as world, AsyncClient.of(world.gateway) as client:
            texts = [f"text {number}" for number in range(20)]
            replies = await asyncio.gather(*(client.aembedding(MODEL, text) for text in texts))
            (seen,) = world.seen()
            assert json.loads(seen.body)["input"] == texts
            assert [len(reply.data) for reply in replies] == [1] * 20
            assert replies[7].data[0].index == 0
            assert len({json.dumps(reply.data[0].embedding) for reply in replies}) == 20, "each its own"
            assert replies[0].keyturn.provider == "openai"
            alone = await client.embed(texts[7], MODEL)
            assert alone == [replies[7].data[0].embedding]
            assert await client.embed([], MODEL) == []
            assert len(await client.embed(["a", "b"], MODEL)) == 2

    virtual.run(main)


def test_CAC_02_joining_can_be_turned_off() -> None:
    async def main() -> None:
        async with World({"openai": 1}) as world:
            client = AsyncClient.of(world.gateway, embedding_batch_window=0)
            await asyncio.gather(*(client.aembedding(MODEL, text) for text in "abc"))
            assert len(world.seen()) == 3
            other = AsyncClient.of(world.gateway)
            await asyncio.gather(*(other.aembedding(MODEL, text, timeout=5) for text in "abc"))
            assert len(world.seen()) == 6, "a deadline of its own is not shared"

    virtual.run(main)


def test_CAC_02_errors_of_the_pool_reach_every_caller() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world, AsyncClient.of(world.gateway) as client:
            calls = (client.aembedding("openai/text-embedding-3-small", text) for text in "ab")
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(each, KeyturnError) for each in found)
            assert not any(isinstance(each, ProviderExhaustedError) for each in found), "it is the name that is wrong"

    virtual.run(main)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "text-embedding-3-small"), ("gemini", "gemini-embedding-001")]
)
def test_LIB_02_dimensions_and_encoding_hold_whatever_the_upstream_speaks(provider: str, model: str) -> None:
    async def main() -> None:
        async with World({provider: 1}, keep_bodies=True) as world, AsyncClient.of(world.gateway) as client:
            route = f"{provider}/{model}"
            floats = (await client.aembedding(route, ["a", "b"], dimensions=8, encoding_format="float")).data
            packed = (await client.aembedding(route, ["a", "b"], dimensions=8, encoding_format="base64")).data
            assert [len(row.embedding) for row in floats] == [8, 8]
            for plain, row in zip(floats, packed, strict=True):
                assert list(struct.unpack("<8f", base64.b64decode(row.embedding))) == pytest.approx(plain.embedding)
            assert floats[0].embedding != floats[1].embedding

    virtual.run(main)


def test_CAC_02_what_goes_wrong_unexpectedly_reaches_every_caller() -> None:
    """A mistake of ours is told as what it is: a cancellation would end the caller's own task silently."""

    async def main() -> None:
        async def send(members: Mapping[str, Any]) -> Answer:
            raise ZeroDivisionError

        batcher = Batcher(virtual.VirtualClock(), 0.005, send)
        assert [type(each) for each in await embed(batcher, "a", "b")] == [ZeroDivisionError] * 2

    virtual.run(main)


def test_CAC_02_a_text_that_cannot_be_written_is_refused_for_its_caller_alone() -> None:
    async def main() -> None:
        async with World({"openai": 1}) as world, AsyncClient.of(world.gateway) as client:
            good, bad = client.embed("good", MODEL), client.embed("\ud800", MODEL)
            found = await asyncio.gather(good, bad, return_exceptions=True)
            assert isinstance(found[0], list)
            assert isinstance(found[1], TypeError)
            assert "'input'" in str(found[1])

    virtual.run(main)
