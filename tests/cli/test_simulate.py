"""`keyturn simulate`: a table, JSON or a plot from a scenario; a scenario from the ledger; ended by Ctrl-C in order."""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from keyturn.simulation import read_scenario

from .conftest import Terminal
from .recorded_calls import record

SCENE = """\
title: Mine
duration: 4m
providers: { groq: { keys: 3, limits: { rpm: 10 }, latency: 1, dead: 33% } }
calls: { rate: 30/minute, patience: 30s }
strategies: [keyturn, round_robin]
"""


@pytest.fixture
def scene(terminal: Terminal) -> Terminal:
    (terminal.cwd / "mine.yaml").write_text(SCENE)
    return terminal


def test_a_table_says_who_served_what(scene: Terminal) -> None:
    result = scene.run("simulate", "mine.yaml")
    assert result.exit_code == 0, result.output
    first, head, *rows = result.stdout.splitlines()
    assert first.startswith("Mine: 4 min, 3 keys, ")
    assert head.split()[:3] == ["STRATEGY", "SERVED", "REFUSED"]
    assert rows[0].startswith("keyturn")
    assert rows[1].startswith("round robin")
    assert "Requests with dead keys: keyturn 1, round robin " in result.stdout


def test_json_has_the_same_figures(scene: Terminal) -> None:
    result = scene.run("simulate", "mine.yaml", "--json", "--strategy", "keyturn", "--seed", "9")
    told: dict[str, Any] = json.loads(result.stdout)
    assert (told["title"], told["seed"], told["keys"]) == ("Mine", 9, 3)
    (row,) = told["strategies"]
    assert row["served"] + row["refused"] == row["asked"] == told["asked"]
    assert row["complete"] is True
    assert row["limited_per_1000"] == 0


def test_a_plot_is_drawn_as_svg_and_as_nothing_else(scene: Terminal) -> None:
    assert scene.run("simulate", "mine.yaml", "--plot", "mine.svg").exit_code == 0
    texts = [each.text or "" for each in ElementTree.parse(scene.cwd / "mine.svg").iter()]
    assert "Mine" in texts
    refused = scene.run("simulate", "mine.yaml", "--plot", "mine.png")
    assert refused.exit_code == 2
    assert "only SVG is written" in refused.output


def test_it_says_how_long_callers_wait_and_that_served_is_not_all(scene: Terminal) -> None:
    said = scene.run("simulate", "mine.yaml").stdout
    assert "Callers wait for an answer at most 30s." in said
    (scene.cwd / "mine.yaml").write_text(SCENE.replace("patience: 30s", "patience: { 30s: 80%, 2m: 20% }"))
    assert "at most 80% of them 30s, 20% of them 2m." in scene.run("simulate", "mine.yaml").stdout


def test_a_strategy_that_is_none_is_one_mistake(scene: Terminal) -> None:
    for strategies, said in (("[roundrobin]", "did you mean round_robin?"), ("[]", "strategies: is empty")):
        (scene.cwd / "mine.yaml").write_text(SCENE.replace("[keyturn, round_robin]", strategies))
        result = scene.run("simulate", "mine.yaml")
        assert result.exit_code == 3
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_at_its_very_start_ends_it_with_130(
    scene: Terminal, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    import keyturn.simulation as simulation

    whole = simulation.compare

    def pressed(*args: Any) -> Any:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        return whole(*args)

    monkeypatch.setattr(simulation, "compare", pressed)
    result = scene.run("simulate", "mine.yaml")
    assert result.exit_code == 130
    assert "Ended early" in result.stderr


def test_ctrl_c_prints_what_was_simulated_so_far(scene: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    import keyturn.cli.simulate as simulate

    def press(watch: Any, tally: Any, part: float) -> None:
        if part > 0.4 and not watch.asked:
            signal.raise_signal(signal.SIGINT)
        if watch.asked:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(simulate._Watch, "heard", press)
    result = scene.run("simulate", "mine.yaml")
    assert result.exit_code == 130
    assert "keyturn (to 0.0 h)" in result.stdout
    assert "Not simulated: round_robin." in result.stdout
    assert "Ended early" in result.stderr
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("mine.yaml", "--from-ledger"), 2, "give a FILE, or --from-ledger, or --list"),
        (("mine.yaml", "--since", "7d"), 2, "belong to --from-ledger"),
        (("mine.yaml", "--strategy", "roundrobin"), 2, "did you mean round_robin?"),
        (("nosuch.yaml",), 3, "there is no such file"),
        (("wrong.yaml",), 3, "wrong.yaml:1: providers.groq.keis: is not a key that is known here; did you mean keys?"),
    ],
)
def test_wrong_usage_is_told(scene: Terminal, args: tuple[str, ...], code: int, said: str) -> None:
    (scene.cwd / "wrong.yaml").write_text("providers: { groq: { keis: 1 } }\ncalls: { rate: 1/minute }\n")
    result = scene.run("simulate", *args)
    assert result.exit_code == code, result.output
    assert said in result.output


def test_the_examples_are_listed(terminal: Terminal) -> None:
    lines = terminal.run("simulate", "--list").stdout.splitlines()
    assert terminal.run("simulate").stdout.splitlines() == lines
    assert [line.split()[0] for line in lines] == ["day-of-100-keys", "bursts-on-ten-keys", "one-loud-caller"]


def test_a_scenario_is_made_from_the_ledger_and_can_be_simulated(terminal: Terminal) -> None:
    record(terminal.cwd)
    terminal.set(GROQ_API_KEY_1="gsk_one", GROQ_API_KEY_2="gsk_two", LIMITS_GROQ="rpm=30")
    result = terminal.run("simulate", "--from-ledger", "--since", "2026-11-01", "--calls", "calls.jsonl")
    assert result.exit_code == 0, result.output
    (terminal.cwd / "mine.yaml").write_text(result.stdout)
    scenario, _ = read_scenario("mine.yaml", terminal.cwd)
    assert scenario.providers["groq"].keys == 2
    assert scenario.calls.replay == "calls.jsonl"
    assert len(Path("calls.jsonl").read_text().splitlines()) > 1
    again = terminal.run("simulate", "mine.yaml", "--strategy", "keyturn", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["strategies"][0]["served"] > 0


def test_without_calls_there_is_nothing_to_make_one_from(terminal: Terminal) -> None:
    record(terminal.cwd)
    result = terminal.run("simulate", "--from-ledger", "--since", "5m")
    assert result.exit_code == 1
    assert "say an earlier one with --since" in result.output
