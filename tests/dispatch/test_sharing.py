"""What makes calls identical, and the store of kept answers: bounded in number, in bytes and in time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from keyturn.core import Call
from keyturn.dispatch import Reply, call_headers, read_call
from keyturn.dispatch.kept import BLOCK, OVERHEAD, Kept, KeptAnswers
from keyturn.dispatch.sharing import digest

BODY = {"model": "fast", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0.5}


def call(body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Call:
    return read_call("chat", json.dumps(body or BODY).encode(), headers or {})


def test_CAC_03_the_order_of_members_does_not_matter_and_their_values_do() -> None:
    assert digest(call(), "a") == digest(call(dict(reversed(BODY.items()))), "a")
    others = [
        {**BODY, "temperature": 0.50001},
        {**BODY, "user": "me"},
        {**BODY, "metadata": {}},
        {**BODY, "model": "fas"},
        {**BODY, "stream": True},
        {name: value for name, value in BODY.items() if name != "temperature"},
    ]
    keys = {digest(call(each), "a") for each in [BODY, *others]}
    assert len(keys) == len(others) + 1


@pytest.mark.parametrize(
    "changed",
    [
        {"dialect": "anthropic"},
        {"kind": "completions"},
        {"path": "/x"},
        {"form": "array"},
        {"headers": {"anthropic-beta": "x"}},
        {"headers": {"anthropic-version": "x"}},
    ],
)
def test_CAC_03_what_the_door_says_matters(changed: dict[str, Any]) -> None:
    assert digest(replace(call(), **changed), "a") != digest(call(), "a")


def test_CAC_03_what_does_not_change_the_answer_does_not_matter() -> None:
    same = [
        replace(call(), timeout=3.0),
        replace(call(), cache_control="no-cache"),
        replace(call(), conversation="c"),
        replace(call(), headers={"x-other": "x"}),
    ]
    assert {digest(each, "a") for each in same} == {digest(call(), "a")}


def test_CAC_03_what_a_client_says_of_caches_is_read_at_every_door() -> None:
    said = call_headers({b"cache-control": b"No-Cache, no-store"})
    assert call(headers=said).cache_control == "no-cache, no-store"
    assert call().cache_control == ""
    embedded = read_call("embeddings", b'{"model": "m", "input": "Hi"}', said)
    assert embedded.cache_control == "no-cache, no-store"
    asked = read_call("gemini", b'{"contents": [{"parts": [{"text": "Hi"}]}]}', said, "m:generateContent")
    assert asked.cache_control == "no-cache, no-store"


def test_CAC_03_the_scope_is_part_of_every_key_and_never_missing() -> None:
    assert digest(call(), "caller alice") != digest(call(), "caller bob")
    with pytest.raises(ValueError, match="scope"):
        digest(call(), "")


MEMBERS = st.dictionaries(st.text(max_size=3), st.binary(max_size=3), max_size=4)


@given(MEMBERS, MEMBERS, st.text(min_size=1, max_size=3), st.text(min_size=1, max_size=3))
def test_CAC_03_no_two_calls_have_one_key(
    one: dict[str, bytes], other: dict[str, bytes], scope: str, second: str
) -> None:
    keys = digest(Call("d", "chat", "m", one, 0), scope), digest(Call("d", "chat", "m", other, 0), second)
    assert (keys[0] == keys[1]) == ((one, scope) == (other, second))


def kept(size: int, born: float = 0.0) -> Kept:
    """An answer that takes up *size* bytes."""
    return Kept(Reply(200, [], b"x" * (size - OVERHEAD)), born)


def test_CAC_03_what_was_not_asked_for_longest_goes_first() -> None:
    store = KeptAnswers(60.0, 2, 1 << 20)
    store.put(b"a", kept(2000), 0.0)
    store.put(b"b", kept(2000), 0.0)
    assert store.get(b"a", 1.0) is not None
    store.put(b"c", kept(2000), 1.0)
    assert [store.get(key, 1.0) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    assert (len(store), store.bytes) == (2, 4000)


def test_CAC_03_an_answer_that_has_no_room_does_not_drive_out_others() -> None:
    store = KeptAnswers(60.0, 10, 5000)
    store.put(b"a", kept(2000), 0.0)
    store.put(b"b", kept(5001), 0.0)
    assert (store.get(b"a", 0.0) is not None, store.get(b"b", 0.0)) == (True, None)


def test_CAC_03_the_time_of_an_answer_runs_from_when_it_was_made() -> None:
    store = KeptAnswers(60.0, 10, 1 << 20)
    store.put(b"a", kept(2000, born=0.0), 0.0)
    store.put(b"b", kept(2000, born=30.0), 30.0)
    assert store.get(b"a", 59.9) is not None
    assert store.get(b"a", 60.0) is None
    assert store.get(b"b", 60.0) is not None
    store.put(b"b", kept(3000, born=60.0), 60.0)
    assert store.get(b"b", 119.0) is not None
    assert store.bytes == 3000
    store.expire(120.0)
    assert (len(store), store.bytes) == (0, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(OVERHEAD, 3000), st.integers(0, 30)),
        max_size=40,
    ),
    st.integers(1, 3),
    st.integers(OVERHEAD, 7000),
)
def test_CAC_03_the_store_never_grows_above_its_bounds(
    steps: list[tuple[bytes, int, int]], entries: int, size: int
) -> None:
    store, now, model = KeptAnswers(60.0, entries, size), 0.0, dict[bytes, Kept]()
    for key, bytes_, seconds in steps:
        now += seconds
        made = model[key] = kept(bytes_, now)
        store.put(key, made, now)
        assert len(store) <= entries
        assert store.bytes <= size
        for name, expected in model.items():
            found = store.get(name, now)
            assert found is None or (found is expected and now - expected.born < 60.0)
        assert store.bytes == sum(each.size for each in store._by_use.values())
        assert store._by_age.keys() == store._by_use.keys()


@given(st.lists(st.binary(max_size=BLOCK // 3), max_size=12))
def test_CAC_03_a_kept_stream_has_every_byte_and_divides_no_piece(pieces: list[bytes]) -> None:
    answer = Kept(Reply(200, []), 0.0, pieces)
    assert answer.blocks is not None
    assert b"".join(answer.blocks) == b"".join(pieces)
    ends = {sum(map(len, pieces[: number + 1])) for number in range(len(pieces))}
    assert {sum(map(len, answer.blocks[: number + 1])) for number in range(len(answer.blocks))} <= ends | {0}
    assert answer.size == OVERHEAD + len(b"".join(pieces))


def test_CAC_03_headers_of_one_call_are_not_kept_with_its_answer() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"x-keyturn-call", b"1"),
        (b"request-id", b"1"),
        (b"x-keyturn-provider", b"groq"),
        (b"x-keyturn-attempts", b"2"),
        (b"x-keyturn-cache", b"miss"),
    ]
    assert Kept(Reply(200, headers, b"{}"), 0.0).headers == [headers[0], headers[3]]
