"""Failover as a state machine: how often, in which order, and what the client is told in the end."""

from __future__ import annotations

import pytest

from keyturn.core import (
    Candidate,
    Credential,
    Deployment,
    Entry,
    Exhausted,
    Outcome,
    Progress,
    Refuse,
    Relay,
    TryNext,
    WaitUntil,
    advance,
    refusal,
    stand_by,
    together,
)

NOTHING = Exhausted(float("inf"), 0, 0, 0, 0)


def entry(order: int = 0, provider: str = "groq", model: str = "llama") -> Entry:
    return Entry(Candidate(Deployment(provider, model), Credential.of(provider, f"s{order}", order)), order)


def outcome(meaning: str, scope: str = "key", *, same: bool = False, key: bool = True) -> Outcome:
    return Outcome(meaning, scope, None, same, key, True, {})  # type: ignore[arg-type]


def go(progress: Progress, result: Outcome, at: Entry) -> object:
    progress.attempts += 1
    return advance(progress, at, result, 0.0)


@pytest.mark.parametrize("meaning", ["ok", "bad_request", "content_filter"])
def test_what_is_final_is_relayed(meaning: str) -> None:
    assert isinstance(go(Progress(), outcome(meaning, "request", key=False), entry()), Relay)


def test_ROT_03_seven_bad_keys_do_not_end_the_call() -> None:
    progress = Progress()
    for order in range(7):
        move = go(progress, outcome("invalid_key"), entry(order))
        assert isinstance(move, TryNext)
    assert progress.tried[Deployment("groq", "llama")] == set(range(7))
    assert progress.open(Deployment("groq", "llama"))


def test_twenty_attempts_are_the_most() -> None:
    progress = Progress()
    moves = [go(progress, outcome("rate_limited"), entry(order)) for order in range(20)]
    assert all(isinstance(move, TryNext) for move in moves[:19])
    assert isinstance(moves[19], Refuse)


def test_a_provider_that_fails_twice_is_left() -> None:
    progress = Progress()
    fault = outcome("server_error", "provider")
    go(progress, fault, entry(0))
    assert progress.open(Deployment("groq", "llama"))
    go(progress, fault, entry(1))
    assert not progress.open(Deployment("groq", "llama"))
    assert not progress.open(Deployment("groq", "other"))
    assert progress.open(Deployment("together", "llama"))


def test_four_faults_end_the_call() -> None:
    progress = Progress()
    moves = [go(progress, outcome("timeout", "provider"), entry(0, name)) for name in ("a", "b", "c", "d")]
    assert [type(move) for move in moves] == [TryNext, TryNext, TryNext, Refuse]


def test_the_same_credential_again_once_and_only_for_500_408_425() -> None:
    progress, at = Progress(), entry()
    move = go(progress, outcome("server_error", "provider", same=True), at)
    assert move == TryNext(resend=at)
    progress.resent |= {(at.candidate.deployment, at.order)}
    move = go(progress, outcome("timeout", "provider", same=True), at)
    assert move == TryNext(resend=None)
    assert go(Progress(), outcome("overloaded", "provider", key=False), entry()) == TryNext(resend=None)


def test_an_overloaded_model_is_left_but_not_its_provider() -> None:
    progress = Progress()
    go(progress, outcome("overloaded", "provider", key=False), entry())
    assert not progress.open(Deployment("groq", "llama"))
    assert progress.open(Deployment("groq", "other"))


def test_not_found_is_final_for_the_deployment() -> None:
    progress = Progress()
    go(progress, outcome("not_found", "model", key=False), entry())
    assert not progress.open(Deployment("groq", "llama"))


@pytest.mark.parametrize(
    ("shortage", "latest", "expected"),
    [
        (Exhausted(5.0, 1, 0, 0, 0), 20.0, WaitUntil(5.0)),
        (Exhausted(25.0, 1, 0, 0, 0), 20.0, None),
        (Exhausted(float("inf"), 0, 1, 0, 0), 20.0, WaitUntil(20.0)),
        (Exhausted(float("inf"), 0, 0, 0, 3), 20.0, None),
        (Exhausted(0.0, 1, 0, 0, 0), 0.0, None),
    ],
)
def test_waiting_only_for_what_comes_in_time(shortage: Exhausted, latest: float, expected: WaitUntil | None) -> None:
    move = stand_by(shortage, 0.0, latest)
    assert move == expected if expected is not None else isinstance(move, Refuse)


def told(progress: Progress, shortage: Exhausted, wait: float | None = None) -> tuple[int, str, float | None]:
    error = refusal(progress, shortage, "groq/llama", wait)
    return error.status, error.code, error.retry_after


def test_API_19_the_refusal_tells_the_truth() -> None:
    assert told(Progress(), Exhausted(31.0, 8, 0, 0, 0), 31.0) == (429, "capacity", 31.0)
    assert told(Progress(), Exhausted(31.0, 1, 0, 0, 7), 31.0) == (429, "capacity", 31.0)
    assert told(Progress(), Exhausted(float("inf"), 0, 0, 0, 8)) == (503, "no_valid_credentials", None)
    assert told(Progress(), Exhausted(5.0, 0, 0, 2, 0), 5.0) == (502, "bad_upstream", 5.0)


@pytest.mark.parametrize(
    ("wait", "text"),
    [(0.0, "1 ms"), (0.0004, "1 ms"), (0.0421, "43 ms"), (0.1, "0.1 s"), (31.41, "31.5 s"), (61.0, "61.0 s")],
)
def test_a_wait_is_never_told_shorter_than_it_is(wait: float, text: str) -> None:
    shortage = Exhausted(wait, 8, 0, 0, 0)
    assert refusal(Progress(), shortage, "groq/llama", wait).message.endswith(f"one is free again in {text}")
    turn = refusal(Progress(), shortage, "groq/llama", wait, turn=True)
    assert turn.message.endswith(f"your turn comes in about {text}")


def test_what_was_tried_in_this_call_counts() -> None:
    limited, dead, failed = Progress(), Progress(), Progress()
    go(limited, outcome("rate_limited"), entry())
    go(dead, outcome("invalid_key"), entry())
    go(failed, outcome("server_error", "provider"), entry())
    assert told(limited, NOTHING, 12.0) == (429, "capacity", 12.0)
    assert told(dead, NOTHING)[:2] == (503, "no_valid_credentials")
    assert told(failed, NOTHING)[:2] == (502, "bad_upstream")


def test_shortages_of_several_deployments_add_up() -> None:
    both = together([Exhausted(9.0, 1, 0, 2, 0), Exhausted(4.0, 0, 1, 0, 3, by_size=True)])
    assert both == Exhausted(4.0, 1, 1, 2, 3, by_size=True)
    assert together([]).wait == float("inf")
