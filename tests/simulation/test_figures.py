"""Figures from counts: fairness, shares of the bound, percentiles; and the plot that is drawn of them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from keyturn.simulation import Figures, Tally, plot
from keyturn.simulation.arrivals import Asked, Person
from keyturn.simulation.bound import Bound
from keyturn.simulation.figures import fairness, figures, jain, max_min, percentile, told
from keyturn.simulation.running import PerCaller


def caller(asked: int, served: int, weight: float = 1.0) -> PerCaller:
    return PerCaller("x", weight, asked_tokens=asked, served_tokens=served)


def test_jain_is_one_for_equals_and_small_for_one_who_has_all() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([]) == 1.0


@pytest.mark.parametrize(
    ("asked", "weights", "total", "shares"),
    [
        ([10, 10], [1, 1], 10, [5, 5]),
        ([2, 10, 10], [1, 1, 1], 12, [2, 5, 5]),
        ([10, 10], [3, 1], 8, [6, 2]),
        ([1, 2], [1, 1], 100, [1, 2]),
        ([1, 4, 50], [1, 1, 1], 11, [1, 4, 6]),
    ],
)
def test_fair_shares_are_max_min(asked: list[float], weights: list[float], total: float, shares: list[float]) -> None:
    assert max_min(asked, weights, total) == pytest.approx(shares)


def test_a_loud_caller_that_gets_what_is_left_is_fair_and_one_that_crowds_out_is_not() -> None:
    quiet = [caller(10, 10) for _ in range(19)]
    assert fairness([*quiet, caller(500, 110)]) == pytest.approx(1)
    assert fairness([*(caller(10, 4) for _ in range(19)), caller(500, 224)]) < 0.8
    assert fairness([caller(0, 0), caller(5, 0)]) == 1.0, "nobody was served anything"


def test_percentiles() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], part) for part in (0, 0.5, 0.99)] == [1, 3, 4]
    assert percentile([], 0.5) == 0.0


def test_the_share_of_the_bound_is_the_smaller_of_calls_and_tokens() -> None:
    tally = Tally("keyturn", [Person("a", 1, 1)])
    for size in (10, 10, 10):
        asked = Asked(1.0, 0, size, 0, size, 30.0, admitted=3.0)
        tally.come(asked)
        tally.answered(asked, 200, 1.0)
    tally.answered(Asked(1.0, 0, 500, 0, 500, 30.0), 429, 1.0)
    tally.complete = True
    row = figures(tally, Bound(4.0, 100.0, 4))
    assert row.of_bound == pytest.approx(0.3), "30 of 100 tokens, though 3 of 4 calls"
    assert (row.wait_p50, row.statuses, row.refused) == (2.0, {"429": 1}, 1)
    assert told(row)["served"] == 3
    tally.complete = False
    assert figures(tally, Bound(4.0, 100.0, 4)).of_bound is None


def test_the_plot_is_svg_with_a_bar_for_each_figure_and_no_markup_of_the_title() -> None:
    tally = Tally("round_robin", [Person("a", 1, 1)])
    tally.complete = True
    rows: list[Figures] = [figures(tally, Bound(0.0, 0.0, 0)), figures(tally, None)]
    drawn = plot("<b>Mine & yours", "two rows", rows)
    root = ElementTree.fromstring(drawn)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "<b>Mine & yours"
    assert texts.count("round robin") == 10
    assert "-" in texts, "what cannot be measured is a dash"
