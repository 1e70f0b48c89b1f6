"""Which calls a scenario brings: as many as it says, when it says, as large as it says, always the same by seed."""

from __future__ import annotations

from statistics import median

import pytest

from keyturn.simulation import seeded
from keyturn.simulation.arrivals import arrivals, chosen, people, sized
from keyturn.simulation.shape import Spread

from .scenes import scene


def test_the_same_seed_brings_the_same_calls() -> None:
    scenario = scene(calls={"rate": "60/minute", "input": {"median": 400}})
    first, second, other = (arrivals(scenario, seeded(seed)) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_the_rate_is_kept_and_calls_come_in_order() -> None:
    found = arrivals(scene(calls={"rate": "600/minute"}), seeded())
    assert len(found) == pytest.approx(6000, rel=0.05)
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert found[-1].at < 600


def test_a_day_swings_around_its_peak() -> None:
    scenario = scene(calls={"rate": "20000/day", "diurnal": 0.8, "peak": "14h"}, duration="24h")
    found = arrivals(scenario, seeded())
    assert len(found) == pytest.approx(20_000, rel=0.03)
    busy = sum(1 for each in found if 13 <= each.at / 3600 < 15)
    calm = sum(1 for each in found if 1 <= each.at / 3600 < 3)
    assert busy / calm == pytest.approx(1.8 / 0.2, rel=0.25)


def test_the_hour_at_which_it_begins_moves_the_peak() -> None:
    scenario = scene(calls={"rate": "20000/day", "diurnal": 0.8, "peak": "14h"}, duration="24h", starts="14h")
    found = arrivals(scenario, seeded())
    assert sum(1 for each in found if each.at < 3600) > 3 * sum(1 for each in found if 12 <= each.at / 3600 < 13)


def test_bursts_come_within_their_seconds_and_again() -> None:
    scenario = scene(calls={"rate": None, "bursts": {"calls": 50, "within": "5s", "every": "3m", "at": "1m"}})
    found = [each.at for each in arrivals(scenario, seeded())]
    assert len(found) == 150
    assert {int((at - 60) // 180) for at in found} == {0, 1, 2}
    assert all((at - 60) % 180 < 5 for at in found)


def test_conversations_grow_and_stay_with_one_caller() -> None:
    scenario = scene(
        calls={
            "rate": "120/minute",
            "input": 1000,
            "output": 200,
            "conversations": {"share": 1.0, "turns": 4, "pause": "1s"},
        },
        callers=[{"name": "a", "count": 5}],
    )
    talks: dict[int, list[tuple[int, int, int]]] = {}
    for each in arrivals(scenario, seeded()):
        talks.setdefault(each.conversation, []).append((each.caller, each.known, each.input))
    whole = [talk for talk in talks.values() if len(talk) == 4]
    assert 0 not in talks
    assert len(whole) > 200
    assert all(len({caller for caller, _, _ in talk}) == 1 for talk in talks.values())
    assert whole[0][1:] == [(whole[0][0][0], 1200, 2200), (whole[0][0][0], 2400, 3400), (whole[0][0][0], 3600, 4600)]
    assert sum(map(len, talks.values())) == pytest.approx(1200, rel=0.15), "the rate is that of all calls"


def test_sizes_are_spread_log_normally_and_bounded() -> None:
    draw, spread = seeded(), Spread(median=400, sigma=0.8, most=3000)
    sizes = [sized(spread, draw) for _ in range(20_000)]
    assert median(sizes) == pytest.approx(400, rel=0.03)
    assert max(sizes) == 3000
    assert {sized(Spread(median=200, sigma=0), draw) for _ in range(5)} == {200}


def test_patience_batch_and_obedience_have_their_shares() -> None:
    scenario = scene(
        calls={"rate": "600/minute", "patience": {"30s": 0.25, "2m": 0.75}, "batch": "40%", "comes_back": "10%"}
    )
    found = arrivals(scenario, seeded())
    parts = [
        sum(each.patience == 30 for each in found),
        sum(each.batch for each in found),
        sum(each.obeys for each in found),
    ]
    assert [part / len(found) for part in parts] == pytest.approx([0.25, 0.4, 0.1], abs=0.02)


def test_callers_have_names_and_shares() -> None:
    scenario = scene(calls={"rate": "600/minute"}, callers=[{"name": "q", "count": 3}, {"name": "loud", "share": 7}])
    assert [person.name for person in people(scenario)] == ["q-1", "q-2", "q-3", "loud"]
    found = arrivals(scenario, seeded())
    assert sum(each.caller == 3 for each in found) / len(found) == pytest.approx(0.7, abs=0.02)
    assert people(scene())[0].name == "default"


@pytest.mark.parametrize(("drawn", "place"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.74, 1), (0.76, 2), (0.999999, 2)])
def test_who_is_chosen_depends_on_the_draw(drawn: float, place: int) -> None:
    assert chosen([0.5, 0.25, 0.25], lambda: drawn) == place
