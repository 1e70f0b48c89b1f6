"""Whole simulations: the same by seed, true to the promises, better than what is usual, ended early in good order."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyturn.errors import ConfigError
from keyturn.simulation import Comparison, Figures, Scenario, Tally, compare
from keyturn.simulation.running import _Crowd
from tests.support import virtual

from .scenes import scene

KEYS = {
    "groq": {"keys": 12, "limits": {"rpm": 5, "tpm": 4000}, "transit": [0.02, 0.4], "latency": [0.3, 1.5]},
    "gemini": {"keys": 8, "limits": {"rpm": 3}, "transit": [0.02, 0.4], "latency": [0.6, 4]},
}
"""Twenty keys that serve some 80 calls a minute."""
MIXED = {"input": {"median": 300, "sigma": 0.6, "most": 2000}, "output": {"median": 100, "sigma": 0.6, "most": 800}}
PATIENT = {"patience": {"30s": 0.5, "120s": 0.5}}


def compared(scenario: Scenario, **how: Any) -> Comparison:
    return compare(scenario, Path("/nonexistent"), **how)


def keyturn(scenario: Scenario) -> Figures:
    return next(row for row in compared(scenario).rows if row.strategy == "keyturn")


def test_an_hour_of_twenty_keys_at_three_quarters_of_what_they_can() -> None:
    row = keyturn(scene(KEYS, calls={"rate": "60/minute", **MIXED, **PATIENT}, duration="1h"))
    assert row.asked > 3400
    assert row.of_bound is not None
    assert row.of_bound >= 0.99
    assert row.limited_per_1000 <= 1
    assert row.attempts_per_served <= 1.01


def test_more_is_asked_than_the_keys_can_take() -> None:
    row = keyturn(scene(KEYS, calls={"rate": "115/minute", **MIXED, **PATIENT}))
    assert row.limited_per_1000 <= 1
    assert row.refused > 0
    assert row.of_bound is not None
    assert row.of_bound >= 0.9


def test_a_burst_waits_where_others_lose_it() -> None:
    scenario = scene(
        {"groq": {"keys": 10, "limits": {"rpm": 10}, "transit": 0.05, "latency": [0.5, 2]}},
        calls={"rate": None, "bursts": {"calls": 200, "within": "8s", "every": "150s"}, "patience": "120s"},
        strategies=["keyturn", "round_robin", "least_used", "random"],
    )
    ours, *others = compared(scenario).rows
    assert (ours.served, ours.refused, ours.limited_per_1000) == (ours.asked, 0, 0)
    assert ours.wait_p99 < 61
    for other in others:
        assert other.served < 0.7 * ours.served, other.strategy
        assert other.limited_per_1000 > 100, other.strategy


def test_a_loud_caller_takes_nothing_from_the_quiet_ones() -> None:
    scenario = scene(
        {"groq": {"keys": 4, "limits": {"rpm": 15}, "latency": [0.5, 2]}},
        calls={"rate": "120/minute", "patience": "60s"},
        callers=[{"name": "quiet", "count": 19}, {"name": "loud", "share": 50}],
        strategies=["keyturn", "round_robin"],
    )
    ours, usual = compared(scenario).rows
    assert ours.fairness >= 0.95
    assert usual.fairness < 0.95


def test_dead_keys_are_asked_once_and_not_each_minute() -> None:
    scenario = scene(
        {"groq": {"keys": 10, "dead": "50%", "latency": 0.5}},
        calls={"rate": "60/minute"},
        strategies=["keyturn", "round_robin", "random"],
    )
    ours, *others = compared(scenario).rows
    assert ours.invalid <= 10
    assert ours.served == ours.asked
    assert all(other.invalid > 40 for other in others)


def test_conversations_stay_where_their_prompt_is() -> None:
    scenario = scene(
        {"groq": {"keys": 5, "latency": 1, "price": {"input": 1, "cached": 0.1, "output": 1}}},
        calls={
            "rate": "60/minute",
            "input": 1500,
            "conversations": {"share": 1.0, "turns": 6, "pause": "10s"},
        },
        strategies=["keyturn", "round_robin"],
    )
    ours, usual = compared(scenario).rows
    assert ours.cached > 0.6
    assert usual.cached < 0.3
    assert ours.cost < usual.cost


def test_a_seed_says_it_all_and_leaves_other_draws_alone() -> None:
    scenario = scene(
        KEYS, calls={"rate": "70/minute", **MIXED, **PATIENT}, duration="4m", strategies=["keyturn", "random"]
    )
    random.seed(5)
    before = random.getstate()
    first, second = compared(scenario).told(), compared(scenario).told()
    assert random.getstate() == before
    assert first == second
    assert compared(scenario.model_copy(update={"seed": 2})).told() != first


def test_who_is_refused_is_told_when_to_come_back_and_is_served_then() -> None:
    row = keyturn(
        scene(
            {"groq": {"keys": 4, "limits": {"rpm": 15}, "latency": [0.5, 2]}},
            calls={"rate": "80/minute", "patience": "5s", "comes_back": 0.5},
        )
    )
    assert row.advised > 50
    assert row.kept is not None
    assert row.kept >= 0.95


def test_ended_early_it_tells_what_was_simulated_so_far() -> None:
    def enough(tally: Tally, part: float) -> None:
        if tally.strategy == "round_robin" and part > 0.5:
            raise KeyboardInterrupt

    scenario = scene(KEYS, calls={"rate": "60/minute"}, strategies=["keyturn", "round_robin", "random"])
    whole, half = compared(scenario, heard=enough).rows
    assert whole.complete
    assert (half.strategy, half.complete, half.of_bound) == ("round_robin", False, None)
    assert 250 < half.until < 350
    assert half.served == pytest.approx(300, abs=60)


def test_what_is_far_too_much_is_not_begun() -> None:
    for calls in ({"rate": "1000/second"}, {"rate": None, "bursts": {"calls": 10_000, "every": "1s"}}):
        with pytest.raises(ConfigError, match="at most 2,000,000 are simulated"):
            compared(scene(calls=calls, duration="24h"))


def test_calls_are_replayed_as_they_came(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text(
        '{"at": 5, "input": 70, "output": 30, "caller": "b"}\n\n{"at": 1.5}\n{"at": 4000, "input": 1}\n'
    )
    scenario = scene(
        calls={"rate": None, "replay": "calls.jsonl", "input": 200, "output": 100},
        callers=[{"name": "a", "share": 1e9}, {"name": "b"}],
    )
    heard: list[Tally] = []
    comparison = compare(scenario, tmp_path, lambda tally, part: heard.append(tally))
    assert comparison.bound.asked == 2, "what is after the end is left out"
    callers = {caller.name: caller.served_tokens for caller in heard[-1].callers}
    assert callers == {"a": 300, "b": 100}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "has no call within the duration"),
        ('{"at": 1}\n{"when": 2}\n', "calls.jsonl:2: "),
        ("nonsense", "calls.jsonl:1: "),
    ],
)
def test_what_cannot_be_replayed_is_told(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "calls.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=said):
        compare(scene(calls={"rate": None, "replay": "calls.jsonl"}), tmp_path)


def test_clients_stop_coming_in_the_very_turn_in_which_the_next_is_due() -> None:
    class Server:
        async def answer(self, asked: Any) -> tuple[int, None]:
            return 200, None

    async def main() -> list[float]:
        answered: list[float] = []
        tally = SimpleNamespace(
            until=0.0, come=lambda asked: None, answered=lambda asked, *_: answered.append(asked.at)
        )
        clock = virtual.VirtualClock()
        crowd = _Crowd(Server(), tally, clock)  # type: ignore[arg-type]
        calls = [SimpleNamespace(at=float(moment), obeys=False) for moment in (1, 2)]
        coming = asyncio.ensure_future(crowd.come(calls))  # type: ignore[arg-type]
        clock.call_at(clock.mono() + 2.0, coming.cancel)
        with pytest.raises(asyncio.CancelledError):
            await coming
        await asyncio.sleep(5.0)
        return answered

    assert virtual.run(main) in ([1.0], [1.0, 2.0])
