"""A scenario made from a ledger: what is drawn from it is like what came, and it is a scenario that can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, load
from keyturn.core import Credential, Deployment, Limit, Window
from keyturn.simulation import Recorded, drafted, lines, read_scenario, recorded, seeded
from keyturn.simulation.arrivals import arrivals, sized
from keyturn.simulation.shape import Spread

NOON = 1_795_867_200_000
LIMITS = [Limit("s", "requests", Window("rolling", 60.0), 30), Limit("s", "tokens", Window("bucket", 86_400.0), 5000)]


def config(folder: Path) -> Config:
    keys = {"GROQ_API_KEY_1": "one", "GROQ_API_KEY_2": "two", "GROQ_API_KEY_3": "three", "QUOTA_GROUP_GROQ": "1,2;3"}
    return load(keys | {"GEMINI_API_KEY": "four"}, cwd=folder)


def limits(deployment: Deployment, credential: Credential) -> list[Limit]:
    return LIMITS if deployment.provider == "groq" else []


def calls(count: int = 1440, gap: float = 60.0) -> list[Recorded]:
    draw, spread = seeded(), Spread(median=400, sigma=0.5)
    return [
        Recorded(
            NOON + round(place * gap * 1000),
            "ci" if place % 4 else "tim o'tool",
            "groq/llama-3.1-8b-instant" if place % 3 else "gemini/gemini-2.5-flash",
            sized(spread, draw),
            50,
            700.0 + place % 100,
        )
        for place in range(count)
    ]


def test_a_scenario_is_drawn_like_what_came(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(drafted(calls(), config(tmp_path), limits, ""))
    scenario, _ = read_scenario("mine.yaml", tmp_path)
    groq, gemini = scenario.providers["groq"], scenario.providers["gemini"]
    assert (groq.keys, groq.per_account, groq.model) == (3, 2, "llama-3.1-8b-instant")
    assert (groq.limits.rpm, groq.limits.tpd, groq.limits.rpd) == (30, 5000, None)
    assert (gemini.keys, gemini.limits.rpm) == (1, None)
    assert groq.latency == (0.71, 0.79)
    assert groq.price is not None
    assert groq.price.input > 0
    assert len(arrivals(scenario, seeded())) == pytest.approx(1440, rel=0.1)
    assert scenario.calls.input.median == pytest.approx(400, rel=0.1)
    assert scenario.calls.input.sigma == pytest.approx(0.5, abs=0.05)
    assert scenario.calls.diurnal < 0.05, "as many come at every hour"
    assert scenario.starts == 12 * 3600
    assert {each.name: each.share for each in scenario.callers} == {"ci": 1080, "tim-o-tool": 360}


def test_a_day_that_swings_is_seen_to(tmp_path: Path) -> None:
    day = [call for call in calls(2880, 30.0) if 4 <= (call.at // 3_600_000) % 24 < 16 or call.at % 120_000 == 0]
    (tmp_path / "mine.yaml").write_text(drafted(day, config(tmp_path), limits, ""))
    scenario, _ = read_scenario("mine.yaml", tmp_path)
    assert scenario.calls.diurnal > 0.5
    assert scenario.calls.peak / 3600 == pytest.approx(10, abs=1)


def test_the_calls_themselves_can_be_replayed(tmp_path: Path) -> None:
    came = calls(5)
    (tmp_path / "mine.yaml").write_text(drafted(came, config(tmp_path), limits, "mine.jsonl"))
    scenario, _ = read_scenario("mine.yaml", tmp_path)
    assert scenario.calls.replay == "mine.jsonl"
    rows = [json.loads(line) for line in lines(came).splitlines()]
    assert [row["at"] for row in rows] == [0, 60, 120, 180, 240]
    assert [row["input"] for row in rows] == [call.input for call in came]
    assert rows[0]["caller"] == "tim-o-tool"


def test_rows_of_usage_become_calls_in_order() -> None:
    def row(at: str, **more: Any) -> dict[str, Any]:
        usual = {"name": "id", "at": at, "caller": "ci", "model": "groq/x", "input": 5, "output": 2, "ms": 12.5}
        return {**usual, **more}

    rows = [row("2026-11-28T12:00:01Z"), row("2026-11-28T12:00:00Z", ms=None, model=None), {"name": "broken"}]
    first, second = recorded(rows)
    assert (first.at, first.model, first.ms) == (NOON, "", 0.0)
    assert (second.at - first.at, second.input) == (1000, 5)
