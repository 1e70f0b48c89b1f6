"""What a program says with a call: into a body and headers, or refused with a word on what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.client.parameters import listed, read_options, wait_of
from keyturn.client.pool import LONGEST_LEAVE
from keyturn.client.streams import text_of


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"timeout": float("inf")}, ValueError, "timeout must be a positive number"),
        ({"timeout": "5"}, ValueError, "timeout must be a positive number"),
        ({"extra_headers": "x"}, TypeError, "extra_headers must be a dict, not str"),
        ({"extra_body": ["x"]}, TypeError, "extra_body must be a dict, not list"),
        ({"extra_headers": {"anthropic-beta": "a\r\nx-evil: 1"}}, ValueError, "anthropic-beta.* a line break"),
    ],
)
def test_LIB_02_options_that_are_wrong(more: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        read_options(more)


@pytest.mark.parametrize("texts", [None, 5, b"bytes", {"a": "b"}])
def test_LIB_02_what_is_no_list_of_texts(texts: object) -> None:
    with pytest.raises(TypeError, match="texts must be a string or a list of strings, not of type"):
        listed(texts)


def test_LIB_02_lists_of_texts() -> None:
    assert listed("ab") == ["ab"]
    assert listed(("a", "b")) == listed(each for each in "ab") == ["a", "b"]


def test_a_call_waits_for_a_leaving_gateway_no_longer_than_its_own_deadline() -> None:
    assert wait_of({}) == wait_of({"x-request-timeout-ms": "900000"}) == LONGEST_LEAVE
    assert wait_of({"x-request-timeout-ms": "1500"}) == 1.5


def test_LIB_02_the_text_of_a_message_that_has_parts() -> None:
    thinking = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert (text_of(thinking), text_of("Hello"), text_of(None)) == ("Hello", "Hello", "")
