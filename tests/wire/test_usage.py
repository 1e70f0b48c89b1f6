"""read_usage: what each provider reports, and what must never be believed."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.core import Usage
from keyturn.wire import read_usage


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}, Usage(19, 10)),
        (
            {
                "prompt_tokens": 13,
                "completion_tokens": 238,
                "total_tokens": 251,
                "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 192},
            },
            Usage(13, 238, 8, 192),
        ),
        ({"prompt_tokens": 6, "completion_tokens": 2, "prompt_cache_hit_tokens": 5}, Usage(6, 2, 5)),
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0)),
        ({"total_tokens": 8}, Usage(8, 0)),
        ({"completion_tokens": 3, "total_tokens": 8}, Usage(5, 3)),
        ({"completion_tokens": 3}, Usage(0, 3)),
        ({"input_tokens": 4, "output_tokens": 2}, Usage(4, 2)),
        ({"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10, "output_tokens": 7}, Usage(10, 7)),
        ({"prompt_tokens": 3.0, "completion_tokens": 2.0}, Usage(3, 2)),
        ({"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None}, Usage(3, 0)),
    ],
)
def test_shapes(given: dict[str, Any], usage: Usage) -> None:
    assert read_usage(given) == usage


def test_reasoning_that_is_outside_completion_tokens_counts_as_output() -> None:
    given = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 115,
        "completion_tokens_details": {"reasoning_tokens": 100},
    }
    assert read_usage(given) == Usage(10, 105, 0, 100)


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        {},
        [],
        "12",
        7,
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": -4, "completion_tokens": "9", "total_tokens": True},
        {"prompt_tokens": float("nan"), "completion_tokens": [1]},
    ],
)
def test_what_tells_nothing(nothing: object) -> None:
    assert read_usage(nothing) is None


def test_absurd_figures_are_bounded() -> None:
    assert read_usage({"prompt_tokens": 10**30, "completion_tokens": float("inf")}) == Usage(10**9, 10**9)
    assert read_usage({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 900}}) == Usage(5, 0, 5)
    assert read_usage({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 9}}) == Usage(
        0, 5, 0, 5
    )
