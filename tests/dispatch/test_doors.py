"""What the headers of a call ask for: known words are taken, anything else is refused by its name."""

from __future__ import annotations

import pytest

from keyturn.dispatch import read_call
from keyturn.errors import BadRequest

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("x-keyturn-class", "urgent", "must be one of interactive, normal, batch"),
        ("x-keyturn-class", "bach", "did you mean batch?"),
        ("x-keyturn-class", "", "must be one of"),
        ("x-keyturn-on-cut", "restart", "must be continue or error"),
        ("x-keyturn-commit-after", "soon", "must be a number of seconds from 0"),
        ("x-keyturn-commit-after", "-1", "must be a number of seconds from 0"),
        ("x-keyturn-commit-after", "nan", "must be a number of seconds from 0"),
    ],
)
def test_a_header_that_says_nothing_known_is_refused_by_its_name(name: str, given: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_call("chat", BODY, {name: given})
    assert said in caught.value.message
    assert f"`{name}`" in caught.value.message
    assert caught.value.param == name


@pytest.mark.parametrize("given", ["batch", " Batch ", "NORMAL", "interactive"])
def test_a_class_is_taken_however_it_is_written(given: str) -> None:
    assert read_call("chat", BODY, {"x-keyturn-class": given}).stated_class == given.strip().lower().encode()
