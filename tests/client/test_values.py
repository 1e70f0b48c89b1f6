"""Answers as objects: attributes and items at every depth, equal to dicts, JSON as they are."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.client import Answer, Told, Value
from keyturn.dispatch import Reply

CHAT = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "items": 2},
}
HEADERS = [
    (b"content-type", b"application/json"),
    (b"x-keyturn-call", b"019a"),
    (b"x-keyturn-provider", b"groq"),
    (b"x-keyturn-model", b"m"),
    (b"x-keyturn-key", b"groq-1:abcdef"),
    (b"x-keyturn-attempts", b"2"),
]


def answer() -> Answer:
    return Answer.of(Reply(200, list(HEADERS), json.dumps(CHAT).encode()))


def test_API_02_attributes_and_items_reach_the_same() -> None:
    reply = answer()
    assert reply.choices[0].message.content == reply["choices"][0]["message"]["content"] == "Hi"
    assert reply.get("usage").prompt_tokens == 3
    assert reply.get("nothing", 7) == 7
    assert [choice.index for choice in reply.choices] == [0]
    assert [value for name, value in reply.usage.items() if name == "prompt_tokens"] == [3]
    assert reply.usage["items"] == 2, "a method of dict is in front of the attribute, not of the item"
    assert [type(value) for value in reply.values()] == [str, list, Value]
    assert reply.pop("usage").completion_tokens == 1
    assert reply.setdefault("more", {"a": {"b": 1}}).a.b == 1


def test_an_answer_is_a_dict() -> None:
    reply = answer()
    assert reply == CHAT
    assert json.loads(json.dumps(reply)) == CHAT
    assert msgspec.json.decode(msgspec.json.encode(reply)) == CHAT
    assert {**reply} == dict(reply) == CHAT
    assert type(reply.to_dict()["choices"][0]) is dict
    assert reply.model_dump() == CHAT
    assert json.loads(reply.model_dump_json(indent=2)) == CHAT
    assert Value(a=None, b={"c": None}).model_dump(exclude_none=True) == {"b": {}}
    assert pickle.loads(pickle.dumps(reply)).choices[0].message.content == "Hi"
    changed = copy.deepcopy(reply)
    changed.choices[0].message.content = "changed"
    assert reply.choices[0].message.content == "Hi"


def test_an_attribute_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(AttributeError, match="there is no 'choice' here; there is id, choices, usage"):
        _ = answer().choice
    with pytest.raises(AttributeError):
        del answer().choice
    assert not hasattr(answer(), "__wrapped__")


def test_what_providers_leave_out_is_none() -> None:
    message = answer().choices[0].message
    assert message.tool_calls is None
    assert "tool_calls" not in message


def test_what_is_known_of_the_call() -> None:
    assert answer().keyturn == Told("019a", "groq", "m", "groq-1:abcdef", 2, None)
    assert answer().with_members(data=[]).keyturn.provider == "groq"
    assert Answer({}).keyturn.provider is None


def test_the_text_of_responses() -> None:
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal"}, {"type": "output_text", "text": "b"}]
    reply = Answer({"output": [{"type": "reasoning"}, {"type": "message", "content": parts}]})
    assert reply.output_text == "ab"


def test_a_vector_is_left_as_it_is() -> None:
    row = Value({"embedding": [0.5, 1.0]})
    assert row.embedding == [0.5, 1.0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_reading_every_member_changes_nothing(document: dict[str, Any]) -> None:
    def read(value: Any) -> None:
        if isinstance(value, dict):
            assert isinstance(value, Value)
            for each in value.values():
                read(each)
        elif isinstance(value, list):
            for each in value:
                read(each)

    value = Value(copy.deepcopy(document))
    read(value)
    assert value == document
    assert value.to_dict() == document


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_API_02_copies_and_pickles_of_an_answer_are_the_same_answer(protocol: int) -> None:
    reply = answer()
    copies = [copy.copy(reply), copy.deepcopy(reply), reply.copy(), pickle.loads(pickle.dumps(reply, protocol))]
    for found in copies:
        assert (type(found), found, list(found)) == (Answer, reply, list(reply))
        assert found.keyturn == reply.keyturn
        assert found.choices[0].message.content == "Hi"
    value = pickle.loads(pickle.dumps(reply.choices[0], protocol))
    assert (type(value), value) == (Value, reply.choices[0])
