from __future__ import annotations

from itertools import product
from math import ceil

import pytest

from keyturn.core.limits import Cost
from keyturn.core.message import Usage
from keyturn.core.model import Call, Kind
from keyturn.core.tokens import FIRST_OUTPUT, MARGIN, MOST_MODELS, Estimate, Estimator


def call(text_bytes: int, media: int = 0, max_output: int | None = None, kind: Kind = "chat") -> Call:
    return Call("openai_chat", kind, "m", {}, text_bytes, text_bytes=text_bytes, media=media, max_output=max_output)


def charge(
    estimate: Estimate, call: Call, *, counts_output: bool, charges_max_output: bool, learned_output: int
) -> Cost:
    """The rule, step by step."""
    tokens = min(estimate.bound, ceil(estimate.likely * MARGIN))
    if call.kind == "embeddings" or not counts_output:
        return Cost(tokens, 0, estimate.floor)
    output = learned_output if call.max_output is None else call.max_output
    return Cost(tokens, max(output if charges_max_output else min(output, learned_output), 1), estimate.floor)


@pytest.mark.parametrize("size", [0, 1, 20, 300, 4_000, 100_000, 30_000_000])
@pytest.mark.parametrize("media", [0, 1, 7])
def test_an_estimate_lies_between_its_bounds(size: int, media: int) -> None:
    likely, bound, floor = Estimator().estimate(call(size, media))
    assert 1 <= floor <= likely <= bound
    assert bound >= size


@pytest.mark.parametrize(
    ("text_bytes", "tokens"),
    [
        (len(b'[{"role":"user","content":"Say this is a test"}]'), 12),  # OpenAI counts 12 for it
        (4_400, 1_000),
        (44_000, 10_000),
    ],
)
def test_prose_is_charged_within_reach_of_what_it_costs(text_bytes: int, tokens: int) -> None:
    found = Estimator().estimate(call(text_bytes))
    assert tokens * 0.8 <= found.likely <= tokens * 2
    assert found.bound >= tokens


@pytest.mark.parametrize("run", [b" " * 128, b"=" * 64, b"\\n" * 16, b"\\u4f60" * 2])
def test_the_floor_is_below_even_the_densest_text(run: bytes) -> None:
    """Runs that the known vocabularies hold as one token, as JSON writes them."""
    repeats = 1000
    assert Estimator().estimate(call(len(run) * repeats)).floor <= repeats


def test_usage_corrects_the_estimate_of_its_model_alone() -> None:
    estimator = Estimator()
    before = estimator.estimate(call(3_000), "p/cjk").likely
    for _ in range(100):
        estimator.learn("p/cjk", call(3_000), Usage(1_500, 100))
    assert estimator.estimate(call(3_000), "p/cjk").likely == pytest.approx(1_500, rel=0.02)
    assert estimator.estimate(call(6_000), "p/cjk").likely == pytest.approx(3_000, rel=0.03)
    assert estimator.estimate(call(3_000), "p/other").likely == before


def test_an_estimate_without_a_model_is_for_the_name_asked_for() -> None:
    estimator = Estimator()
    for _ in range(50):
        estimator.learn("m", call(3_000), Usage(2_000, 1))
    assert estimator.estimate(call(3_000)) == estimator.estimate(call(3_000), "m")
    assert estimator.estimate(call(3_000)) != estimator.estimate(call(3_000), "x")


def test_one_huge_prompt_does_not_decide_for_all_others() -> None:
    estimator = Estimator()
    for _ in range(50):
        estimator.learn("m", call(4_000), Usage(1_000, 10))
    before = estimator.estimate(call(4_000), "m").likely
    estimator.learn("m", call(4_000_000), Usage(4_000_000, 10))
    assert estimator.estimate(call(4_000), "m").likely <= before * 1.7


def test_tiny_prompts_with_a_long_hidden_preamble_teach_little_about_long_ones() -> None:
    estimator = Estimator()
    for _ in range(200):
        estimator.learn("m", call(4_000), Usage(1_000, 10))
        estimator.learn("m", call(40), Usage(60, 10))
    assert estimator.estimate(call(4_000), "m").likely == pytest.approx(1_000, rel=0.1)


@pytest.mark.parametrize("usage", [Usage(10**12, 10**12), Usage(1, 1), Usage(0, 0), Usage(-5, -5)])
def test_absurd_usage_leaves_estimates_within_their_bounds(usage: Usage) -> None:
    estimator = Estimator()
    for _ in range(2_000):
        estimator.learn("m", call(1_000), usage)
    found = estimator.estimate(call(1_000), "m")
    assert 1 <= found.floor <= found.likely <= found.bound
    assert 1 <= estimator.output("m") <= 65_536


def test_what_is_not_exact_teaches_nothing() -> None:
    estimator = Estimator()
    estimator.learn("m", call(1_000), Usage(9_999, 9_999, exact=False))
    assert estimator.estimate(call(1_000), "m") == Estimator().estimate(call(1_000), "m")
    assert estimator.output("m") == FIRST_OUTPUT


def test_learned_output_covers_nine_answers_of_ten() -> None:
    estimator = Estimator()
    assert estimator.output("m") == 256
    lengths = [(number * 7919) % 1000 + 1 for number in range(3_000)]  # 1 … 1000, evenly
    covered = 0
    for number, length in enumerate(lengths):
        covered += number >= 1_000 and length <= estimator.output("m")
        estimator.learn("m", call(100), Usage(25, length))
    assert 0.85 <= covered / 2_000 <= 0.95


def test_one_endless_answer_moves_the_learned_output_a_little() -> None:
    estimator = Estimator()
    estimator.learn("m", call(100), Usage(25, 60_000))
    assert estimator.output("m") <= 256 * 1.2


def test_the_memory_is_bounded_and_keeps_who_answers() -> None:
    estimator = Estimator()
    for number in range(3 * MOST_MODELS):
        estimator.learn(f"m{number}", call(1_000), Usage(2_000, 10))
        estimator.learn("busy", call(1_000), Usage(2_000, 10))
    assert len(estimator._models) == MOST_MODELS
    assert estimator.output("m0") == FIRST_OUTPUT
    assert estimator.output("busy") != FIRST_OUTPUT


@pytest.mark.parametrize(
    ("max_output", "counts", "charges_max", "expected"),
    [
        (None, True, False, 256),
        (1_000, True, False, 256),
        (100, True, False, 100),
        (1_000, True, True, 1_000),
        (None, True, True, 256),
        (1_000, False, True, 0),
        (0, True, False, 1),
    ],
)
def test_the_output_charged(max_output: int | None, counts: bool, charges_max: bool, expected: int) -> None:
    got = Estimator().charge(
        call(4_000, max_output=max_output), "m", counts_output=counts, charges_max_output=charges_max
    )
    assert got.output == expected


def test_the_bound_caps_the_margin_and_embeddings_have_no_output() -> None:
    learned = Estimator()
    for _ in range(50):  # tokens of a byte each
        learned.learn("m", call(40_000), Usage(40_000, 1))
    asked = call(40_000, kind="embeddings")
    got = learned.charge(asked, "m", counts_output=True, charges_max_output=False)
    assert got == Cost(learned.estimate(asked, "m").bound, 0, learned.estimate(asked, "m").floor)


@pytest.mark.parametrize("kind", ["chat", "embeddings"])
@pytest.mark.parametrize("size", [0, 1, 255, 300, 4_001, 1_000_000])
@pytest.mark.parametrize("max_output", [None, 0, 1, 100, 5_000])
@pytest.mark.parametrize("usage", [None, Usage(1, 1), Usage(900, 700), Usage(10**9, 10**9)])
def test_what_is_charged_in_one_go_is_what_the_steps_say(
    kind: Kind, size: int, max_output: int | None, usage: Usage | None
) -> None:
    estimator = Estimator()
    for _ in range(3 if usage is not None else 0):
        assert usage is not None
        estimator.learn("m", call(3_000), usage)
    for media, counts, charges_max in product((0, 2), (True, False), (True, False)):
        asked, how = call(size, media, max_output, kind), {"counts_output": counts, "charges_max_output": charges_max}
        steps = charge(estimator.estimate(asked, "m"), asked, learned_output=estimator.output("m"), **how)
        assert estimator.charge(asked, "m", **how) == steps
