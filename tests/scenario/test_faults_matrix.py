"""The matrix of faults: each row that is played, plain and streamed, on memory and on a real Redis; and its page."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenario.faults.rows import ROWS, plays
from tests.scenario.faults.stage import SCENARIOS, Scenario, play
from tools import faults

CASES = [pytest.param(each, mode, id=f"{each.id}-{mode}") for each in SCENARIOS for mode in each.modes]
AGAIN = "run `make faults`"


@pytest.mark.parametrize("live", ["memory", "redis"])
@pytest.mark.parametrize(("scenario", "mode"), CASES)
def test_row(
    scenario: Scenario,
    mode: str,
    live: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    random.seed(scenario.row)
    hub = request.getfixturevalue("redis_hub") if live == "redis" else None
    told = play(scenario, mode, hub, monkeypatch, tmp_path)
    record_property("told", told)
    assert faults.playing or told in faults.outcomes(faults.PAGE.read_text())[scenario.row], AGAIN


def test_there_are_all_rows_and_each_is_asserted() -> None:
    assert [row.number for row in ROWS] == list(range(1, 53))
    assert [row.number for row in ROWS if not row.tests and not plays(row.number)] == []
    assert {each.row for each in SCENARIOS} <= {row.number for row in ROWS}
    names = [(each.id, each.modes) for each in SCENARIOS]
    assert len(set(names)) == len(names)


def test_every_test_that_a_row_names_exists() -> None:
    assert list(faults.missing_tests()) == []


def test_the_page_is_current() -> None:
    text = faults.PAGE.read_text()
    assert text == faults.page(faults.outcomes(text)), AGAIN
