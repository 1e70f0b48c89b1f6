"""The table in the documentation is what the tests are parametrised with, and nothing is left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import test_errors, test_features, test_others
from .cells import IMPOSSIBLE, TESTED, UPSTREAMS
from .clients import CLIENTS
from .table import FEATURES, NAMES, page

PAGE = Path(__file__).parents[3] / "docs" / "clients-matrix.md"
ALL = {(client, upstream) for client in CLIENTS for upstream in UPSTREAMS}
TESTS = (test_errors, test_features, test_others)
"""Imported, so that their cells are known whichever tests are run."""


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tests.clients.matrix.table > docs/clients-matrix.md"


def test_every_feature_is_tested_and_told() -> None:
    assert set(TESTED) == set(FEATURES)
    assert set(IMPOSSIBLE) <= set(FEATURES)


@pytest.mark.parametrize("feature", FEATURES)
def test_cells_are_tested_or_impossible(feature: str) -> None:
    ruled_out = IMPOSSIBLE.get(feature, {})
    assert TESTED[feature].isdisjoint(ruled_out)
    assert TESTED[feature] | set(ruled_out) == ALL
    assert all(ruled_out.values())


@pytest.mark.parametrize("feature", FEATURES)
def test_the_table_shows_the_cells(feature: str) -> None:
    """Read from the page itself, as a reader does."""
    section = PAGE.read_text().partition(f"## {FEATURES[feature].title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert rows[0][1:] == [NAMES[upstream] for upstream in UPSTREAMS]
    shown = {
        (row[0], column) for row in rows[1:] for column, cell in zip(rows[0][1:], row[1:], strict=True) if cell == "yes"
    }
    assert shown == {(NAMES[client], NAMES[upstream]) for client, upstream in TESTED[feature]}
