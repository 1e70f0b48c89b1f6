"""`keyturn drill`, as a person runs it, and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from keyturn.simulation import RULES, SHAPES

from .conftest import Terminal

PAGE = Path(__file__).parents[2] / "docs" / "drill.md"
ROLES = (
    "roles: { dev: { model_chain: [groq/llama-one, together/llama-two] }, one: { model_chain: [groq/llama-one] } }\n"
)


@pytest.fixture
def configured(terminal: Terminal) -> Terminal:
    (terminal.cwd / "config").mkdir()
    (terminal.cwd / "config" / "roles.yaml").write_text(ROLES)
    terminal.set(GROQ_API_KEY_1="gsk_planted_1", GROQ_API_KEY_2="gsk_planted_2", TOGETHER_API_KEY="tgp_planted")
    return terminal


def test_fine_is_exit_code_0(configured: Terminal) -> None:
    result = configured.run("drill", "--route", "dev", "--shape", "revoked-key", "--shape", "outage")
    assert result.exit_code == 0, result.output
    assert "dev (role): groq (2), together (1)" in result.output
    assert "client: 200, whole, after 0.6 s, from groq; 3 of 3 calls answered" in result.output
    assert re.search(
        r"behind: 4 attempts \(groq invalid_key → groq ok\); groq-1:\w{6} rests 24 h \(invalid_key\)", result.output
    )
    assert "2 played on 1 route: 1 fine, 1 degraded." in result.output
    assert "planted" not in result.output
    assert not (configured.cwd / ".cache").exists()


def test_a_surprise_is_exit_code_1_with_a_hint(configured: Terminal) -> None:
    result = configured.run("drill", "--route", "one", "--shape", "outage", "--shape", "overloaded")
    assert result.exit_code == 1
    assert result.output.count("though together could answer") == 2
    assert result.output.count("roles.yaml, one: add one of them") == 1, "each hint once"
    assert "2 of them would surprise your clients" in result.output
    accepted = configured.run("drill", "--route", "one", "--shape", "outage", "--accept", "alone")
    assert accepted.exit_code == 0


def test_everything_as_json(configured: Terminal) -> None:
    result = configured.run("drill", "--route", "dev", "--shape", "only-500s", "--shape", "cut-stream", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    (route,) = told["routes"]
    assert route["providers"] == [{"provider": "groq", "quota_groups": 2}, {"provider": "together", "quota_groups": 1}]
    failing, cut = route["shapes"]
    assert [mode["mode"] for mode in failing["modes"]] == ["plain", "stream"]
    first = failing["modes"][0]["calls"][0]
    assert (first["status"], first["end"], first["provider"]) == (200, "whole", "together")
    assert [each["status"] for each in first["attempts"]] == [500, 500, 200]
    assert (cut["verdict"], cut["modes"][0]["findings"][0]["rule"]) == ("surprising", "cut")
    assert "planted" not in result.output


def test_without_a_key_the_demo_pool_is_drilled(terminal: Terminal) -> None:
    result = terminal.run("drill", "--shape", "healthy")
    assert result.exit_code == 0, result.output
    assert "demo/echo (model): demo (1)" in result.output
    assert "No key is configured" in result.output


def test_what_is_not_known_is_told_with_the_nearest(configured: Terminal) -> None:
    for option, name, near in (("--shape", "outtage", "outage"), ("--accept", "alon", "alone")):
        result = configured.run("drill", option, name)
        assert result.exit_code == 2
        assert f"did you mean {near}?" in result.output
    for name, hint in (("devv", "did you mean dev?"), ("nobody", "there are dev, one"), ("xai/m", "XAI_API_KEY")):
        unknown = configured.run("drill", "--route", "dev", "--route", name, "--shape", "outage")
        assert unknown.exit_code == 2
        assert hint in unknown.output
        assert "surprising" not in unknown.output, "nothing is played"


def test_a_hint_is_given_only_where_it_helps(configured: Terminal) -> None:
    def hint(route: str) -> str:
        said = configured.run("drill", "--route", route, "--shape", "cut-stream").output
        return "".join(re.findall(r"^ +→ (.*)$", said, re.MULTILINE))

    assert hint("dev").startswith('`[stream] continue = ["dev"]` in settings.toml')
    nobody = "no model behind openai/m can be told to go on"
    configured.set(OPENAI_API_KEY="sk-planted")
    assert hint("openai/m").startswith(nobody)
    configured.set(STREAM_CONTINUE="openai/*,dev")
    assert hint("openai/m").startswith(nobody)
    assert hint("dev") == "", "it was mended"


def test_ctrl_c_ends_it_with_130(configured: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    import keyturn.cli.drill as drill

    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drill, "_play", press)
    result = configured.run("drill")
    assert result.exit_code == 130
    assert "Ended by Ctrl-C" in result.stderr


def test_the_list_and_the_page_name_every_shape_and_rule(terminal: Terminal) -> None:
    listed, page = terminal.run("drill", "--list").output, PAGE.read_text()
    for shape in SHAPES.values():
        assert re.search(rf"^{shape.name} +{shape.reach} +{re.escape(shape.title)}$", listed, re.MULTILINE)
        assert f"| `{shape.name}` | {shape.reach} | {shape.title} |" in page
    for name, (verdict, text) in RULES.items():
        assert name in listed
        assert f"| `{name}` | {verdict} | {text} |" in page
    assert page.count("\n| `") == len(SHAPES) + len(RULES) + 7
    told = json.loads(terminal.run("drill", "--list", "--json").stdout)
    assert {each["shape"] for each in told["shapes"]} == set(SHAPES)
