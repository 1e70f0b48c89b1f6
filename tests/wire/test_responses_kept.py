"""What is read of a kept answer, what a next turn is made of, and how its items are listed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyturn.wire import AnswerWatch, going_on, is_id, items_of, parse_responses, read_kept, told_items, told_response

OUTPUT = [{"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Ä"}]}]


def response(**members: Any) -> bytes:
    return json.dumps(
        {"id": "resp_1", "object": "response", "status": "completed", "output": OUTPUT} | members
    ).encode()


def test_an_input_that_is_text_is_one_message() -> None:
    assert json.loads(items_of(b'"Hi \\u00e4"')) == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi ä"}]}
    ]
    assert items_of(b'[{"a": 1}]') == b'[{"a": 1}]'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"no json",
        response(status="in_progress"),
        response(status="failed"),
        response(id=None),
        response(id=""),
        response(id="x" * 201),
        response(id="resp\n1"),
        response(output=None),
        response(output="text"),
        b'{"id": "resp_1", "status": "completed"}',
    ],
)
def test_what_is_no_whole_answer_is_not_kept(text: bytes) -> None:
    assert read_kept(text) is None


def test_a_whole_answer_is_kept_with_its_items_as_they_were_written() -> None:
    written = b'[ {"type":"reasoning", "encrypted_content":"gAAA\\u0041"} ]'
    text = b'{"id":"resp_1","status":"incomplete","output":' + written + b',"model":"m"}'
    kept = read_kept(text)
    assert kept is not None
    assert (kept.id, kept.output) == ("resp_1", written)


def test_a_next_turn_holds_all_earlier_ones_and_is_measured_with_them() -> None:
    body = json.dumps({"model": "m", "input": "And then?", "previous_response_id": "resp_1"}).encode()
    call = parse_responses(body, {})
    turns = [b'[{"role":"user","content":"Hi"}]', b" [ ] ", json.dumps(OUTPUT).encode()]
    longer = going_on(call, turns)
    given = json.loads(longer.members["input"])
    assert given[0] == {"role": "user", "content": "Hi"}
    assert given[1] == OUTPUT[0]
    assert given[2]["content"] == [{"type": "input_text", "text": "And then?"}]
    assert len(given) == 3
    assert longer.text_bytes > call.text_bytes
    assert longer.size == call.size + len(longer.members["input"]) - len(call.members["input"])
    assert (longer.previous, longer.model) == ("resp_1", "m")


def test_earlier_turns_count_for_what_the_model_must_be_able_to_do() -> None:
    call = parse_responses(json.dumps({"model": "m", "input": "And then?"}).encode(), {})
    image = b'[{"role":"user","content":[{"type":"input_image","image_url":"https://a.example/b.png"}]}]'
    assert "vision" not in call.needs
    assert "vision" in going_on(call, [image]).needs


def test_a_response_is_given_out_with_what_was_kept_of_it() -> None:
    told = json.loads(told_response(response(store=False, previous_response_id=None), "resp_0"))
    assert (told["store"], told["previous_response_id"], told["output"]) == (True, "resp_0", OUTPUT)
    assert json.loads(told_response(response(), ""))["previous_response_id"] is None


def test_items_are_paged_in_both_directions() -> None:
    given = json.dumps([{"type": "message", "id": "msg_a"}, *({"type": "message", "n": n} for n in range(4))]).encode()
    seen: list[str] = []
    after = ""
    for pages in range(1, 10):  # noqa: B007
        page = json.loads(told_items(given, "resp_7", newest_first=False, after=after, most=2))
        seen += [row["id"] for row in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == ["msg_a", "item_7_1", "item_7_2", "item_7_3", "item_7_4"]
    assert pages == 3
    newest = json.loads(told_items(given, "resp_7", newest_first=True, after="", most=100))
    assert [row["id"] for row in newest["data"]] == seen[::-1]
    nothing = json.loads(told_items(given, "resp_7", newest_first=True, after="unknown", most=100))
    assert (nothing["data"], nothing["first_id"], nothing["has_more"]) == ([], None, False)


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
@pytest.mark.parametrize("ends", [b"\n\n", b"\r\n\r\n"])
def test_the_whole_answer_is_found_in_the_last_event_however_it_is_cut(size: int, ends: bytes) -> None:
    whole = response(text="response.completed")
    events = [
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}',
        b'data: {"type":"response.output_text.delta","delta":"response.completed"}',
        b": ping",
        b'data: {"response":' + whole + b', "type":"response.completed"}',
    ]
    stream = b"".join(event.replace(b"\n", ends[: len(ends) // 2]) + ends for event in events) + b"data: [DONE]" + ends
    watch = AnswerWatch()
    found = [watch.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert [each for each in found if each is not None] == [whole]


def test_a_stream_that_fails_has_no_whole_answer() -> None:
    watch = AnswerWatch()
    assert watch.feed(b'data: {"type":"response.failed","response":{"id":"r"}}\n\n') is None
    assert watch.feed(b"data: response.completed but no json\n\n") is None


def test_ids_are_short_and_printable() -> None:
    assert is_id("resp_1")
    assert not is_id("")
    assert not is_id("ä")
    assert not is_id("a\0")
