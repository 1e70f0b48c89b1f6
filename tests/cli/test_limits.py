"""`keyturn limits list|pin|clear`, without a gateway and beside a running one."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from typing import Any

import pytest

from keyturn.cli.setup import Place, read_config
from keyturn.config import DataFolder
from keyturn.core import Deployment, Grounds, Limit, Window
from keyturn.dispatch import build, limit_rows

from .conftest import Terminal, start, stop

MINUTE = Window("rolling", 60.0)
MODEL = "llama-3.1-8b-instant"


def left_behind(terminal: Terminal) -> None:
    """A gateway on the terminal's data folder learns a limit and is told one, and ends."""

    async def run() -> None:
        config = read_config(Place(None, None, None))
        folder = DataFolder(config.data)
        folder.lock()
        gateway = build(config, folder=folder)
        await gateway.open()
        scope = f"groq/{config.credentials['groq'][0].group}|{MODEL}"
        now, wall = gateway.clock.mono(), gateway.clock.wall()
        learned = Limit(scope, "requests", MINUTE, 27, "learned")
        gateway.live.learn(learned, Grounds(wall, ("0199-a", "0199-b"), 30, 6), now)
        gateway.live.report(scope, "tokens", MINUTE, 6000, now)
        gateway.pools.of(Deployment("groq", MODEL))
        await gateway.close()
        folder.release()

    asyncio.run(run())


def listed(terminal: Terminal, *more: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(terminal.run("limits", "list", *more, "--json").stdout)
    return rows


@pytest.fixture
def prepared(terminal: Terminal) -> Terminal:
    terminal.set(GROQ_API_KEY_1="gsk_planted_one", GROQ_API_KEY_2="gsk_planted_two", LIMITS_GROQ="rpm=30")
    return terminal


def test_what_the_last_gateway_knew_is_listed_with_date_and_evidence(prepared: Terminal) -> None:
    left_behind(prepared)
    rows = {row["source"]: row for row in listed(prepared)}
    assert set(rows) == {"declared", "learned", "reported"}
    learned = rows["learned"]
    assert (learned["models"], learned["limits"], learned["capacity"]) == (MODEL, "requests/minute=27", 27)
    assert learned["evidence"] == ["0199-a", "0199-b"]
    assert learned["date"] is not None
    assert learned["until"] > learned["date"]
    assert learned["holds"] is True
    assert [key.partition(":")[0] for key in learned["keys"]] == ["groq-1"]
    said = prepared.run("limits", "list")
    assert "429 of 0199-a, 0199-b" in said.output
    assert "just now" in said.output or "seconds ago" in said.output or "second ago" in said.output
    assert "planted" not in said.output


def test_a_pin_lasts_and_is_listed_and_cleared(prepared: Terminal) -> None:
    assert "pinned: requests/minute of groq/m = 12" in prepared.run("limits", "pin", "groq", "m", "rpm", "12").output
    prepared.run("limits", "pin", "groq", "m", "rpm", "13")
    prepared.run("limits", "pin", "groq", "other*", "tokens/day", "5000", "--key", "groq-2")
    file = read_config(Place(None, None, None)).data / "pinned.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    pinned = [row for row in listed(prepared) if row["source"] == "pinned"]
    assert [(row["models"], row["limits"], len(row["keys"])) for row in pinned] == [
        ("m", "requests/minute=13", 2),
        ("other*", "tokens/day=5000", 1),
    ]
    left_behind(prepared)
    assert "cleared: nothing" in prepared.run("limits", "clear", "groq", "nothing-like-it").output
    said = prepared.run("limits", "clear", "groq", MODEL, "--source", "learned").output
    assert f"cleared: learned requests/minute=27 of groq/{MODEL}, groq-1" in said
    assert {row["source"] for row in listed(prepared)} == {"declared", "reported", "pinned"}
    said = prepared.run("limits", "clear", "--all").output
    assert said.count("cleared: pinned") == 2
    assert said.count("cleared: reported") == 1
    assert {row["source"] for row in listed(prepared)} == {"declared"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("pin", "grok", "m", "rpm", "5"), "did you mean groq?"),
        (("pin", "groq", "m", "request/minute", "5"), "did you mean requests?"),
        (("pin", "groq", "m", "rpm", "5", "--key", "groq-9"), "did you mean groq-2?"),
        (("pin", "groq", "m", "rpm", "0"), "a capacity is a whole number of at least 1"),
        (("pin", "groq", "m", "rpm", "-3"), "a capacity is a whole number of at least 1"),
        (("pin", "groq", "m", "rpm", "abc"), "a capacity is a whole number of at least 1"),
        (("pin", "groq", "m", "rpm", "5", "--kee", "groq-1"), "No such option"),
        (("clear", "groq", "--source", "bogus"), "there are learned, reported, pinned"),
        (("clear",), "of which provider?"),
        (("clear", "grok"), "did you mean groq?"),
        (("clear", "groq", "--source", "learnt"), "did you mean learned?"),
        (("clear", "groq", "--key", "groq-9"), "no key has the label"),
        (("list", "grok"), "did you mean groq?"),
    ],
)
def test_mistakes_name_what_is_meant(prepared: Terminal, args: tuple[str, ...], said: str) -> None:
    result = prepared.run("limits", *args)
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_a_pin_says_what_it_replaces_and_whom_nobody_offers(prepared: Terminal) -> None:
    said = prepared.run("limits", "pin", "groq", "m", "rpm", "40")
    assert said.exit_code == 0
    assert "40 is above your own 30 (LIMITS_GROQ), which it replaces" in said.stderr
    assert "nobody offers groq/m, as far as is known here" in said.stderr
    assert "above" not in prepared.run("limits", "pin", "groq", "m", "rpm", "30").stderr
    prepared.set(GROQ_MODELS=MODEL)
    known = prepared.run("limits", "pin", "groq", MODEL, "rpm", "5")
    near = prepared.run("limits", "pin", "groq", "llama-3.1-8b-instnt", "rpm", "5")
    assert "nobody offers" not in known.stderr
    assert f"did you mean {MODEL}?" in near.stderr
    assert "nobody offers" not in prepared.run("limits", "pin", "groq", "llama*", "rpm", "5").stderr


def test_a_pin_of_the_same_number_as_another_is_listed_with_the_date_of_each(prepared: Terminal) -> None:
    prepared.run("limits", "pin", "groq", MODEL, "rpm", "12")
    prepared.run("limits", "pin", "groq", "nosuchmodel", "rpm", "12")

    async def asked() -> list[dict[str, Any]]:
        config = read_config(Place(None, None, None))
        gateway = build(config, pins=DataFolder(config.data).pins())
        gateway.pools.of(Deployment("groq", MODEL))
        rows = limit_rows(gateway)
        await gateway.close()
        return [row for row in rows if row["source"] == "pinned"]

    rows = asyncio.run(asked())
    assert sorted((row["model"], len(row["keys"])) for row in rows) == [(MODEL, 1), (MODEL, 1), ("nosuchmodel", 2)]
    assert all(row["date"] for row in rows)


def test_a_broken_file_of_pins_is_a_mistake_of_the_configuration(prepared: Terminal) -> None:
    prepared.run("limits", "pin", "groq", "m", "rpm", "12")
    (read_config(Place(None, None, None)).data / "pinned.json").write_text("[{")
    result = prepared.run("limits", "list")
    assert result.exit_code == 3
    assert "pinned.json: cannot be read" in result.output


def test_a_running_gateway_obeys_at_once_and_tells(prepared: Terminal, simulator: str) -> None:
    prepared.set(GROQ_API_BASE=f"{simulator}/groq/v1", GROQ_API_KEY_1="gsk_good_1", GROQ_API_KEY_2="gsk_good_2")
    process, _ = start("serve", "--port", "0", cwd=prepared.cwd, until="listens on", environ=dict(os.environ))
    try:
        said = prepared.run("limits", "pin", "groq", MODEL, "rpm", "12")
        assert "No gateway is running" not in said.output
        assert "nobody offers" not in said.output
        near = prepared.run("limits", "pin", "groq", "llama-3.1-8b-instnt", "rpm", "9").output
        assert f"nobody offers groq/llama-3.1-8b-instnt, as far as is known here; did you mean {MODEL}?" in near
        assert len([row for row in listed(prepared) if row["source"] == "pinned"]) == 2
        assert "cleared: pinned" in prepared.run("limits", "clear", "groq", "llama-3.1-8b-instnt").output
        (pinned,) = [row for row in listed(prepared) if row["source"] == "pinned"]
        assert (pinned["capacity"], pinned["holds"]) == (12, True)
        assert "cleared: pinned requests/minute=12" in prepared.run("limits", "clear", "groq").output
        assert [row for row in listed(prepared) if row["source"] == "pinned"] == []
        refused = prepared.run("limits", "clear", "groq", "--source", "learnt")
        assert refused.exit_code == 2
        assert "did you mean learned?" in refused.output
    finally:
        assert stop(process) == 0
