"""The load test with fallback: its parts do what they say. Rates are measured by `make bench`, not here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from keyturn.config import load
from tools.bench.fallback import BROKEN, LIMITED, TIERS, Sample, Trouble, gates, payload, provider_of, shares, variables


@pytest.mark.parametrize(("share", "refused"), [(0.0, 0), (0.3, 30), (1.0, 100)])
def test_CAC_05_the_first_tier_fails_for_its_share(share: float, refused: int) -> None:
    trouble = Trouble()
    trouble.share = share
    answers = Counter(trouble.next() for _ in range(100))
    assert abs(100 - answers[None] - refused) <= 1
    assert abs(answers[BROKEN] - answers[LIMITED]) <= 1


@pytest.mark.parametrize(("answer", "status"), [(BROKEN, b"500"), (LIMITED, b"429")])
def test_CAC_05_its_refusals_are_whole_answers(answer: bytes, status: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert f"content-length: {len(body)}".encode() in head
    assert "error" in json.loads(body)


def test_CAC_05_the_gateway_under_load_has_a_provider_in_each_tier() -> None:
    config = load(variables({"openai": 1001, "groq": 1002, "g4f": 1003}), cwd=Path("/nonexistent"))
    assert {name: config.tier_of(name) for name in config.credentials} == dict(TIERS)
    assert len(config.credentials["openai"]) > 1
    assert config.providers["openai"].base_url == "http://127.0.0.1:1001/v1"
    assert set(config.chat_models) == set(TIERS)


def test_CAC_05_who_served_is_read_off_the_answer() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Keyturn-Provider: groq\r\ncontent-length: 2\r\n\r\n{}"
    assert provider_of(answer) == "groq"
    assert provider_of(b"HTTP/1.1 502 Bad Gateway\r\n\r\nx-keyturn-provider: groq\r\n") == ""
    assert shares([Sample(1, 1, {"openai": 3, "groq": 1}), Sample(1, 1, {"g4f": 4})]) == (
        "tier 1: 37.5 %, tier 2: 12.5 %, tier 5: 50.0 %"
    )


def test_CAC_05_the_load_is_a_call_that_names_no_model() -> None:
    head, _, body = payload(8000).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["model"] == "auto"


def test_CAC_05_it_is_a_section_of_the_bench() -> None:
    text = (Path(__file__).parents[2] / "tools" / "bench" / "__main__.py").read_text()
    assert gates.__name__ in text
    assert "fallback.gates(rounds" in text
