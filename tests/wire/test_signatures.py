"""Signatures on their way through clients of another dialect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Origin, Signature
from keyturn.wire import MARK, accepted, pack, unpack

GEMINI = Origin("gemini", "gemini-3-pro", "g1")


@given(st.text(max_size=40), st.builds(Origin, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9)))
def test_packed_is_unpacked(value: str, origin: Origin) -> None:
    signature = Signature(value, "gemini", origin)
    assert unpack(pack(signature), "anthropic") == signature


def test_what_we_did_not_pack_belongs_to_the_dialect_of_the_client() -> None:
    assert unpack("EqQBCkYIB", "anthropic") == Signature("EqQBCkYIB", "anthropic")
    assert pack(Signature("EqQBCkYIB", "anthropic")) == "EqQBCkYIB"


@given(st.text(max_size=60))
def test_a_broken_pack_belongs_to_nobody(text: str) -> None:
    found = unpack(MARK + text, "anthropic")
    assert found.dialect == "" or found.origin is not None


@pytest.mark.parametrize(
    ("dialect", "made", "asked", "takes"),
    [
        ("anthropic", ("a", "m1", "g1"), ("a", "m2", "g2"), True),
        ("anthropic", ("a", "m1", "g1"), ("b", "m1", "g1"), False),
        ("gemini", ("a", "m1", "g1"), ("a", "m1", "g1"), True),
        ("gemini", ("a", "m1", "g1"), ("a", "m1", "g2"), False),
        ("gemini", ("a", "m1", "g1"), ("a", "m2", "g1"), False),
        ("openai_responses", ("a", "m1", "g1"), ("a", "m2", "g1"), True),
        ("openai_responses", ("a", "m1", "g1"), ("a", "m1", "g2"), False),
    ],
)
def test_who_takes_whose(dialect: str, made: tuple[str, ...], asked: tuple[str, ...], takes: bool) -> None:
    assert accepted(Signature("s", dialect, Origin(*made)), dialect, Origin(*asked)) is takes
    assert accepted(Signature("s", dialect), dialect, Origin(*asked)), "nobody knows who made it"
    assert not accepted(Signature("s", "other", Origin(*made)), dialect, Origin(*made))
