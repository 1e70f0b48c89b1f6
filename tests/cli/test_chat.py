"""`keyturn chat`, `models` and `dry-run` without a running gateway."""

from __future__ import annotations

import json

import pytest

from tests.support.tools import Tools

from .conftest import Terminal


@pytest.fixture
def groq(terminal: Terminal, simulator: str) -> Terminal:
    """A revoked key and a good one, in this order."""
    terminal.set(
        GROQ_API_BASE=f"{simulator}/groq/v1",
        GROQ_API_KEY_1="gsk_revoked",
        GROQ_API_KEY_2="gsk_good_2",
        ROTATION_MODE_GROQ="sequential",
    )
    return terminal


def test_chat_answers_past_a_revoked_key_and_traces_it(groq: Terminal) -> None:
    result = groq.run("chat", "-m", "groq/llama-3.1-8b-instant", "--trace", "Good", "morning")
    assert result.exit_code == 0
    assert "You said: Good morning" in result.stdout
    steps = [line for line in result.stderr.splitlines() if line[:2] in ("1.", "2.")]
    assert "groq-1" in steps[0]
    assert "invalid_key 401" in steps[0]
    assert "groq-2" in steps[1]
    assert "→ ok 200 →" in steps[1]


def test_chat_asks_the_usual_model(groq: Terminal) -> None:
    groq.set(GROQ_CHAT_MODEL="llama-3.3-70b-versatile")
    assert "groq/llama-3.3-70b-versatile" in groq.run("chat", "Hello").stdout


def test_RTE_08_chat_without_a_model_asks_the_defaults_of_all_providers(groq: Terminal) -> None:
    result = groq.run("chat", "--trace", "Hello")
    assert "groq/llama3-8b-8192" in result.stdout
    assert "groq → llama3-8b-8192" in result.stderr


def test_chat_without_any_model_says_how_to_name_one(terminal: Terminal) -> None:
    terminal.set(TOGETHER_API_KEY="tgp_one", TOGETHER_MODELS="some-model")
    result = terminal.run("chat", "Hello")
    assert result.exit_code == 2
    assert "together/some-model" in result.stderr
    assert "TOGETHER_CHAT_MODEL" in result.stderr


def test_chat_tells_why_there_is_no_answer(groq: Terminal) -> None:
    groq.set(GROQ_API_KEY_1="gsk_good_1")
    result = groq.run("chat", "-m", "openai/gpt-4o", "Hello")
    assert result.exit_code == 1
    assert "OPENAI_API_KEY" in result.stderr


def test_chat_leaves_disabled_keys_alone(groq: Terminal) -> None:
    groq.run("keys", "disable", "groq-2")
    result = groq.run("chat", "-m", "groq/llama-3.1-8b-instant", "Hello")
    assert result.exit_code == 1
    assert "Hello" not in result.stdout


def test_without_a_key_the_demo_answers_and_real_names_do_not(terminal: Terminal) -> None:
    assert "You said: Hello" in terminal.run("chat", "Hello").stdout
    real = terminal.run("chat", "-m", "groq/llama-3.1-8b-instant", "Hello")
    assert real.exit_code == 1
    assert "GROQ_API_KEY" in real.stderr


def test_models_are_asked_of_the_providers(groq: Terminal) -> None:
    groq.set(GROQ_API_KEY_1="")
    rows = json.loads(groq.run("models", "--json").stdout)
    assert {"id": "groq/llama-3.1-8b-instant", "provider": "groq"} in rows
    assert groq.run("models", "mistral").stdout == ""


def test_dry_run_shows_the_request_without_the_secret_and_sends_nothing(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY_3="gsk_planted", ANTHROPIC_API_KEY="sk_planted")
    result = terminal.run("dry-run", "-m", "groq/llama-3.1-8b-instant", "Hello")
    assert result.exit_code == 0
    request = json.loads(result.stdout)
    assert list(request) == ["method", "url", "headers", "body"]
    assert (request["method"], request["url"]) == ("POST", "https://api.groq.com/openai/v1/chat/completions")
    assert request["headers"]["authorization"] == "Bearer ***"
    assert request["body"] == {"model": "llama-3.1-8b-instant", "messages": [{"role": "user", "content": "Hello"}]}
    assert "planted" not in result.output


def test_dry_run_of_a_provider_without_a_key_names_the_variable(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="gsk_one", GROQ_MODELS="llama-3.1-8b-instant")
    result = terminal.run("dry-run", "-m", "openai/gpt-4o", "Hello")
    assert result.exit_code == 1
    assert "OPENAI_API_KEY" in result.stderr


def test_TST_06_dry_run_of_every_http_provider(terminal: Terminal) -> None:
    """One key is enough; URL and header are formed without a network."""
    terminal.set(
        GROQ_API_KEY="gsk_planted_1",
        TOGETHER_API_KEY="planted_together_2",
        OPENROUTER_API_KEY="sk-or-planted-3",
        GOOGLE_API_KEY_1="AIzaPlanted4",
        GROQ_MODELS="llama-3.1-8b-instant",
    )
    result = terminal.run("dry-run")
    assert result.exit_code == 0, result.output
    requests = {request["provider"]: request for request in json.loads(result.stdout)}
    assert {name: request["url"] for name, request in requests.items()} == {
        "groq": "https://api.groq.com/openai/v1/chat/completions",
        "together": "https://api.together.ai/v1/chat/completions",
        "openrouter": "https://openrouter.ai/api/v1/chat/completions",
        "gemini": "https://generativelanguage.googleapis.com/v1beta/models/MODEL:generateContent",
    }
    assert requests.pop("gemini")["headers"]["x-goog-api-key"] == "***"
    assert {request["headers"]["authorization"] for request in requests.values()} == {"Bearer ***"}
    assert requests["groq"]["body"]["model"] == "llama-3.1-8b-instant"
    assert requests["groq"]["key"].startswith("groq-0:")
    assert "planted" not in result.output.lower()
    groq = json.loads(terminal.run("dry-run", "-m", "groq/llama-3.1-8b-instant").stdout)
    assert groq["body"] == requests["groq"]["body"]


def test_TST_06_dry_run_tells_which_keys_are_disabled(terminal: Terminal) -> None:
    terminal.set(GROQ_API_KEY="gsk_planted_1")
    terminal.run("keys", "disable", "groq")
    (row,) = json.loads(terminal.run("dry-run").stdout)
    assert row["provider"] == "groq"
    assert "keys enable groq" in row["error"]


def test_CLI_05_dry_run_of_a_tool_shows_what_would_be_run(terminal: Terminal) -> None:
    tools = Tools(terminal.cwd)
    tools.add("claude", "exit 1", version="exit 1\n")
    terminal.set(GROQ_API_KEY="gsk_planted_1", ANTHROPIC_AUTH_TOKEN="planted-token", PATH=tools.environ["PATH"])
    (terminal.cwd / "config").mkdir()
    (terminal.cwd / "config" / "models.yaml").write_text(
        'providers:\n  claude_code: { kind: cli, cmd: ["claude", "-p", "--model", "${MODEL}"] }\n'
    )
    result = terminal.run("dry-run", "-m", "claude_code/sonnet", "Good", "morning")
    assert result.exit_code == 0, result.output
    run = json.loads(result.stdout)
    assert list(run) == ["argv", "stdin", "environ"]
    assert run["argv"] == ["claude", "-p", "--model", "sonnet"]
    assert run["stdin"] == "Good morning"
    assert {"ANTHROPIC_AUTH_TOKEN", "PATH"} <= set(run["environ"])
    assert "GROQ_API_KEY" not in run["environ"]
    assert "planted" not in result.output
    assert "claude_code" not in terminal.run("dry-run").stdout
