"""The breaker of a provider, and the throttle before it."""

from __future__ import annotations

import pytest

from keyturn.core import (
    Breaker,
    Candidate,
    Credential,
    Deployment,
    Marks,
    Meaning,
    Others,
    Outcome,
    Report,
    Seen,
    Throttle,
    Transition,
    judge,
    scopes_of,
)
from keyturn.core.breaker import nobody, rejected_share

LLAMA, OTHER = Deployment("groq", "llama"), Deployment("groq", "other")
SCOPE = ("provider", "groq", "")
KEY = Credential.of("groq", "a")


class World:
    """A breaker over marks, told of attempts that begin and end at a moment."""

    def __init__(self) -> None:
        self.marks = Marks()
        self.breaker = Breaker(SCOPE)

    def fails(
        self,
        began: float,
        ended: float | None = None,
        model: Deployment = LLAMA,
        others: Others = nobody,
        **more: object,
    ) -> bool:
        """Whether anything followed."""
        seen = Seen(model, began, began + 0.1 if ended is None else ended, **more)  # type: ignore[arg-type]
        return self._apply(self.breaker.failed(self.marks, seen, lambda: 0.0, others=others))

    def answers(self, began: float, model: Deployment = LLAMA) -> bool:
        return self._apply(self.breaker.answered(self.marks, Seen(model, began, began + 0.1)))

    def _apply(self, changes: list[Transition]) -> bool:
        for change in changes:
            self.marks.apply(change)
        return bool(changes)

    def until(self) -> float | None:
        """When a request may probe; None while it is closed."""
        mark = self.marks.get(SCOPE)
        return None if mark is None else mark.until

    def wanted(self, now: float) -> None:
        for _ in range(10):
            self.breaker.wanted(now)

    def opened(self, at: float = 100.0) -> float:
        """Has it open, by twenty faults that were sent at once; until when."""
        for _ in range(20):
            self.fails(at - 1, at)
        until = self.until()
        assert until is not None
        return until


def test_half_of_twenty_faults_open_it_for_five_seconds() -> None:
    world = World()
    for _ in range(10):
        world.answers(0.0)
    for _ in range(9):
        assert not world.fails(0.0, 1.0)
    assert world.fails(0.0, 1.0)
    assert world.until() == pytest.approx(6.0)


def test_nineteen_faults_are_too_few_and_old_ones_do_not_count() -> None:
    world = World()
    for _ in range(19):
        assert not world.fails(0.0, 1.0)
    assert not world.fails(0.5, 21.5), "the others were more than 20 s ago"
    assert world.until() is None


def test_one_broken_model_does_not_close_its_provider() -> None:
    world = World()
    for number in range(60):
        assert not world.fails(number / 10, number / 10 + 5)
        if number % 3 == 0:
            world.answers(number / 10, OTHER)


def test_a_few_broken_keys_do_not_close_it_while_others_can_be_asked() -> None:
    world = World()
    for number in range(60):
        assert not world.fails(0.0, 1.0, key="ab"[number % 2], others=lambda beside: "c" not in beside)
    assert world.fails(0.0, 1.0, key="c", others=lambda beside: "d" not in beside), "three have failed"


def test_a_few_broken_keys_close_it_when_no_other_can_be_asked() -> None:
    world = World()
    for _ in range(19):
        assert not world.fails(0.0, 1.0, key="a")
    assert world.fails(0.0, 1.0, key="a", others=lambda beside: False)


def test_a_key_whose_probe_failed_rests_while_another_can_be_asked() -> None:
    world = World()
    until = world.opened()
    world.fails(until, key="a", others=lambda beside: "b" not in beside)
    [rest] = [each for each in world.marks.every() if each.scope != SCOPE]
    assert (rest.scope, rest.until) == (("key_model", "groq", "a", "llama"), until + 0.1 + 30)
    world.fails(until + 8, key="b", others=lambda beside: False)
    assert len(world.marks.every()) == 2, "somebody has to probe"
    for _ in range(3):
        world.answers(until + 16)
    assert world.marks.every() == [], "it is over for all of them"


def test_five_in_a_row_where_somebody_waits() -> None:
    world = World()
    for number in range(5):
        assert not world.fails(float(number)), "nobody waits"
    world.wanted(4.0)
    assert world.fails(5.0)


def test_three_in_a_row_over_more_than_ten_seconds() -> None:
    world = World()
    world.wanted(12.0)
    assert not world.fails(0.0)
    assert not world.fails(5.0)
    assert world.fails(12.0)


def test_an_answer_begins_the_row_anew() -> None:
    world = World()
    world.wanted(12.0)
    world.fails(0.0)
    world.fails(5.0)
    world.answers(6.0)
    assert not world.fails(12.0)


def test_what_broke_at_one_moment_counts_once() -> None:
    world = World()
    world.wanted(1.0)
    for _ in range(15):
        assert not world.fails(0.0, 1.0)


def test_five_failures_to_connect_open_it_whoever_waits() -> None:
    world = World()
    for number in range(4):
        assert not world.fails(float(number), code="refused")
    assert world.fails(4.0, code="refused")


def test_a_fault_that_came_through_is_no_failure_to_connect() -> None:
    world = World()
    for number, code in enumerate(("refused", "refused", "refused", "refused", "", "refused")):
        assert not world.fails(float(number), code=code)


def test_each_probe_that_fails_keeps_it_open_for_seven_seconds() -> None:
    world = World()
    until = world.opened()
    for _ in range(40):
        assert world.fails(until)
        now, until = until + 0.1, world.until() or 0.0
        assert until - now == pytest.approx(7.0), "however long the outage lasts"


def test_the_jitter_is_half_a_second() -> None:
    world = World()
    world.opened()
    (change,) = world.breaker.failed(world.marks, Seen(LLAMA, 105.0, 105.0), lambda: 0.999)
    assert 112.4 < change.until < 112.5


def test_what_the_provider_asks_for_is_obeyed() -> None:
    world = World()
    until = world.opened()
    world.fails(until, until, stated=30.0)
    assert world.until() == until + 30.0


def test_what_was_under_way_when_it_opened_changes_nothing() -> None:
    world = World()
    until = world.opened(100.0)
    assert not world.fails(99.5, 101.0)
    assert not world.answers(99.5)
    assert world.until() == until


def test_three_answers_close_it_and_after_the_first_eight_may_probe() -> None:
    world = World()
    until = world.opened()
    scopes = [SCOPE]
    world.marks.begin(scopes, "first", until)
    assert world.marks.blocked(scopes, until) is not None, "one at a time"
    assert world.answers(until)
    world.marks.end("first")
    for number in range(8):
        assert world.marks.blocked(scopes, until + 1) is None
        world.marks.begin(scopes, f"more {number}", until + 1)
    assert world.marks.blocked(scopes, until + 1) is not None
    assert not world.answers(until + 1)
    assert world.answers(until + 1)
    assert world.until() is None


def test_a_fault_among_the_probes_opens_it_again() -> None:
    world = World()
    until = world.opened()
    world.answers(until)
    world.answers(until)
    assert world.fails(until + 1)
    mark = world.marks.get(SCOPE)
    assert mark is not None
    assert (mark.width, mark.strikes) == (1, 2)
    assert world.answers(mark.until)
    assert not world.answers(mark.until), "the proofs of before do not count"


def test_a_model_that_fails_while_another_probes_well_is_left_to_its_own_rest() -> None:
    world = World()
    until = world.opened()
    world.answers(until, OTHER)
    assert world.fails(until + 1)
    assert world.until() is None
    [rest] = world.marks.every()
    assert rest.scope == ("deployment", "groq", "llama")
    assert rest.until == pytest.approx(until + 1.1 + 7)
    other, model = (Candidate(each, KEY) for each in (OTHER, LLAMA))
    assert world.marks.blocked(scopes_of(other), until + 1) is None
    assert world.marks.blocked(scopes_of(model), until + 1) is rest


def test_that_model_rests_before_the_others_are_let_go() -> None:
    world = World()
    until = world.opened()
    world.answers(until, OTHER)
    changes = world.breaker.failed(world.marks, Seen(LLAMA, until + 1, until + 2), lambda: 0.0)
    assert [(change.scope[0], change.state) for change in changes] == [("deployment", "cooling"), ("provider", None)]


def test_a_model_works_that_was_mostly_answered() -> None:
    world = World()
    for second in range(3):
        assert not world.breaker.works(OTHER, 3.0)
        world.answers(float(second), OTHER)
        world.fails(float(second))
    assert world.breaker.works(OTHER, 3.0)
    assert not world.breaker.works(LLAMA, 3.0)
    assert not world.breaker.works(OTHER, 200.0), "that was long ago"


def test_a_few_keys_that_fail_beside_one_that_answers_are_not_the_provider() -> None:
    def told(*seen: tuple[str, bool]) -> bool:
        world = World()
        for second, (key, fault) in enumerate(seen):
            each = Seen(LLAMA, float(second), second + 0.1, key=key)
            world.breaker.failed(world.marks, each, lambda: 0.0) if fault else world.breaker.answered(world.marks, each)
        return world.breaker.only_some_keys(5.0)

    bad = [("broken", True)] * 2
    assert told(*bad, ("good", False))
    assert told(("other", True), *bad, ("good", False))
    assert not told(*bad)
    assert not told(*bad, ("broken", False)), "it is the provider that answers now and then"
    assert not told(*bad, ("good", False), ("good", True))
    assert not told(("a", True), ("b", True), ("c", True), ("good", False)), "three keys are many"


def report(meaning: Meaning, now: float) -> Report:
    candidate = Candidate(LLAMA, KEY)
    outcome = Outcome(meaning, "provider", None, False, True, True, {}, status=503)
    return Report(candidate, scopes_of(candidate), outcome, now, now, 2)


def test_it_takes_over_what_the_outage_marked_and_nothing_else() -> None:
    world = World()
    for now in range(4):
        for change in judge(world.marks, report("server_error", float(now)), lambda: 0.0).transitions:
            world.marks.apply(change)
    world.marks.apply(Transition(("deployment", "groq", "busy"), "cooling", 130.0, "overloaded", 3, 90.0))
    world.marks.apply(Transition(("deployment", "groq", "asked"), "cooling", 400.0, "overloaded", 1, 90.0))
    world.marks.apply(Transition(("group_model", "groq", KEY.group, "llama"), "cooling", 200.0, "rate_limited", 1, 0.0))
    world.marks.apply(Transition(("deployment", "mistral", "small"), "cooling", 130.0, "overloaded", 3, 90.0))
    world.opened()
    assert {mark.scope for mark in world.marks.every()} == {
        SCOPE,
        ("deployment", "groq", "asked"),  # the provider itself asked for more than the table has
        ("group_model", "groq", KEY.group, "llama"),
        ("deployment", "mistral", "small"),
    }
    assert not world.marks.failing(("deployment", "groq", "llama"))


@pytest.mark.parametrize("meaning", ["server_error", "timeout", "overloaded"])
def test_while_it_is_open_its_faults_mark_nothing_else(meaning: Meaning) -> None:
    world = World()
    world.opened()
    for now in range(105, 112):
        assert judge(world.marks, report(meaning, float(now)), lambda: 0.0).transitions == []


def test_a_success_clears_other_marks_but_not_that_of_the_breaker() -> None:
    world = World()
    until = world.opened()
    world.marks.apply(Transition(("key", "groq", KEY.fingerprint), "cooling", until, "invalid_key", 1, 100.0))
    changes = judge(world.marks, report("ok", until), lambda: 0.0).transitions
    assert [change.scope[0] for change in changes] == ["key"]


def test_only_models_of_its_endpoint_are_taken_over() -> None:
    marks = Marks()
    breaker = Breaker(("provider", "g4f", "groq"), lambda model: "groq" in model)
    for model in ("groq/llama", "gemini"):
        marks.apply(Transition(("deployment", "g4f", model), "cooling", 30.0, "overloaded", 1, 0.0))
    changes: list[Transition] = []
    for _ in range(20):
        changes = breaker.failed(marks, Seen(Deployment("g4f", "groq/llama"), 0.0, 1.0), lambda: 0.0)
    assert [change.scope for change in changes] == [("provider", "g4f", "groq"), ("deployment", "g4f", "groq/llama")]


@pytest.mark.parametrize(
    ("requests", "accepts", "share"),
    [(19, 0, 0.0), (20, 0, 20 / 21), (20, 10, 0.0), (100, 40, 20 / 101), (100, 50, 0.0), (100, 100, 0.0)],
)
def test_the_share_of_calls_that_leave_it_alone(requests: int, accepts: int, share: float) -> None:
    assert rejected_share(requests, accepts) == pytest.approx(share)


def test_the_throttle_looks_back_on_two_minutes() -> None:
    throttle = Throttle()
    for second in range(100):
        throttle.began(float(second))
        throttle.failed(float(second))
    assert throttle.share(100.0) == pytest.approx(100 / 101)
    throttle.accepted(100.0)
    assert throttle.counts(100.0) == (100, 101)
    assert throttle.share(300.0) == 0.0
    for second in range(100):
        throttle.began(400.0 + second)
        throttle.failed(400.0 + second)
    throttle.clear()
    assert throttle.share(500.0) == 0.0


def test_what_has_not_been_answered_says_nothing_by_itself() -> None:
    throttle = Throttle()
    for second in range(100):
        throttle.began(float(second))
    for second in range(9):
        throttle.failed(float(second))
    assert throttle.share(100.0) == 0.0
    throttle.failed(9.0)
    assert throttle.share(100.0) > 0.9
    for second in range(10):
        throttle.accepted(float(second))
    assert throttle.share(100.0) == 0.0, "no more than half of its answers"
