"""The cooldown profiles: what each row of each table comes to, step by step as time goes by."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.core import (
    PROFILES,
    Candidate,
    Credential,
    Deployment,
    Marks,
    Outcome,
    Report,
    judge,
    key_scope,
    scopes_of,
)
from keyturn.core.cooldowns import FOREVER, TABLE
from keyturn.core.credentials import Transition

HOUR = 3600.0
DAY = 86_400.0
EVERY = sorted(PROFILES)


def credential(name: str = "a", group: str = "") -> Credential:
    return Credential.of("groq", name, 1, group=group)


def outcome(meaning: str, wait: float | None = None, **more: Any) -> Outcome:
    scope = more.pop("scope", "provider" if meaning in ("overloaded", "server_error") else "key")
    return Outcome(meaning, scope, wait, False, True, True, {}, **more)  # type: ignore[arg-type]


DEAD = outcome("invalid_key", explicit=True, status=401)
UNCLEAR = outcome("invalid_key", status=401)
NO_QUOTA = outcome("daily_quota", no_quota=True)


class World:
    """One deployment under one profile, with a clock that stands where it is put."""

    def __init__(self, profile: str, siblings: int = 8, **more: Any) -> None:
        self.marks = Marks()
        self.now = 0.0
        self._profile = profile
        self._siblings = siblings
        self._more = more

    def tell(self, result: Outcome, key: Credential | None = None, **more: Any) -> float:
        """*key* has just met *result*: how long it rests."""
        key = credential() if key is None else key
        candidate = Candidate(Deployment("groq", "llama"), key)
        settings = {"table": PROFILES[self._profile], **self._more, **more}
        report = Report(candidate, scopes_of(candidate), result, self.now, self.now, self._siblings, **settings)
        for change in judge(self.marks, report, lambda: 0.5).transitions:
            self.marks.apply(change)
        return self.rest(key)

    def rest(self, key: Credential | None = None) -> float:
        mark = self.marks.blocked(scopes_of(Candidate(Deployment("groq", "llama"), key or credential())), self.now)
        return 0.0 if mark is None else mark.wait(self.now)

    def row(self, result: Outcome, count: int, **more: Any) -> list[float]:
        """The rests after *count* such outcomes, each as soon as the one before is over."""
        found = []
        for _ in range(count):
            found.append(self.tell(result, **more))
            self.now += found[-1] + 1.0 if found[-1] < FOREVER else 0.0
        return found


# --- adaptive


def test_the_adaptive_profile_escalates() -> None:
    jittered = [each * 1.025 for each in (10, 30, 60, 120, 300, 300)]
    assert World("adaptive").row(outcome("rate_limited"), 6) == pytest.approx(jittered)
    assert World("adaptive").row(outcome("overloaded"), 7) == [2, 4, 8, 16, 32, 60, 60]
    assert World("adaptive").row(outcome("server_error"), 7) == [0, 5, 10, 20, 40, 60, 60]
    assert World("adaptive").row(UNCLEAR, 6) == [300, 600, 1200, 2400, HOUR, HOUR]
    assert World("adaptive").row(outcome("daily_quota"), 2) == [HOUR, HOUR]
    assert World("adaptive").row(outcome("daily_quota"), 1, reset_in=20_000.0) == [20_000.5]
    assert TABLE is PROFILES["adaptive"]


# --- fixed


@pytest.mark.parametrize(
    "result",
    [
        outcome("rate_limited"),
        outcome("daily_quota"),
        outcome("insufficient_credit"),
        UNCLEAR,
        outcome("forbidden"),
        outcome("overloaded"),
        outcome("server_error"),
        outcome("timeout"),
        outcome("unknown"),
    ],
    ids=lambda result: result.meaning,
)
def test_the_fixed_profile_is_a_minute_wherever_it_guesses(result: Outcome) -> None:
    assert World("fixed").row(result, 5) == [60.0] * 5
    assert World("fixed").row(result, 2, reset_in=20_000.0) == [60.0] * 2


def test_the_fixed_profile_knows_what_is_certain() -> None:
    assert World("fixed").tell(DEAD) == DAY
    assert World("fixed").tell(NO_QUOTA) == FOREVER


# --- patient


def test_ERR_02_patient_rests_an_hour_after_a_429_or_quota() -> None:
    for meaning in ("rate_limited", "daily_quota", "insufficient_credit"):
        world = World("patient")
        assert world.tell(outcome(meaning), reset_in=20_000.0) == HOUR
        world.now = HOUR - 1.0
        assert world.rest() == 1.0
        world.now = HOUR
        assert world.rest() == 0.0
        assert world.row(outcome(meaning), 3) == [HOUR] * 3


def test_ERR_03_patient_rests_a_day_after_a_401_and_not_for_a_clients_mistake() -> None:
    for result in (DEAD, UNCLEAR):
        world = World("patient")
        assert world.tell(result) == DAY
        world.now = DAY
        assert world.rest() == 0.0
    world = World("patient")
    for meaning in ("bad_request", "content_filter", "context_length"):
        assert world.row(outcome(meaning, scope="request", message="invalid parameter"), 5) == [0.0] * 5


@pytest.mark.parametrize("meaning", ["server_error", "timeout", "unknown", "forbidden", "overloaded"])
def test_ERR_04_patient_rests_ten_minutes_after_three_other_errors_in_a_row(meaning: str) -> None:
    world = World("patient")
    assert world.row(outcome(meaning), 3) == [0.0, 0.0, 600.0]
    assert world.rest() == 0.0
    assert world.tell(outcome(meaning)) == 600.0


def test_ERR_04_patient_sets_the_deployment_aside_after_three_errors_of_different_keys() -> None:
    world = World("patient")
    for name in "abc":
        world.tell(outcome("server_error"), credential(name))
    assert world.rest(credential("unasked")) == 600.0


def test_ERR_05_a_success_resets_the_counters_of_patient() -> None:
    world = World("patient")
    world.row(outcome("unknown"), 2)
    world.tell(outcome("ok", scope="request"))
    assert world.row(outcome("unknown"), 3) == [0.0, 0.0, 600.0]
    world.tell(outcome("ok", scope="request"))
    assert world.rest() == 0.0
    assert world.tell(outcome("unknown")) == 0.0


# --- all of them


@pytest.mark.parametrize("profile", EVERY)
def test_the_providers_own_word_comes_first_in_every_profile(profile: str) -> None:
    for meaning in ("rate_limited", "daily_quota", "overloaded", "unknown", "forbidden"):
        assert World(profile).tell(outcome(meaning, 20.0), reset_in=9.0) == 20.5


@pytest.mark.parametrize("profile", EVERY)
def test_a_running_cooldown_is_never_shortened_in_any_profile(profile: str) -> None:
    world = World(profile)
    world.tell(outcome("rate_limited", 7200.0))
    world.now = 1.0
    assert world.tell(outcome("rate_limited")) > 7199.0


@pytest.mark.parametrize("profile", EVERY)
def test_an_absent_model_and_a_limit_of_nothing_are_facts_in_every_profile(profile: str) -> None:
    world = World(profile)
    world.tell(outcome("not_found", scope="model"), in_chain=True)
    absent = world.marks.get(("absent", "groq", "llama"))
    assert absent is not None
    assert absent.until == 600.0
    assert world.tell(NO_QUOTA) == FOREVER


@pytest.mark.parametrize(
    ("profile", "first", "rests"),
    [
        ("adaptive", 60.0, [61.5, 61.5, 61.5, 123.0]),
        ("adaptive", 5.0, [5.125, 30.75, 61.5, 123.0]),
        ("fixed", 30.0, [30.0, 60.0, 60.0, 60.0]),
        ("fixed", 90.0, [90.0, 90.0, 90.0, 90.0]),
        ("patient", 60.0, [60.0, HOUR, HOUR, HOUR]),
    ],
)
def test_the_owner_sets_the_first_step_of_the_minute_row_and_later_ones_are_never_shorter(
    profile: str, first: float, rests: list[float]
) -> None:
    assert World(profile, first_step=first).row(outcome("rate_limited"), 4) == pytest.approx(rests)
    world = World(profile, first_step=first)
    assert world.tell(outcome("daily_quota")) == World(profile).tell(outcome("daily_quota"))


@pytest.mark.parametrize("profile", EVERY)
@pytest.mark.parametrize("result", [DEAD, UNCLEAR], ids=["explicit", "unclear"])
def test_a_mass_of_401_is_the_providers_fault_in_every_profile(profile: str, result: Outcome) -> None:
    world = World(profile, siblings=4)
    for name in "abc":
        world.tell(result, credential(name))
    assert world.rest(credential("c")) == 300.0
    assert max(world.rest(credential(name)) for name in "ab") <= 300.0


@pytest.mark.parametrize("profile", EVERY)
def test_every_table_has_the_same_rows(profile: str) -> None:
    assert PROFILES[profile].keys() == TABLE.keys()
    assert all(row.steps[row.first - 1] > 0 for row in PROFILES[profile].values())
    assert [row.scope for row in PROFILES[profile].values()] == [row.scope for row in TABLE.values()]


# --- a new configuration


def test_a_new_configuration_forgets_what_holds_until_it_changes_and_keys_that_are_gone() -> None:
    world = World("adaptive")
    stays, gone, member = credential("a"), credential("b"), credential("c", "p1")
    world.tell(NO_QUOTA, stays)
    world.tell(outcome("forbidden"), gone)
    world.tell(outcome("rate_limited"), gone)
    world.tell(outcome("rate_limited"), stays)
    world.tell(outcome("insufficient_credit"), member)
    world.tell(outcome("overloaded"), stays)
    world.tell(outcome("server_error"), gone)
    freed = world.marks.keep({stays.fingerprint, member.fingerprint}, {stays.group, "p1"})
    assert sorted(freed) == sorted(
        [
            ("key_model", "groq", stays.fingerprint, "llama"),
            ("key_model", "groq", gone.fingerprint, "llama"),
            ("group_model", "groq", gone.group, "llama"),
        ]
    )
    left = {mark.scope for mark in world.marks.of("groq", counting=True)}
    assert left == {
        ("group_model", "groq", stays.group, "llama"),
        ("group", "groq", "p1"),
        ("deployment", "groq", "llama"),
    }
    assert world.marks.keep({stays.fingerprint}, {stays.group}) == [("group", "groq", "p1")]


def test_what_the_owner_disabled_stays_so_when_the_configuration_changes() -> None:
    marks, key = Marks(), credential()
    marks.apply(Transition(key_scope(key), "disabled", FOREVER, "disabled", 0, 0.0))
    assert marks.keep((), ()) == []
    assert marks.get(key_scope(key)) is not None


def test_a_probe_under_way_survives_that_its_mark_is_forgotten() -> None:
    world = World("adaptive")
    world.tell(outcome("rate_limited", 5.0))
    scopes = scopes_of(Candidate(Deployment("groq", "llama"), credential()))
    world.marks.begin(scopes, "probe", 6.0)
    assert world.marks.keep((), ()) == [scopes[2]]
    world.marks.end("probe")
    assert world.marks.blocked(scopes, 7.0) is None
