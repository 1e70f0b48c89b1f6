"""G4F, the last resort: every test sends real requests through the gateway; the simulator says what arrived."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import load
from keyturn.core import Caller
from keyturn.dispatch import SystemClock, build, draw, new_id, read_call
from keyturn.simulator import PERSONAS, Fault, KeyRule, Simulator

from .cli.conftest import Terminal
from .support import virtual
from .support.raw_upstream import RawUpstream, answer, says
from .support.serving import simulate
from .support.world import World

HOSTED = "https://g4f.test/v1"
FIVE = {f"G4F_{name}_API_BASE": f"{HOSTED}/{name.lower()}" for name in ("MAIN", "GROQ", "GROK", "GEMINI", "NVIDIA")}
MAIN = {"G4F_MAIN_API_BASE": HOSTED}
MODEL = "gpt-4o-mini"
TIERS = {"openai": 1, "groq": 1, "gemini": 1}
OFFERED = {name: [MODEL] for name in ("openai", "groq", "gemini", "g4f")}


def played(
    story: Callable[[World], Awaitable[None]],
    pool: dict[str, int | Sequence[KeyRule]] | None = None,
    *faults: Fault,
    environ: dict[str, str] | None = None,
    **more: Any,
) -> None:
    async def main() -> None:
        async with World(pool or {}, environ=MAIN if environ is None else environ, faults=faults, **more) as world:
            await story(world)

    virtual.run(main)


def asked(world: World) -> list[str]:
    """The providers that were asked for an answer, in order."""
    return [each.provider for each in world.seen()]


# --- reaching it --------------------------------------------------------------------------------------------------


def test_RTE_13_a_model_is_asked_at_its_endpoint() -> None:
    async def story(world: World) -> None:
        for model in ("gpt-4o", "groq/compound", "grok-3", "gemini-2.5-flash", "llama-nemotron"):
            assert (await world.chat(f"g4f/{model}")).status == 200
        assert [(each.path.split("/")[2], each.model) for each in world.seen()] == [
            ("main", "gpt-4o"),
            ("groq", "groq/compound"),
            ("grok", "grok-3"),
            ("gemini", "gemini-2.5-flash"),
            ("nvidia", "llama-nemotron"),
        ]

    played(story, environ=FIVE)


def test_RTE_13_what_is_offered_is_what_its_endpoint_lists() -> None:
    async def story(world: World) -> None:
        rows = [row.id for row in await world.gateway.models() if row.provider == "g4f"]
        assert sorted(rows) == sorted(f"g4f/{model}" for model in PERSONAS["g4f"].models)
        assert len(world.upstream.select(kind="models")) == 5
        assert (await world.chat("grok-3")).headers["x-keyturn-provider"] == "g4f"  # a bare name that only it offers
        assert world.seen()[0].path.startswith("/g4f/grok/")

    played(story, environ=FIVE)


def test_PRV_20_without_a_key_no_header_is_sent_and_with_one_it_is_a_bearer() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("g4f/gpt-4o")).status == 200
        assert "authorization" not in world.seen()[0].headers

    async def keyed(world: World) -> None:
        assert (await world.chat("g4f/gpt-4o")).status == 200
        assert world.seen()[0].headers["authorization"] == "Bearer g4f-secret-key-1"

    played(story, keep_bodies=True)
    played(keyed, {"g4f": 1}, keep_bodies=True)


def test_PRV_20_a_key_without_an_address_asks_nobody() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("g4f/gpt-4o")
        assert (answer.status, answer.code) == (404, "model_not_found")
        assert "set G4F_API_BASE" in answer.json()["error"]["message"]
        assert world.seen() == []

    played(story, {"g4f": 1}, environ={})


def test_PRV_20_answers_have_the_shape_of_openai() -> None:
    async def story(world: World) -> None:
        plain = (await world.chat("g4f/gpt-4o", text="Hello")).json()
        assert (plain["object"], plain["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
        assert plain["usage"]["total_tokens"] > 0
        stream = await world.chat("g4f/gpt-4o", text="Hello", stream=True)
        chunks = [json.loads(event) for event in stream.events[:-1]]
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert stream.events[-1] == "[DONE]"
        assert stream.text == plain["choices"][0]["message"]["content"]

    played(story)


def test_PRV_20_no_embeddings() -> None:
    async def story(world: World) -> None:
        answer = await world.send("embeddings", {"model": "g4f/embed", "input": "a"})
        assert (answer.status, answer.code) == (404, "model_not_found")
        assert world.upstream.log == []

    played(story)


def test_PRV_20_it_costs_nothing_also_with_a_key() -> None:
    async def story(world: World) -> None:
        caller = replace(world.gateway.config.default_caller, name="team")
        assert (await world.chat("g4f/gpt-4o", caller=caller)).status == 200
        deployment = world.gateway.lists.catalog.deployment("g4f", "gpt-4o")
        price = world.gateway.generation.prices.of(deployment)
        assert price is not None
        assert price.blended == 0.0

    played(story, {"g4f": 1})


# --- the last tier ------------------------------------------------------------------------------------------------


def test_RTE_14_never_asked_while_a_higher_tier_can_answer() -> None:
    async def story(world: World) -> None:
        for _ in range(3):
            answers = await world.many(MODEL, 4)
            assert {answer.status for answer in answers} == {200}
        assert "g4f" not in asked(world)
        assert answers[0].headers.get("x-fallback-provider") is None

    played(story, dict(TIERS), models=OFFERED)


def test_RTE_14_asked_last_when_every_tier_above_it_fails() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(MODEL)
        assert answer.status == 200
        assert asked(world) == ["openai", "groq", "gemini", "g4f"]
        assert answer.headers["x-keyturn-provider"] == answer.headers["x-fallback-provider"] == "g4f"

    faults = {"openai": "overloaded", "groq": "rate_limited", "gemini": "server_error"}
    met = (Fault(provider=name, kind="chat", error=error) for name, error in faults.items())
    played(story, dict(TIERS), *met, models=OFFERED)


def test_RTE_14_it_stands_in_for_the_same_model_elsewhere() -> None:
    async def story(world: World) -> None:
        assert (await world.chat("openai/gpt-4o")).headers["x-fallback-provider"] == "g4f"
        assert [(each.provider, each.model) for each in world.seen()] == [("openai", "gpt-4o"), ("g4f", "gpt-4o")]
        assert (await world.chat("openai/some-other-model")).status == 503

    played(story, {"openai": 1}, Fault(provider="openai", error="insufficient_credit"))


def test_RTE_14_its_tier_can_be_moved() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(MODEL)).headers["x-keyturn-provider"] == "g4f"

    played(
        story,
        dict(TIERS),
        environ={**MAIN, "PROVIDER_PRIORITY_G4F": "1", "PROVIDER_PRIORITY_OPENAI": "2"},
        models=OFFERED,
    )


def test_MON_14_the_list_of_providers_tells_that_it_is_a_fallback() -> None:
    async def story(world: World) -> None:
        await world.gateway.models()
        rows = {row["name"]: row for row in world.gateway.providers()}
        assert (rows["g4f"]["fallback"], rows["g4f"]["tier"]) == (True, 5)
        assert rows["g4f"]["endpoints"] == ["main", "groq", "grok", "gemini", "nvidia"]
        assert (rows["groq"]["fallback"], rows["groq"]["endpoints"]) == (False, [])
        other = {row["name"]: row for row in world.gateway.providers(Caller("team"))}
        assert other["g4f"]["base_url"] is None

    played(story, {"groq": 1}, environ=FIVE)


# --- its failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("quirk", "meaning", "detail"),
    [
        ("block_page", "server_error", "a web page came instead of an answer: Just a moment..."),
        ("plain_text", "rate_limited", "Rate limit reached, please try again later."),
    ],
)
def test_ERR_30_what_is_no_answer_is_a_fault_and_the_next_is_asked(
    quirk: str, meaning: str, detail: str, stream: bool
) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(MODEL, stream=stream)
        assert answer.status == 200
        assert answer.headers["x-keyturn-provider"] == "groq"
        (trail,) = world.gateway.recent.values()
        first = trail.attempts[0]
        assert (first.provider, first.meaning, first.status, first.detail) == ("g4f", meaning, 200, detail)

    environ = {**MAIN, "PROVIDER_PRIORITY_G4F": "1"}
    fault = Fault(provider="g4f", kind="chat", quirks=frozenset({quirk}))
    played(story, {"groq": 1}, fault, environ=environ, models=OFFERED)


def test_ERR_30_a_block_page_when_nobody_else_is_left_is_an_honest_error() -> None:
    async def story(world: World) -> None:
        for stream in (False, True):
            answer = await world.chat("g4f/gpt-4o", stream=stream)
            assert (answer.status, answer.code) == (502, "bad_upstream")
            assert b"<" not in answer.body

    played(story, None, Fault(provider="g4f", kind="chat", quirks=frozenset({"block_page"})))


def test_ERR_30_other_providers_block_pages_too() -> None:
    async def story(world: World) -> None:
        assert (await world.chat(MODEL, stream=True)).headers["x-keyturn-provider"] == "g4f"
        (trail,) = world.gateway.recent.values()
        assert trail.attempts[0].detail == "a web page came instead of an answer: Just a moment..."

    fault = Fault(provider="groq", kind="chat", quirks=frozenset({"block_page", "bytewise"}))
    played(story, {"groq": 1}, fault, models=OFFERED)


def test_STR_10_an_error_chunk_before_content_moves_on_and_after_it_is_told() -> None:
    async def story(world: World) -> None:
        moved = await world.chat("first", stream=True)
        assert moved.headers["x-keyturn-provider"] == "groq"
        assert moved.events[-1] == "[DONE]"
        assert "error" not in moved.events[0]
        cut = await world.chat("g4f/gpt-4o", stream=True)
        assert cut.status == 200
        assert json.loads(cut.events[-1])["error"]["code"] == "upstream_interrupted"

    aliases = "aliases:\n  first: [g4f/gpt-4o-mini, groq/gpt-4o-mini]\n"
    early = Fault(provider="g4f", model=MODEL, kind="chat", error="rate_limited", at_chunk=0)
    late = Fault(provider="g4f", model="gpt-4o", kind="chat", error="server_error", at_chunk=3, pace=0.1)
    played(story, {"groq": 1}, early, late, files={"models.yaml": aliases}, models=OFFERED | {"g4f": [MODEL, "gpt-4o"]})


def test_STR_10_advertisements_are_part_of_the_answer() -> None:
    async def story(world: World) -> None:
        plain, stream = await world.chat("g4f/gpt-4o"), await world.chat("g4f/gpt-4o", stream=True)
        assert plain.text == stream.text
        assert plain.text.endswith("cheaper than the market?")

    played(story, None, Fault(provider="g4f", quirks=frozenset({"advert"})))


def test_PRV_20_one_resend_after_500_none_after_503_or_a_mistake() -> None:
    """Not three times, as the row has it: a 500 is sent again once, and only when nothing else is left."""

    async def story(world: World) -> None:
        assert (await world.chat("g4f/again")).status == 200
        assert (await world.chat("g4f/down")).status == 502
        assert (await world.chat("g4f/wrong")).status == 422
        assert (await world.chat("g4f/gone")).status == 404
        assert [each.model for each in world.seen()] == ["again", "again", "down", "wrong", "gone"]

    faults = [Fault(provider="g4f", model="again", error="server_error", times=1)]
    faults += [Fault(provider="g4f", model="down", error="overloaded", status=503)]
    faults += [Fault(provider="g4f", model="wrong", error="bad_request"), Fault(model="gone", error="not_found")]
    played(story, None, *faults)


@pytest.mark.parametrize(
    ("fault", "longest"),
    [
        (Fault(provider="g4f", error="rate_limited", status=429, headers={"retry-after": "500"}), 60.0),
        (Fault(provider="g4f", error="daily_quota", wait=36_000.0), 5.0),
        (Fault(provider="g4f", error="overloaded", status=503, headers={"retry-after": "900"}), 20.0),
        (Fault(provider="g4f", error="forbidden", status=403), 60.0),
    ],
    ids=["rate limit", "quota", "overload", "forbidden"],
)
def test_ERR_31_it_never_rests_long_whatever_is_asked_for(fault: Fault, longest: float) -> None:
    async def story(world: World) -> None:
        for _ in range(4):  # also when it happens again and again
            before = len(world.seen())
            assert (await world.chat("g4f/gpt-4o", timeout=0.5)).status in (429, 502, 503)
            assert len(world.seen()) > before
            await asyncio.sleep(longest + 0.1)

    played(story, None, fault)


def test_ERR_31_others_rest_as_long_as_they_ask_for() -> None:
    async def story(world: World) -> None:
        await world.chat("groq/m", timeout=0.5)
        await asyncio.sleep(100.0)
        assert (await world.chat("groq/m", timeout=0.5)).status == 429
        assert len(world.seen()) == 1

    played(story, {"groq": 1}, Fault(provider="groq", error="rate_limited", wait=500.0))


# --- on real connections ------------------------------------------------------------------------------------------


def test_CAC_01_calls_one_after_the_other_share_one_connection() -> None:
    said = b'{"id": "a", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", '
    said += b'"content": "Hi"}, "finish_reason": "stop"}]}'

    async def main() -> None:
        async with RawUpstream(says(answer(said), then="again")) as upstream:
            environ = {"G4F_MAIN_API_BASE": upstream.url, "G4F_GROQ_API_BASE": upstream.url}
            gateway = build(load(environ, cwd=Path("/nonexistent")))
            try:
                for model in ("gpt-4o", "gpt-4o", "groq/compound", "llama", "gpt-4o"):
                    body = {"model": f"g4f/{model}", "messages": [{"role": "user", "content": "Hello"}]}
                    call = read_call("chat", json.dumps(body).encode(), {})
                    reply = await gateway.handle(call, Caller(), new_id(gateway.clock.wall()))
                    assert reply.status == 200
            finally:
                await gateway.close()
            assert (len(upstream.heard), upstream.accepted) == (5, 1)

    asyncio.run(main())


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(tmp_path, monkeypatch)


def test_MON_14_keys_test_tells_of_each_endpoint(terminal: Terminal) -> None:
    blocked = Fault(provider="g4f", model="grok-*", quirks=frozenset({"block_page"}))
    with simulate(Simulator(SystemClock(), draw, faults=[blocked])) as upstreams:
        base = f"{upstreams.url}/g4f"
        terminal.set(G4F_MAIN_API_BASE=f"{base}/main/v1", G4F_GROQ_API_BASE=f"{base}/groq/v1")
        fine = terminal.run("keys", "test", "g4f", "--json")
        assert fine.exit_code == 0
        rows = {row["endpoint"]: row for row in json.loads(fine.stdout)}
        assert list(rows) == ["main", "groq", "grok", "gemini", "nvidia"]
        assert {name: row["meaning"] for name, row in rows.items() if row["meaning"] != "not_set"} == {
            "main": "ok",
            "groq": "ok",
        }
        assert rows["groq"]["message"] == "1 models listed; groq/compound answers"
        assert rows["nvidia"]["message"] == "G4F_NVIDIA_API_BASE is not set"
        terminal.set(G4F_GROK_API_BASE=f"{base}/grok/v1")
        terminal.set(G4F_GEMINI_API_BASE="http://127.0.0.1:9/v1")  # nobody listens there
        bad = terminal.run("keys", "test", "g4f")
        assert bad.exit_code == 1
        assert "grok: 1 models listed; grok-3: a web page came instead of an answer: Just a moment..." in bad.stdout
        assert "gemini: " in bad.stdout
        assert "nvidia: G4F_NVIDIA_API_BASE is not set" in bad.stdout


def test_DOC_04_readme_and_env_example_tell_of_g4f() -> None:
    root = Path(__file__).parents[1]
    readme, example = (root / "README.md").read_text(), (root / ".env.example").read_text()
    assert "\n## G4F Fallback Providers\n" in readme
    for name in (*FIVE, "G4F_API_KEY", "G4F_ALLOW_INSECURE_HTTP", "PROVIDER_PRIORITY_G4F"):
        assert name in readme
        assert f"{name}=" in example


def test_DOC_04_config_show_and_doctor_know_the_endpoints(terminal: Terminal) -> None:
    terminal.set(G4F_API_BASE="http://127.0.0.1:9/v1", G4F_GROQ_API_BASE="https://g4f.test/groq")
    shown = terminal.run("config", "show").stdout
    assert "G4F_API_BASE (environment)" in shown
    assert "G4F_GROQ_API_BASE (environment)" in shown
    said = "no key needed, main at http://127.0.0.1:9/v1, groq at https://g4f.test/groq"
    assert said in terminal.run("doctor").stdout


def test_TST_08_the_demo_goes_as_told(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[1] / "examples" / "demo_g4f_fallback.py"
    spec = importlib.util.spec_from_file_location("demo_g4f_fallback", path)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert asyncio.run(demo.main()) == 0
    said = capsys.readouterr().out
    assert "tier 5  g4f     ok" in said
    assert "x-fallback-provider: g4f" in said
    assert "G4F was asked 2 times for 4 calls" in said
