"""read_object and depth: what is refused, where, and with which advice."""

from __future__ import annotations

import pytest

from keyturn.errors import BadRequest
from keyturn.wire.jsontext import MAX_DEPTH, clean, depth, loose, read_object


def refusal(body: bytes) -> str:
    with pytest.raises(BadRequest) as caught:
        read_object(body)
    return caught.value.message


def test_values_are_the_text_as_it_was_written() -> None:
    members = read_object(b' {"a" : [ 1.0 , 1e2 ] ,"b":"\\u00e9\\/" , "c" :  {"x": 1}} ')
    assert members == {"a": b"[ 1.0 , 1e2 ]", "b": b'"\\u00e9\\/"', "c": b'{"x": 1}'}
    assert all(type(value) is bytes for value in members.values())


def test_of_duplicate_members_the_last_wins() -> None:
    assert read_object(b'{"a":1,"\\u0061":2,"b":3}') == {"a": b"2", "b": b"3"}


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_object(b'\xef\xbb\xbf{"a":1}') == {"a": b"1"}


@pytest.mark.parametrize("body", [b"", b" \n\t "])
def test_an_empty_body(body: bytes) -> None:
    assert refusal(body) == "The request body is empty. Send a JSON object."


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1", b"true"])
def test_another_value_than_an_object(body: bytes) -> None:
    assert "must be a JSON object" in refusal(body)


@pytest.mark.parametrize(
    ("body", "place", "advice"),
    [
        (b'{"a": @}', "line 1, column 7 (byte 6)", "with a JSON library"),
        (b'{"a":1,\n "b": x}', "line 2, column 7 (byte 14)", "with a JSON library"),
        (b"{'a':1}", "line 1, column 2 (byte 1)", "double quotes"),
        (b'{"a":NaN}', "line 1, column 6 (byte 5)", "NaN is not JSON"),
        (b'{"a":Infinity}', "line 1, column 6 (byte 5)", "Infinity is not JSON"),
        (b'{"a":True}', "line 1, column 6 (byte 5)", "lower case"),
        (b'{"a":1,}', "line 1, column 8 (byte 7)", "Remove the comma"),
        (b'{"a":[1,]}', "byte 8", "Remove the comma"),
        (b'{"a":1} x', "byte 9", "with a JSON library"),
        (b'{"a":"\\ud800 and more"}', "byte", "two \\u escapes"),
        (b'{"a":"x\xff"}', "line 1, column 8 (byte 7)", "UTF-8"),
        (b'{"\xc3":1}', "byte 2", "UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "byte 6", "UTF-8"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_remedy(body: bytes, place: str, advice: str) -> None:
    message = refusal(body)
    assert place in message
    assert advice in message


def test_a_body_that_was_cut() -> None:
    assert "in the middle of a value, after 14 bytes" in refusal(b'{"model":"gpt-')


def nested(levels: int) -> bytes:
    """An object of *levels* levels."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_depth_is_bounded() -> None:
    assert read_object(nested(MAX_DEPTH))
    assert "more than 200 levels" in refusal(nested(MAX_DEPTH + 1))


def test_absurd_depth_does_not_exhaust_the_stack() -> None:
    assert "more than 200 levels" in refusal(nested(100_000))


def test_many_brackets_side_by_side_or_in_strings_are_not_deep() -> None:
    assert read_object(b'{"a":[' + b",".join([b"{}"] * 500) + b'],"b":"' + b"[{" * 500 + b'"}')


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        (b"1", 0),
        (b"[]", 1),
        (b'{"a":[{}]}', 3),
        (b'["[[["]', 1),
        (b'["]",["]",["[",1]]]', 3),
        (b'["\\"",["\\\\",["\\\\\\"[["]]]', 3),
        (b'{"[":{"]":"","}":["{"]}}', 3),
        (b'[[],"",[""]]', 2),
    ],
)
def test_depth_sees_through_strings_and_escapes(text: bytes, levels: int) -> None:
    assert depth(text) == levels


def test_loose_reads_what_some_upstreams_send() -> None:
    assert loose(b'{"logprob":-Infinity}') == {"logprob": float("-inf")}
    assert loose(b'{"cost":1e999}') == {"cost": float("inf")}
    assert loose(b"<html>") is None
    assert loose(b"") is None
    assert loose(b"1" * 5000) is None
    assert loose(b"[" * 100_000) is None


def test_clean_leaves_text_that_utf_8_can_hold() -> None:
    assert clean("é\ud800😀") == "é?😀"
