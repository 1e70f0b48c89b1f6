"""What the simulated model does with the beginning of its own answer, and says before it calls a tool."""

from __future__ import annotations

import pytest

from keyturn.simulator.answers import Offer, Question, Said, answer_to

ASKED = (Said("user", "Hello there"),)
WHOLE = answer_to(Question(ASKED), "groq/m").text


@pytest.mark.parametrize("at", [1, 10, 40, len(WHOLE)])
def test_it_goes_on_where_it_stopped_whoever_begins(at: int) -> None:
    for name in ("groq/m", "anthropic/other"):
        rest = answer_to(Question((*ASKED, Said("assistant", WHOLE[:at]))), name)
        if name == "groq/m" or at >= 40:  # its name is said by then
            assert WHOLE[:at] + rest.text == WHOLE


def test_another_beginning_is_an_answer_like_any_other() -> None:
    assert answer_to(Question((*ASKED, Said("assistant", "I think"))), "groq/m").text.startswith("This is")


def test_its_bound_is_that_of_the_rest() -> None:
    rest = answer_to(Question((*ASKED, Said("assistant", WHOLE[:10])), bound=2), "groq/m")
    assert (len(rest.pieces), rest.finish) == (2, "length")


def test_it_says_something_before_it_calls() -> None:
    asked = Said("user", "[say: I will look.] [call: weather {}]")
    tools = [Offer("weather")]
    answer = answer_to(Question((asked,), tools=tools), "groq/m")
    assert (answer.text, len(answer.tools), answer.finish) == ("I will look.", 1, "tool_calls")
    rest = answer_to(Question((asked, Said("assistant", "I will")), tools=tools), "groq/m")
    assert (rest.text, len(rest.tools)) == (" look.", 1)
