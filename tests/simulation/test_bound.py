"""The fluid bound: what each kind of limit gives, who can wait, and what mishaps take away."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.simulation import START_WALL, Scenario, seeded
from keyturn.simulation.arrivals import Asked, arrivals
from keyturn.simulation.bound import Bound, bound
from keyturn.simulation.played import play

from .scenes import scene

MIDNIGHT = START_WALL // 86_400 * 86_400


def of(scenario: Scenario, calls: list[Asked] | None = None, **how: Any) -> Bound:
    asked = arrivals(scenario, seeded()) if calls is None else calls
    return bound(scenario, asked, play(scenario, seeded(), MIDNIGHT), MIDNIGHT, **how)


def at(*times: float, patience: float = 0.0, input: int = 100, output: int = 50) -> list[Asked]:
    return [Asked(time, 0, input, output, input, patience) for time in times]


def test_without_limits_everything_could_be_served() -> None:
    scenario = scene(calls={"rate": "600/minute", "comes_back": 0})
    most = of(scenario)
    assert most.served == pytest.approx(most.asked)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"limits": {"rpm": 30}, "window": "rolling"}, 300),
        ({"limits": {"rpm": 30}, "window": "fixed"}, 300),
        ({"limits": {"rpm": 30}, "window": "bucket"}, 330),
        ({"limits": {"rpm": 30, "rpd": 100}, "day": "fixed"}, 100),
        ({"limits": {"rpm": 30, "rpd": 100}, "day": "rolling"}, 100),
        ({"limits": {"rpm": 30, "rpd": 144}, "day": "bucket"}, 145),
        ({"limits": {"tpm": 3000}, "window": "fixed"}, 200),
        ({"limits": {"rps": 1}}, 600),
        ({"limits": {"concurrency": 2}, "latency": 4}, 300),
        ({"limits": {"rpm": 30}, "window": "fixed", "halved": 1.0}, 150),
        ({"limits": {"rpm": 30}, "window": "fixed", "dead": 1.0}, 0),
        ({"limits": {"rpm": 30}, "window": "fixed", "revoked": {"at": "5m", "share": 1.0}}, 150),
        ({"limits": {"rpm": 30}, "window": "fixed", "outages": {"at": "2m", "lasts": "3m"}}, 210),
    ],
)
def test_each_limit_gives_what_its_kind_gives(members: dict[str, Any], expected: float) -> None:
    scenario = scene({"groq": {"keys": 1, **members}})
    flood = at(*(second / 10 for second in range(6000)), patience=20)
    assert of(scenario, flood).served == pytest.approx(expected, abs=1.5)


def test_keys_of_one_account_have_its_limits_once() -> None:
    flood = at(*(second / 10 for second in range(6000)))
    alone = scene({"groq": {"keys": 4, "limits": {"rpm": 10}, "window": "fixed"}})
    shared = scene({"groq": {"keys": 4, "limits": {"rpm": 10}, "window": "fixed", "per_account": 2}})
    assert of(alone, flood).served == pytest.approx(400)
    assert of(shared, flood).served == pytest.approx(200)


def test_a_gemini_day_ends_at_midnight_in_los_angeles() -> None:
    scenario = scene({"gemini": {"keys": 1, "limits": {"rpd": 50}}}, duration="24h")
    flood = at(*(float(second) for second in range(0, 86_400, 60)))
    assert of(scenario, flood).served == pytest.approx(100), "two days of quota lie in one day of UTC"


def test_who_can_wait_is_served_later_and_who_cannot_is_lost() -> None:
    scenario = scene({"groq": {"keys": 1, "limits": {"rpm": 10}, "window": "rolling"}})
    assert of(scenario, at(*[5.0] * 30)).served == pytest.approx(10)
    assert of(scenario, at(*[5.0] * 30, patience=70)).served == pytest.approx(20)
    assert of(scenario, at(*[5.0] * 30, patience=300)).served == pytest.approx(30)


def test_who_must_go_first_is_served_first() -> None:
    scenario = scene({"groq": {"keys": 1, "limits": {"rpm": 10}, "window": "fixed"}})
    patient, hasty = at(*[5.0] * 10, patience=100), at(*[5.0] * 10, patience=10)
    assert of(scenario, patient + hasty).served == pytest.approx(20)


def test_what_would_be_lost_is_used_first() -> None:
    providers = {
        "openrouter": {"keys": 1, "limits": {"rpd": 100}, "day": "fixed"},
        "gemini": {"keys": 1, "limits": {"rpd": 100}},
    }
    scenario = scene(providers, duration="24h")
    early, late = at(*(float(each * 60) for each in range(100))), at(*(80_000.0 + each for each in range(200)))
    assert of(scenario, early + late).served == pytest.approx(300), "Gemini's first day is used before it ends"
    assert of(scenario, early + late, in_order=True).served == pytest.approx(200)
    assert of(scenario, early + late).tokens == pytest.approx(300 * 150)
