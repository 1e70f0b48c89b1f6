"""Command line tools as providers, through the whole gateway: they answer, stream, fail, hang or are not there."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, load
from keyturn.core import Caller, Route
from keyturn.dispatch import new_id, read_call
from keyturn.providers import Provider, Tool
from tests.support.tools import Tools, ToolWorld, all_gone, prints

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(sys.platform == "win32", reason="the stubs are shell scripts"),
]

CODEX = prints(
    {"type": "thread.started", "thread_id": "t-1"},
    {"type": "item.completed", "item": {"type": "error", "message": "a mere warning"}},
    {"type": "item.completed", "item": {"type": "agent_message", "text": "Blue."}},
    {"type": "turn.completed", "usage": {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 3}},
)


def piece(text: str) -> dict[str, Any]:
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    return {"type": "stream_event", "parent_tool_use_id": None, "event": delta}


def result(text: str, *, failed: bool = False) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 3}
    return {"type": "result", "subtype": "success", "is_error": failed, "result": text, "usage": usage}


def codex_fails(message: str) -> str:
    return prints({"type": "error", "message": message}, {"type": "turn.failed", "error": {"message": message}}) + (
        "\nexit 1"
    )


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


def within(config: Config, main: Callable[[ToolWorld], Awaitable[None]]) -> None:
    """Runs *main* in a gateway over *config*, and checks that nothing is left of it."""

    async def watched() -> None:
        async with ToolWorld(config) as world:
            await main(world)

    asyncio.run(watched())


def test_CLI_01_codex_answers(tools: Tools) -> None:
    tools.add("codex", f'printf "%s\\n" "$*" >> "$NOTES"; cat >> "$NOTES"\n{CODEX}')

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("codex_cli/gpt-x", text="What colour?", temperature=0)
        assert (answer.status, answer.text) == (200, "Blue.")
        assert answer.headers["x-keyturn-provider"] == "codex_cli"
        assert answer.json()["model"] == "gpt-x"
        usage = answer.json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 3, 13)
        argv, prompt = tools.noted()
        assert argv.startswith("exec --json")
        assert argv.endswith("-m gpt-x -")
        assert prompt == "What colour?"
        (trail,) = world.gateway.recent.values()
        assert "dropped temperature" in trail.notes
        assert trail.attempts[0].usage is not None
        assert trail.attempts[0].usage[:3] == (10, 3, 4)

    within(tools.config("codex_cli"), main)


@pytest.mark.parametrize("wants_usage", [False, True])
def test_CLI_01_codex_answers_a_streamed_call_in_one_piece(tools: Tools, wants_usage: bool) -> None:
    tools.add("codex", CODEX)

    async def main(world: ToolWorld) -> None:
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants_usage else {}
        answer = await world.chat("codex_cli/gpt-x", stream=True, **options)
        assert (answer.status, answer.text, answer.events[-1]) == (200, "Blue.", "[DONE]")
        chunks = [json.loads(event) for event in answer.events[:-1]]
        assert [chunk for chunk in chunks if not chunk["choices"]] == (chunks[-1:] if wants_usage else [])
        (trail,) = world.gateway.recent.values()
        assert trail.attempts[0].usage is not None
        assert trail.attempts[0].usage.exact

    within(tools.config("codex_cli"), main)


def test_CLI_02_claude_streams_as_it_writes(tools: Tools) -> None:
    """The second piece is written only once the first has been read."""
    wait = 'while [ ! -e "$NOTES" ]; do sleep 0.01; done'
    tools.add("claude", f"{prints(piece('Bl'))}\n{wait}\n{prints(piece('ue.'), result('Blue.'))}")

    async def main(world: ToolWorld) -> None:
        body = {"model": "claude_code/sonnet", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        call = read_call("chat", json.dumps(body).encode(), {})
        reply = await world.gateway.handle(call, Caller(), new_id(world.clock.wall()))
        assert reply.stream is not None
        first = await anext(reply.stream)
        assert b'"content":"Bl"' in first
        tools.take_note("go on")
        rest = b"".join([chunk async for chunk in reply.stream])
        reply.close()
        assert b'"content":"ue."' in rest
        assert rest.endswith(b"data: [DONE]\n\n")

    within(tools.config("claude_code"), main)


def test_CLI_02_gemini_and_a_tool_without_a_format_answer_too(tools: Tools) -> None:
    said = {"type": "message", "role": "assistant", "content": "Blue.", "delta": True}
    tools.add("gemini", prints(said, {"type": "result", "status": "success"}))
    tools.add("mine", 'echo "$1 says: $(cat)"')
    mine = Provider("mine", models_path="", models=("m",), tool=Tool(("mine", "${MODEL}"), "text"))

    async def main(world: ToolWorld) -> None:
        for stream in (False, True):
            assert (await world.chat("gemini_cli/flash", stream=stream)).text == "Blue."
            assert (await world.chat("mine/m 1".replace(" ", ":"), stream=stream)).text == "m:1 says: Hello"

    within(tools.config("gemini_cli", mine), main)


def test_CLI_03_a_failing_tool_is_told_with_its_stderr(tools: Tools) -> None:
    tools.add("codex", "echo 'Error loading config.toml: line 3' >&2; exit 3")

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("codex_cli/gpt-x")
        assert (answer.status, answer.code) == (502, "bad_upstream")
        message = answer.json()["error"]["message"]
        assert "codex_cli failed (exit code 3): Error loading config.toml: line 3" in message

    within(tools.config("codex_cli"), main)


def test_CLI_03_a_missing_program_is_told_with_what_to_do(tools: Tools) -> None:
    async def main(world: ToolWorld) -> None:
        answer = await world.chat("codex_cli/gpt-x", stream=True)
        assert (answer.status, answer.code) == (502, "bad_upstream")
        message = answer.json()["error"]["message"]
        assert "there is no program 'codex'" in message
        assert "PATH" in message

    within(tools.config("codex_cli"), main)


@pytest.mark.parametrize("stream", [False, True])
def test_CLI_03_garbage_is_no_answer(tools: Tools, stream: bool) -> None:
    tools.add("codex", "echo 'Blue, since you ask.'")

    async def main(world: ToolWorld) -> None:
        assert (await world.chat("codex_cli/gpt-x", stream=stream)).code == "bad_upstream"

    within(tools.config("codex_cli"), main)


@pytest.mark.parametrize("stream", [False, True])
def test_CLI_03_a_hang_is_ended_within_its_timeout(tools: Tools, stream: bool) -> None:
    tools.add("codex", 'trap "" TERM; sleep 60 & echo $! >> "$NOTES"; echo $$ >> "$NOTES"; sleep 60')

    async def main(world: ToolWorld) -> None:
        began = time.monotonic()
        answer = await world.chat("codex_cli/gpt-x", stream=stream)
        assert time.monotonic() - began < 30.0  # it sleeps for a minute
        assert answer.code == "bad_upstream"
        assert "had not finished after 0.3 s" in answer.json()["error"]["message"]
        assert answer.json()["error"]["keyturn"]["attempts"][0]["meaning"] == "timeout"
        await all_gone(tools.noted())

    within(tools.config("codex_cli", timeout=0.3), main)


def test_a_usage_limit_rests_until_the_stated_time_and_another_tool_answers(tools: Tools) -> None:
    hour, minute = divmod((int(time.time()) // 60 + 90) % 1440, 60)  # in an hour and a half
    clock = f"{hour % 12 or 12}:{minute:02} {'AM' if hour < 12 else 'PM'}"
    limit = f"You’ve hit your usage limit. Upgrade to Pro (https://x.example) or try again at {clock}."
    tools.add("codex", f'echo ran >> "$NOTES"\n{codex_fails(limit)}')
    tools.add("claude", prints(piece("Blue."), result("Blue.")))
    chain = Route("senior", "alias", ("codex_cli/gpt-x", "claude_code/sonnet"))

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("senior")
        assert (answer.status, answer.text) == (200, "Blue.")
        assert answer.headers["x-keyturn-provider"] == "claude_code"
        assert answer.headers["x-fallback-provider"] == "claude_code"
        assert (await world.chat("senior", stream=True)).text == "Blue."
        alone = await world.chat("codex_cli/gpt-x")
        assert (alone.status, alone.code) == (429, "capacity")
        assert 85 * 60 < int(alone.headers["retry-after"]) <= 91 * 60
        assert tools.noted() == ["ran"]

    within(tools.config("codex_cli", "claude_code", names={"senior": chain}), main)


def test_a_tool_that_nobody_logged_in_to_is_left_alone(tools: Tools) -> None:
    tools.add("claude", prints(result("Not logged in · Please run /login", failed=True)) + "\nexit 1")

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("claude_code/sonnet", stream=True)
        assert (answer.status, answer.code) == (503, "no_valid_credentials")

    within(tools.config("claude_code"), main)


def test_a_stream_that_breaks_off_ends_in_an_error_event(tools: Tools) -> None:
    limit = result("You've hit your session limit · resets 11:59pm", failed=True)
    tools.add("claude", f"{prints(piece('Bl'))}\nsleep 0.1\n{prints(limit)}\nexit 1")
    tools.add("gemini", f"{prints({'type': 'message', 'role': 'assistant', 'content': 'Bl'})}\nsleep 0.1; kill -9 $$")

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("claude_code/sonnet", stream=True)
        assert answer.status == 200
        error = json.loads(answer.events[-1])["error"]
        assert error["code"] == "upstream_interrupted"
        assert "hit your session limit" in error["message"]
        assert "[DONE]" not in answer.events
        assert (await world.chat("claude_code/sonnet")).code == "capacity"
        answer = await world.chat("gemini_cli/flash", stream=True)
        assert json.loads(answer.events[-1])["error"]["code"] == "upstream_interrupted"
        assert "was ended by signal 9" in answer.events[-1]

    within(tools.config("claude_code", "gemini_cli"), main)


def test_a_stream_that_hangs_half_way_ends_in_an_error_event(tools: Tools) -> None:
    tools.add("claude", f'{prints(piece("Bl"))}\necho $$ >> "$NOTES"; sleep 60')

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("claude_code/sonnet", stream=True)
        assert json.loads(answer.events[-1])["error"]["code"] == "upstream_interrupted"
        assert "had not finished" in answer.events[-1]
        await all_gone(tools.noted())

    within(tools.config("claude_code", timeout=0.6), main)


def test_a_model_that_would_be_an_option_runs_nothing(tools: Tools) -> None:
    tools.add("codex", f'echo ran >> "$NOTES"\n{CODEX}')

    async def main(world: ToolWorld) -> None:
        answer = await world.chat("codex_cli/--dangerously-bypass-approvals-and-sandbox")
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "option" in answer.json()["error"]["message"]
        assert tools.noted() == []

    within(tools.config("codex_cli"), main)


def test_as_many_at_once_as_the_owner_allows(tools: Tools) -> None:
    tools.add("codex", f'echo begin >> "$NOTES"; sleep 0.05; echo end >> "$NOTES"\n{CODEX}')

    async def main(world: ToolWorld) -> None:
        answers = await world.many("codex_cli/gpt-x", 3)
        assert {answer.status for answer in answers} == {200}
        assert tools.noted() == ["begin", "end"] * 3

    within(tools.config("codex_cli", max_concurrent={"codex_cli": 1}), main)


def test_calls_cancelled_at_random_moments_leave_nothing(tools: Tools) -> None:
    """No process, no folder, no reservation: the last two are checked as the world ends."""
    note = 'sleep 60 & echo $! >> "$NOTES"; echo $$ >> "$NOTES"'
    tools.add("claude", f"{note}\n{prints(piece('Bl'))}\nsleep 60")

    async def main(world: ToolWorld) -> None:
        draw = random.Random(5)

        async def cancelled() -> None:
            call = asyncio.create_task(world.chat("claude_code/sonnet", stream=draw.random() < 0.7))
            await world.clock.sleep_until(world.clock.mono() + draw.uniform(0.0, 0.06))
            call.cancel()
            if draw.random() < 0.3:
                await asyncio.sleep(0)
                call.cancel()
            await asyncio.gather(call, return_exceptions=True)

        for _ in range(8):
            await asyncio.gather(*(cancelled() for _ in range(4)))
            assert world.held() == 0
            assert world.gateway.inflight == 0
        await world.gateway.transport.close()
        noted = tools.noted()
        assert noted
        await all_gone(noted)

    within(tools.config("claude_code"), main)


def test_CLI_05_the_argv_comes_from_models_yaml(tools: Tools) -> None:
    """What the row names stands in the file; of old, `codex chat` does, and today's command is run instead."""
    tools.add("codex", f'echo "$@" >> "$NOTES"\n{CODEX}')
    tools.add("other", 'echo "$@"')
    folder = tools.folder / "config"
    folder.mkdir()
    (folder / "models.yaml").write_text(
        'providers:\n  codex_cli: { kind: cli, cmd: ["codex", "chat", "--model", "${MODEL}", "--stdin"] }\n'
        '  other: { kind: cli, cmd: ["other", "--with", "${MODEL}", "a  b"], env: [NOTES] }\n'
    )
    environ = {**tools.environ, "GROQ_API_KEY": "gsk_planted"}
    config = load(environ, cwd=tools.folder)
    assert any("codex chat" in note for note in config.notes)
    tool = config.providers["codex_cli"].tool
    assert tool is not None
    assert "GROQ_API_KEY" not in tool.environ

    async def main(world: ToolWorld) -> None:
        assert (await world.chat("other/x")).text == "--with x a  b"
        assert (await world.chat("codex_cli/gpt-x")).text == "Blue."

    within(config, main)
