"""Calls that wait for results, and the notes of what was left out."""

from __future__ import annotations

from collections.abc import Callable

from keyturn.wire.notes import note
from keyturn.wire.unanswered import Unanswered

from .steps import is_linear, steps


def waiting(*calls: tuple[str, str]) -> Unanswered[str]:
    found: Unanswered[str] = Unanswered()
    for number, (identity, name) in enumerate(calls):
        found.add(f"{number}", identity, name)
    return found


def test_a_call_is_found_once_by_whatever_finds_it_first() -> None:
    calls = waiting(("a", "f"), ("b", "f"), ("a", "g"), ("c", "h"))
    assert (calls.place("b"), calls.place("z")) == (1, -1)
    assert calls.with_id("a") == "0"
    assert calls.named("f") == "1"
    assert (calls.named("f"), calls.with_id("b")) == (None, None)
    assert calls.place("a") == 2
    assert calls.oldest() == "2"
    assert calls.rest() == ["3"]
    assert (calls.oldest(), calls.with_id("c"), calls.named("h")) == (None, None, None)


def test_the_order_of_results_costs_nothing() -> None:
    def reversed_results(size: int) -> Callable[[], object]:
        calls = waiting(*((f"{number}", "f") for number in range(size)))
        return lambda: [calls.with_id(f"{number}") for number in reversed(range(size))]

    def by_age(size: int) -> Callable[[], object]:
        calls = waiting(*((f"{number}", f"f{number % 7}") for number in range(size)))
        return lambda: [calls.oldest() if number % 2 else calls.named(f"f{number % 7}") for number in range(size)]

    assert is_linear(reversed_results)
    assert is_linear(by_age)


def test_steps_tell_work_that_grows_with_the_square() -> None:
    assert not is_linear(lambda size: lambda: [one for one in range(size) for _ in range(size)], 50)
    assert steps(lambda: None) == 1


def test_notes_are_told_once_and_have_an_end() -> None:
    notes: list[str] = []
    for number in range(1000):
        note(notes, f"dropped part {number % 500}")
    assert notes[:2] == ["dropped part 0", "dropped part 1"]
    assert len(notes) == 201
    assert notes[-1] == "left out more than is told here"
