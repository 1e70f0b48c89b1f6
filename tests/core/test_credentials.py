"""The cooldown table, row by row, and the rules that hold for all rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import (
    Candidate,
    Credential,
    Deployment,
    Marks,
    Outcome,
    Report,
    absent_scope,
    cleared,
    judge,
    scopes_of,
)

SMOOTH = 0.0


def credential(name: str = "a", group: str = "") -> Credential:
    return Credential.of("groq", name, 1, group=group)


def outcome(meaning: str, wait: float | None = None, scope: str = "key", **more: Any) -> Outcome:
    return Outcome(meaning, scope, wait, False, True, True, {}, **more)  # type: ignore[arg-type]


class World:
    """Marks with one deployment, and the shortest way to report an outcome."""

    def __init__(self, siblings: int = 8) -> None:
        self.marks = Marks()
        self.siblings = siblings
        self.deployment = Deployment("groq", "llama")

    def tell(self, result: Outcome, key: Credential, now: float, started: float | None = None, **more: object) -> str:
        candidate = Candidate(self.deployment, key)
        begun = now if started is None else started
        report = Report(candidate, scopes_of(candidate), result, begun, now, self.siblings, **more)  # type: ignore[arg-type]
        verdict = judge(self.marks, report, lambda: SMOOTH)
        for change in verdict.transitions:
            self.marks.apply(change)
        return verdict.alarm

    def wait(self, key: Credential, now: float, model: str = "llama") -> float:
        mark = self.marks.blocked(scopes_of(Candidate(Deployment("groq", model), key)), now)
        return 0.0 if mark is None else mark.wait(now)


def test_ERR_18_minute_limits_escalate_10_30_60_120_300() -> None:
    world, key, now, waits = World(), credential(), 0.0, []
    for _ in range(7):
        world.tell(outcome("rate_limited"), key, now)
        waits.append(world.wait(key, now))
        now += waits[-1]
    assert waits == [10, 30, 60, 120, 300, 300, 300]


def test_ERR_23_the_providers_own_word_wins() -> None:
    world, key = World(), credential()
    world.tell(outcome("rate_limited", wait=46.0), key, 0.0)
    assert world.wait(key, 0.0) == 46.0


@pytest.mark.parametrize(
    ("meaning", "more", "seconds", "other_model_too"),
    [
        ("daily_quota", {}, 3600, False),
        ("insufficient_credit", {}, 3600, True),
        ("invalid_key", {"explicit": True, "status": 401}, 86400, True),
        ("invalid_key", {"explicit": False, "status": 401}, 300, True),
        ("forbidden", {}, 3600, False),
        ("forbidden", {"no_quota": True}, float("inf"), False),
        ("overloaded", {"scope": "provider"}, 2, False),
    ],
)
def test_each_row_marks_its_scope_for_its_length(
    meaning: str, more: dict[str, Any], seconds: float, other_model_too: bool
) -> None:
    world, key = World(), credential()
    scope = str(more.pop("scope", "key"))
    world.tell(outcome(meaning, scope=scope, **more), key, 0.0)
    assert world.wait(key, 0.0) == seconds
    assert (world.wait(key, 0.0, model="other") > 0) is other_model_too
    assert world.wait(credential("b"), 0.0) == (seconds if meaning == "overloaded" else 0)


def test_credentials_of_one_quota_group_cool_together() -> None:
    world = World()
    one, two, three = credential("a", "p1"), credential("b", "p1"), credential("c")
    world.tell(outcome("rate_limited", wait=20.0), two, 0.0)
    assert (world.wait(one, 0.0), world.wait(two, 0.0), world.wait(three, 0.0)) == (20.0, 20.0, 0.0)


def test_unclear_401_doubles_to_an_hour() -> None:
    world, key, now, waits = World(), credential(), 0.0, []
    for _ in range(6):
        world.tell(outcome("invalid_key", explicit=False, status=401), key, now)
        waits.append(world.wait(key, now))
        now += waits[-1]
    assert waits == [300, 600, 1200, 2400, 3600, 3600]


def test_first_fault_in_a_row_is_forgiven_then_5_10_20_40_60() -> None:
    world, key, now, waits = World(), credential(), 0.0, []
    for _ in range(7):
        world.tell(outcome("server_error", scope="provider"), key, now)
        waits.append(world.wait(key, now))
        now += waits[-1] + 1
    assert waits == [0, 5, 10, 20, 40, 60, 60]


def test_faults_of_three_credentials_cool_the_deployment() -> None:
    world = World()
    for name in "abc":
        world.tell(outcome("server_error", scope="provider"), credential(name), 1.0)
    assert world.wait(credential("unasked"), 1.0) > 0
    assert world.wait(credential("unasked"), 1.0, model="other") == 0


def test_a_success_between_keeps_the_deployment_open() -> None:
    world = World()
    for name in "ab":
        world.tell(outcome("server_error", scope="provider"), credential(name), 1.0)
    world.tell(outcome("ok", scope="request"), credential("d"), 2.0)
    world.tell(outcome("server_error", scope="provider"), credential("c"), 3.0)
    assert world.wait(credential("unasked"), 3.0) == 0


def test_ERR_03_a_clients_mistake_marks_nothing() -> None:
    world, key = World(), credential()
    for meaning in ("bad_request", "content_filter", "context_length"):
        world.tell(outcome(meaning, scope="request"), key, 0.0)
    assert world.wait(key, 0.0) == 0
    assert world.marks.of("groq") == []


def test_not_found_is_remembered_in_chains_only() -> None:
    world, key = World(), credential()
    world.tell(outcome("not_found", scope="model"), key, 0.0)
    assert world.marks.of("groq") == []
    world.tell(outcome("not_found", scope="model"), key, 0.0, in_chain=True)
    absent = world.marks.blocked((absent_scope(world.deployment),), 0.0)
    assert absent is not None
    assert absent.wait(0.0) == 600
    assert world.wait(key, 0.0) == 0


def test_ERR_04_unknown_answers_cool_after_three_in_a_row() -> None:
    world, key = World(), credential()
    for now in (0.0, 1.0):
        world.tell(outcome("unknown"), key, now)
        assert world.wait(key, now) == 0
    world.tell(outcome("unknown"), key, 2.0)
    assert world.wait(key, 2.0) == 600


def test_ERR_05_success_resets_only_when_it_began_after_the_mark() -> None:
    world, key = World(), credential()
    world.tell(outcome("rate_limited"), key, 10.0)
    world.tell(outcome("ok", scope="request"), key, 12.0, started=9.0)
    assert world.wait(key, 12.0) == 8.0
    world.tell(outcome("ok", scope="request"), key, 21.0, started=20.5)
    assert world.wait(key, 21.0) == 0
    world.tell(outcome("rate_limited"), key, 30.0)
    assert world.wait(key, 30.0) == 10.0


def test_failures_that_were_in_flight_together_count_once() -> None:
    world, key = World(), credential()
    for _ in range(20):
        world.tell(outcome("rate_limited"), key, 5.0, started=1.0)
    assert world.wait(key, 5.0) == 10.0


def test_one_probe_at_a_time_after_a_cooldown() -> None:
    world, key = World(), credential()
    scopes = scopes_of(Candidate(world.deployment, key))
    world.tell(outcome("rate_limited", wait=5.0), key, 0.0)
    assert world.marks.blocked(scopes, 6.0) is None
    world.marks.begin(scopes, "first", 6.0)
    blocked = world.marks.blocked(scopes, 6.0)
    assert blocked is not None
    assert blocked.wait(6.0) == float("inf")
    assert world.marks.end("first")
    assert world.marks.blocked(scopes, 6.0) is None


def test_mass_401_is_the_providers_fault() -> None:
    world = World(siblings=4)
    keys = [credential(name) for name in "abcd"]
    dead = outcome("invalid_key", explicit=True, status=401)
    assert world.tell(dead, keys[0], 0.0) == ""
    assert world.tell(dead, keys[1], 10.0) == ""
    assert world.wait(keys[0], 10.0) > 80_000
    assert "3 of 4 groq keys answered 401" in world.tell(dead, keys[2], 20.0)
    assert world.wait(keys[0], 20.0) == 280
    assert world.wait(keys[1], 20.0) == 290
    assert world.wait(keys[2], 20.0) == 300


def test_two_dead_keys_of_two_are_simply_dead() -> None:
    world = World(siblings=2)
    dead = outcome("invalid_key", explicit=True, status=401)
    for name in "ab":
        assert world.tell(dead, credential(name), 0.0) == ""
    assert world.wait(credential("a"), 0.0) == 86400


MEANINGS = st.sampled_from(["rate_limited", "daily_quota", "forbidden", "overloaded", "server_error", "timeout"])


@given(st.lists(st.tuples(MEANINGS, st.none() | st.floats(0, 400), st.floats(0, 30)), max_size=25))
def test_a_running_cooldown_is_never_shortened(story: list[tuple[str, float | None, float]]) -> None:
    world, key, now = World(), credential(), 0.0
    for meaning, wait, pause in story:
        before = now + world.wait(key, now)
        now += pause
        world.tell(outcome(meaning, wait), key, now)
        assert now + world.wait(key, now) >= min(before, float("inf")) - 1e-6 or before <= now


@given(st.lists(st.tuples(MEANINGS, st.sampled_from("abc"), st.floats(0, 90), st.floats(0, 40)), max_size=20))
def test_what_is_asked_of_all_marks_at_once_is_what_each_of_them_says(
    story: list[tuple[str, str, float, float]],
) -> None:
    world, now = World(), 0.0
    for meaning, name, wait, pause in story:
        now += pause
        world.tell(outcome(meaning, wait or None), credential(name), now, now - 5.0)
        for each in "abcd":
            candidate = Candidate(world.deployment, credential(each))
            scopes = scopes_of(candidate)
            marks = [world.marks.get(scope) for scope in scopes]
            assert world.marks.stand(scopes) == any(marks)
            known = (mark for mark in marks if mark is not None and mark.state != "counting")
            rests = [mark.wait(now) for mark in known if mark.until > now]
            blocked = world.marks.blocked(scopes, now)
            assert (0.0 if blocked is None else blocked.wait(now)) == max(rests, default=0.0)
            found = [
                scope
                for scope, mark in zip(scopes, marks, strict=True)
                if (scope[0] != "provider" and mark is not None and now >= mark.since)
                or (mark is None and scope[0] == "deployment" and world.marks.failing(scope))
            ]
            assert [change.scope for change in cleared(world.marks, scopes, now)] == found
