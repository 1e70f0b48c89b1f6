"""Gemini answers, whole and streamed: read from upstreams, relayed, written for clients; errors and embeddings."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

import msgspec
import pytest
from google.genai.errors import ClientError, ServerError
from google.genai.types import GenerateContentResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import (
    Answer,
    Call,
    Choice,
    Citation,
    Cited,
    Delta,
    Origin,
    Ping,
    Reasoning,
    ReasoningDelta,
    Reply,
    Signature,
    Signed,
    Started,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolDelta,
    ToolEnded,
    ToolStarted,
    ToolUse,
    Usage,
    Used,
)
from keyturn.errors import BadRequest, Capacity, Untranslatable, UpstreamInterrupted
from keyturn.wire.dialect import Context, StreamReader
from keyturn.wire.gemini import GEMINI, GeminiWatch, count_body, models_page, parse_embed, parse_generate
from keyturn.wire.gemini_embed import (
    gemini_answer_to_openai,
    gemini_to_openai,
    openai_answer_to_gemini,
    openai_to_gemini,
    render_embed,
)
from keyturn.wire.gemini_shapes import Places, encoded, write_citations
from keyturn.wire.openai_chat import parse_embeddings

from .golden_files import golden

ORIGIN = Origin("gemini", "gemini-t", "g1")
SIGNATURE = Signature("AAEC", "gemini", ORIGIN)
STREAMS = ("thinking", "calls", "blocked", "failing")


def context(*, array: bool = False, thoughts: bool = True) -> Context:
    body = {
        "contents": [{"parts": [{"text": "Hi"}]}],
        "generationConfig": {"thinkingConfig": {"include_thoughts": thoughts}},
    }
    call = parse_generate(json.dumps(body).encode(), {}, "gemini-t", stream=True, array=array)
    return Context(call, "k1", 1, "gemini-t")


def reader() -> StreamReader:
    assert GEMINI.reader is not None
    return GEMINI.reader(ORIGIN)


def read_answer(body: bytes) -> Answer | bytes | None:
    assert GEMINI.read_answer is not None
    return GEMINI.read_answer(body, ORIGIN)


def read_reply(body: bytes, kind: Any = "chat") -> Reply | bytes | None:
    assert GEMINI.read_reply is not None
    return GEMINI.read_reply(body, kind)


def deltas(stream: bytes, size: int = 1 << 20) -> tuple[list[Delta], StreamReader]:
    reading = reader()
    found = [delta for at in range(0, len(stream), size) for delta in reading.feed(stream[at : at + size])]
    return found + reading.end(), reading


def answered(parts: list[Any], finish: str | None = "STOP", **more: Any) -> bytes:
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": finish, "index": 0}
    return json.dumps({"candidates": [candidate], "modelVersion": "gemini-t", "responseId": "r1", **more}).encode()


def test_a_stream_that_thinks() -> None:
    found, reading = deltas(golden("gemini/thinking.sse"))
    assert [delta for delta in found if not isinstance(delta, Used)] == [
        Started("r1", "gemini-t"),
        ReasoningDelta("Hm, "),
        ReasoningDelta("so."),
        TextDelta("Grüße 🌦"),
        Signed(SIGNATURE),
        Stopped("stop"),
    ]
    assert [delta for delta in found if isinstance(delta, Used)][-1] == Used(Usage(5, 7, reasoning=4))
    assert (reading.finished, reading.done, reading.error) == (True, False, None)


def test_a_stream_that_calls_tools() -> None:
    found, _ = deltas(golden("gemini/calls.sse"))
    assert [delta for delta in found if not isinstance(delta, (Used, Started))] == [
        ToolStarted(0, "", "rain", signature=SIGNATURE),
        ToolDelta(0, '{"city":"Oslo"}'),
        ToolEnded(0),
        ToolStarted(1, "x9", "rain"),
        ToolDelta(1, '{"city":"Rome"}'),
        ToolEnded(1),
        Stopped("tool_calls"),
    ]


def test_blocked_and_failing_streams() -> None:
    found, reading = deltas(golden("gemini/blocked.sse"))
    assert (Stopped("content_filter") in found, reading.finished) == (True, True)
    found, reading = deltas(golden("gemini/failing.sse"))
    assert (reading.finished, reading.error is not None and b"overloaded" in reading.error) == (False, True)


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_do_not_matter(name: str) -> None:
    stream = golden(f"gemini/{name}.sse")
    whole = deltas(stream)[0]
    assert deltas(stream, 1)[0] == whole
    assert deltas(stream.replace(b"\r\n", b"\n"), 7)[0] == whole


def test_a_stream_as_an_array() -> None:
    chunks = [line[6:] for line in golden("gemini/thinking.sse").splitlines() if line]
    array = b"[" + b"\n,\r\n".join(chunks) + b"\n]\n"
    assert deltas(array, 5)[0] == deltas(golden("gemini/thinking.sse"))[0]
    assert deltas(b'[{"error":{"code":429}}]')[1].error is not None


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("name", ["thinking", "calls"])
def test_written_streams_are_read_alike(name: str, array: bool) -> None:
    given, _ = deltas(golden(f"gemini/{name}.sse"))
    writer = GEMINI.writer(context(array=array))
    stream = b"".join(writer.write([delta]) for delta in given) + writer.end()
    if array:
        chunks = json.loads(stream)
    else:
        assert stream.endswith(b"\r\n\r\n")
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in stream.split(b"\r\n\r\n") if event]
    for chunk in chunks:
        GenerateContentResponse.model_validate(chunk)
        assert chunk["responseId"] == "k1"
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert chunks[-1]["usageMetadata"]["totalTokenCount"] > 0
    found = [delta for delta in deltas(stream)[0] if isinstance(delta, (TextDelta, ReasoningDelta, ToolDelta, Stopped))]
    assert found == [delta for delta in given if isinstance(delta, (TextDelta, ReasoningDelta, ToolDelta, Stopped))]


def test_calls_without_end_or_id_are_written_whole_when_it_stops() -> None:
    writer = GEMINI.writer(context())
    events: list[Delta] = [ToolStarted(0, "", "f"), ToolDelta(0, '{"a"'), ToolStarted(1, "b", "g"), ToolDelta(0, ":1}")]
    assert writer.write(events) == b""
    stream = writer.write([Stopped("tool_calls")]) + writer.end()
    calls = [
        part["functionCall"]
        for part in json.loads(stream.split(b"\r\n\r\n")[0][6:])["candidates"][0]["content"]["parts"]
    ]
    assert calls == [{"id": "call_k1_0", "name": "f", "args": {"a": 1}}, {"id": "b", "name": "g", "args": {}}]


def test_thinking_is_shown_to_those_who_ask() -> None:
    other = Signature("zz", "anthropic", ORIGIN)
    hidden, shown = (GEMINI.writer(context(thoughts=thoughts)) for thoughts in (False, True))
    events: list[Delta] = [ReasoningDelta("Hm"), Signed(other), TextDelta("Hi")]
    assert b"thought" not in hidden.write(events)
    parts = json.loads(shown.write(events)[6:])["candidates"][0]["content"]["parts"]
    assert [part.get("thought") for part in parts] == [True, True, None]
    assert shown.write([Ping()]) == b"\r\n"
    history = {"contents": [{"parts": [{"text": "Hi"}]}, {"role": "model", "parts": parts}]}
    call = parse_generate(json.dumps(history).encode(), {}, "m", stream=False, array=False)
    assert GEMINI.read_request(call).messages[1].parts == (Reasoning("Hm", other), Text("Hi"))


@pytest.mark.parametrize("name", STREAMS)
def test_relayed_as_it_comes(name: str) -> None:
    assert GEMINI.watch is not None
    stream = golden(f"gemini/{name}.sse")
    watch = GEMINI.watch(context().call)
    relayed = b"".join(watch.feed(stream[at : at + 1]) for at in range(len(stream)))
    whole = watch.end()
    assert stream.startswith(relayed)
    assert (whole, relayed == stream, watch.error is None) == (
        (True, True, True) if name != "failing" else (False, False, False)
    )
    assert watch.started
    if name == "thinking":
        assert (watch.usage, watch.signatures) == (Usage(5, 7, reasoning=4), ["AAEC"])


def test_relayed_as_an_array() -> None:
    watch = GeminiWatch(array=True)
    stream = golden("gemini/thinking.sse").rstrip()
    relayed = b"".join(watch.feed(stream[at : at + 9]) for at in range(0, len(stream), 9))
    assert watch.end()
    chunks = json.loads(relayed + watch.tail)
    assert [len(chunks), watch.usage] == [4, Usage(5, 7, reasoning=4)]


def test_each_candidate_has_to_finish() -> None:
    watch = GeminiWatch(choices=2)
    for index in (1, 0):
        assert not watch.finished
        watch.feed(b'data: {"candidates":[{"finishReason":"STOP","index":%d}]}\r\n\r\n' % index)
    assert watch.finished


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SPII", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "other"),
        (None, None),
    ],
)
def test_why_it_stopped(finish: str | None, stop: StopReason | None) -> None:
    body = answered([{"text": "Hi"}], finish)
    assert read_answer(body) == Answer((Choice((Text("Hi"),), stop),), "r1", "gemini-t")
    assert read_reply(body) == Reply("Hi", stop, None, "gemini-t")


def test_whole_answers() -> None:
    parts = [
        {"text": "hm", "thought": True},
        {"text": "Hi"},
        {"functionCall": {"name": "f", "args": None}, "thoughtSignature": "AAEC"},
    ]
    used = {"promptTokenCount": 5.0, "toolUsePromptTokenCount": 1, "candidatesTokenCount": 2, "thoughtsTokenCount": 3}
    body = answered(parts, usageMetadata={**used, "cachedContentTokenCount": 4})
    answer = read_answer(body)
    usage = Usage(6, 5, cached=4, reasoning=3)
    expected = (Reasoning("hm"), Text("Hi"), ToolUse("", "f", "{}", signature=SIGNATURE))
    assert answer == Answer((Choice(expected, "tool_calls"),), "r1", "gemini-t", usage=usage)
    assert read_reply(body) == Reply("Hi", "tool_calls", usage, "gemini-t", 1, signatures=("AAEC",))
    assert isinstance(answer, Answer)
    text = GEMINI.write_answer(answer, context())
    assert b"null" not in text
    again = read_answer(text)
    assert isinstance(again, Answer)
    assert again.usage == usage
    assert again.choices[0].parts[2].id == "call_k1_0"  # type: ignore[union-attr]
    GenerateContentResponse.model_validate(json.loads(text))


def test_blocked_errors_and_garbage() -> None:
    blocked = b'{"promptFeedback":{"blockReason":"SAFETY"},"modelVersion":"m"}'
    assert read_answer(blocked) == Answer((Choice((), "content_filter"),), model="m")
    for error in (b'{"error":{"code":400}}', b'[{"error":{"code":400}}]'):
        assert read_answer(error) == read_reply(error) == read_reply(error, "embeddings") == error
    assert read_answer(b"<html>") is None
    assert read_answer(b"{}") is None
    assert read_reply(b'{"candidates":[]}') == Reply(empty=True)
    assert read_reply(b'{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":3}}', "embeddings") == Reply(
        usage=Usage(3)
    )


def test_logprobs_and_citations_there_and_back() -> None:
    candidates = [{"token": "Hi", "logProbability": -0.5}]
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://example.org", "title": "E"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 0, "endIndex": 3, "text": "Ü!"}, "groundingChunkIndices": [0]}
        ],
    }
    given = json.loads(answered([{"text": "Ü!"}]))
    given["candidates"][0] |= {
        "logprobsResult": {"chosenCandidates": candidates, "topCandidates": [{"candidates": candidates}]},
        "groundingMetadata": grounding,
    }
    answer = read_answer(json.dumps(given).encode())
    assert isinstance(answer, Answer)
    (choice,) = answer.choices
    assert choice.parts == (Text("Ü!", citations=(Citation("https://example.org", "E", "Ü!", 0, 2),)),)
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    assert json.loads(choice.logprobs) == {"content": [{**token, "top_logprobs": [token]}]}
    back = json.loads(GEMINI.write_answer(answer, context()))["candidates"][0]
    assert back["groundingMetadata"] == grounding
    assert back["logprobsResult"] == given["candidates"][0]["logprobsResult"]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 5))
def test_no_bytes_of_an_upstream_raise(noise: bytes, size: int) -> None:
    good = golden("gemini/calls.sse")
    middle = len(good) // 2
    for stream in (noise, good[:middle] + noise + good[middle:], b"data: " + noise + b"\n\n"):
        deltas(stream, size * 20)
        watch = GeminiWatch(array=size > 2)
        watch.feed(stream)
        watch.end()
    for kind in ("chat", "embeddings", "count"):
        read_reply(noise, kind)
    read_answer(noise)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
FIELDS = st.sampled_from(
    """candidates content parts text functionCall args name error usageMetadata index logprobsResult
chosenCandidates topCandidates groundingMetadata groundingChunks groundingSupports segment promptTokenCount""".split()
)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4), max_leaves=20
    )
)
def test_no_json_of_an_upstream_raises(value: Any) -> None:
    for body in (
        value,
        {"candidates": [{"content": {"parts": [value]}}]},
        {"candidates": [value], "usageMetadata": value},
    ):
        text = json.dumps(body).encode()
        if isinstance(answer := read_answer(text), Answer):
            GEMINI.write_answer(answer, context())
        read_reply(text)
        found, _ = deltas(b"data: " + text + b"\n\n")
        GEMINI.writer(context()).write(found)


# --- errors, lists, embeddings --------------------------------------------------------------------------------------


def test_errors_as_the_official_sdk_reads_them() -> None:
    body = json.loads(GEMINI.error_body(Capacity("all keys rest", retry_after=1.5), "c1", [{"provider": "p"}]))
    error = ClientError(429, body)
    assert (error.status, error.message) == ("RESOURCE_EXHAUSTED", "all keys rest")
    details = body["error"]["details"]
    assert (details[0]["reason"], details[0]["metadata"]["call"]) == ("CAPACITY", "c1")
    assert details[1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}
    body = json.loads(GEMINI.error_body(BadRequest("no", param="contents[0]"), "c1", []))
    assert body["error"]["details"][1]["fieldViolations"][0]["field"] == "contents[0]"
    event = GEMINI.error_event(UpstreamInterrupted("cut"), "c1", [])
    assert event.startswith(b'data: {"error":')
    assert ServerError(502, json.loads(event[6:])).status == "UNAVAILABLE"
    assert deltas(event)[1].error is not None


def test_lists_of_models_and_counts() -> None:
    page = json.loads(models_page([("groq/x", "groq", 1)]))
    assert page["models"][0]["name"] == "models/groq/x"
    assert json.loads(count_body(7)) == {"totalTokens": 7}


def openai_call(**body: Any) -> Call:
    return parse_embeddings(json.dumps({"model": "e", **body}).encode(), {})


def test_embeddings_of_openai_clients() -> None:
    notes: list[str] = []
    call = openai_call(input=["a", "b"], dimensions=3, encoding_format="base64", user="u")
    method, body = openai_to_gemini(call, "g", notes)
    assert (method, notes) == ("batchEmbedContents", ["dropped user: Gemini has no counterpart"])
    request = {"model": "models/g", "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 3}
    assert json.loads(body)["requests"][1] == request
    with pytest.raises(Untranslatable):
        openai_to_gemini(openai_call(input=[1, 2]), "g", [])
    answer = json.loads(gemini_answer_to_openai(b'{"embeddings":[{"values":[0.5,1]},{"values":[1e300]}]}', call, "g"))
    assert answer["data"][0]["embedding"] == b64encode(struct.pack("<2f", 0.5, 1)).decode()
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    answer = json.loads(gemini_answer_to_openai(b'{"embedding":{"values":[0.5]}}', openai_call(input="a"), "g"))
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    assert json.loads(gemini_answer_to_openai(b"?", call, "g"))["data"] == []


def test_embeddings_of_gemini_clients() -> None:
    content = {"parts": [{"text": "a"}]}
    requests = [{"model": "models/x", "content": content, "output_dimensionality": 3, "taskType": "T"}] * 2
    batch = parse_embed(json.dumps({"requests": requests}).encode(), {}, "x", batch=True)
    single = parse_embed(json.dumps({"content": content}).encode(), {}, "x", batch=False)
    notes: list[str] = []
    body = json.loads(gemini_to_openai(batch, "e", notes))
    assert body == {"model": "e", "input": ["a", "a"], "encoding_format": "float", "dimensions": 3}
    assert notes == ["dropped taskType: OpenAI has no counterpart"]
    assert json.loads(render_embed(batch, "y"))["requests"][0]["model"] == "models/y"
    item = {"object": "embedding", "index": 1, "embedding": [1.0]}
    packed = {"index": 0, "embedding": b64encode(struct.pack("<f", 0.5)).decode()}
    answer = json.dumps({"data": [item, packed], "usage": {"prompt_tokens": 4, "total_tokens": 4}}).encode()
    assert json.loads(openai_answer_to_gemini(answer, batch)) == {
        "embeddings": [{"values": [0.5]}, {"values": [1.0]}],
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4},
    }
    assert json.loads(openai_answer_to_gemini(answer, single))["embedding"] == {"values": [0.5]}


# --- half surrogate pairs, and what is told again and again --------------------------------------------------------

HALF = "x\ud83d"
HALVES: list[dict[str, Any]] = [
    {"text": HALF},
    {"codeExecutionResult": {"output": HALF}},
    {"functionCall": {"name": HALF, "args": {"a": HALF}}},
    {"inlineData": {"mimeType": "image/png", "data": HALF}},
]


@pytest.mark.parametrize("part", HALVES)
def test_half_a_surrogate_pair_is_replaced(part: dict[str, Any]) -> None:
    logprobs = {"chosenCandidates": [{"token": HALF, "logProbability": -1}]}
    candidate = {"content": {"parts": [part]}, "finishReason": "STOP", "logprobsResult": logprobs}
    body = json.dumps({"candidates": [candidate]}).encode()
    answer = read_answer(body)
    assert isinstance(answer, Answer)
    GEMINI.write_answer(answer, context()).decode()
    for stream in (b"data: " + body + b"\n\n", b"[" + body + b"]"):
        said, reading = deltas(stream)
        assert (reading.finished, reading.error) == (True, None)
        writer = GEMINI.writer(context())
        assert HALF.encode("utf-8", "replace") in (writer.write(said) + writer.end())


def test_any_value_is_written_as_json() -> None:
    deep: Any = HALF
    for _ in range(3000):
        deep = [deep]
    assert encoded(deep) == b"null"
    assert encoded({HALF: [float("nan"), 10**30]}) == b'{"x?":[null,1000000000000000000000000000000]}'
    assert encoded([HALF, msgspec.Raw(b'{"a":1}')]) == b'["x?",{"a":1}]'


def test_grounding_that_every_chunk_repeats_is_told_once() -> None:
    def grounded(count: int) -> dict[str, Any]:
        return {
            "groundingChunks": [{"web": {"uri": f"https://e.example/{at}"}} for at in range(count)],
            "groundingSupports": [
                {"segment": {"startIndex": 0, "endIndex": 3 * count}, "groundingChunkIndices": [*range(count)]}
            ],
        }

    events = []
    for at in range(1, 4):
        candidate: dict[str, Any] = {"content": {"parts": [{"text": "Ü!"}]}, "groundingMetadata": grounded(at)}
        events.append(b"data: " + json.dumps({"candidates": [candidate]}).encode() + b"\n\n")
    events.append(b'data: {"candidates":[{"finishReason":"STOP","groundingMetadata":{"webSearchQueries":["a"]}}]}\n\n')
    said, _ = deltas(b"".join(events))
    cited = [delta for delta in said if isinstance(delta, Cited)]
    assert cited == [Cited(Citation(f"https://e.example/{at}", "", "", 0, 6)) for at in range(3)]
    assert said[-2:] == [cited[-1], Stopped("stop")]
    writer = GEMINI.writer(context())
    writer.write([*said, *cited])
    (event,) = writer.end().split(b"\r\n\r\n")[:-1]
    (candidate,) = json.loads(event.removeprefix(b"data: "))["candidates"]
    told = candidate["groundingMetadata"]
    assert len(told["groundingChunks"]) == len(told["groundingSupports"]) == 3
    assert told["groundingSupports"][0]["segment"] == {"startIndex": 0, "endIndex": 9, "text": "Ü!Ü!Ü!"}


def test_sources_of_a_text_come_before_a_call() -> None:
    grounding = {"groundingChunks": [{"web": {"uri": "https://e.example"}}]}
    parts = [{"text": "a"}, {"functionCall": {"name": "f"}}]
    first = json.dumps({"candidates": [{"content": {"parts": parts[:1]}, "groundingMetadata": grounding}]}).encode()
    said, _ = deltas(b"data: " + first + b"\n\ndata: " + answered(parts[1:]) + b"\n\n")
    kinds = [type(delta) for delta in said]
    assert kinds.index(Cited) < kinds.index(ToolStarted)


def test_sources_are_quoted_so_far_only() -> None:
    text = "a" * 1000
    told = write_citations(
        [Citation("https://e.example", start=0, end=1000, title=f"{at}") for at in range(1500)], text
    )
    quoted = [each["segment"].get("text", "") for each in told["groundingSupports"]]
    assert sum(map(len, quoted)) == 1_000_000


@given(st.text(alphabet="aé€😀\ud800", max_size=3000), st.integers(0, 12_000))
@settings(max_examples=50)
def test_places_in_a_text(text: str, at: int) -> None:
    place, raw = Places(text), text.encode("utf-8", "replace")
    sound = raw.decode()
    assert place.of_byte(at) == len(raw[:at].decode("utf-8", "ignore"))
    assert place.of_character(at) == len(sound[:at].encode())
    assert place.of_byte(-1) is place.of_byte(None) is place.of_byte(1.5) is None
