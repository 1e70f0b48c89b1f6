"""Rows 1 to 7 and 26 to 38: connections that fail, and answers that are none."""

from __future__ import annotations

import json
import random
from typing import Any

from keyturn.simulator import Fault

from .stage import BOTH, SHARED, Stage, cut, scenario, whole

TWO = {"groq": 3, "together": 1}
BOM = "\ufeff"


def _chat(**members: Any) -> Fault:
    return Fault(kind="chat", **members)


# --- 1 to 4: nobody is reached


def _unreached(row: int, kind: str, wait: float = 0.0) -> None:
    @scenario(row, TWO, variant=kind, models=BOTH)
    async def nobody_is_reached(stage: Stage) -> str:
        breaking = stage.break_connections(kind, provider="groq", wait=wait)
        for _ in range(6):
            answer = await stage.ask(SHARED)
            assert whole(answer)
            assert answer.headers["x-keyturn-provider"] == "together"
        assert stage.sent(provider="groq") == 0
        assert breaking.broken <= 4, "the provider as a whole is left alone after its third key in a row"
        assert {mark.scope[0] for mark in stage.world.gateway.marks.every()} <= {"key_model", "deployment"}
        breaking.times = 0
        await stage.later(120.0)
        for _ in range(3):
            assert whole(await stage.ask(SHARED))
        assert stage.sent(provider="groq"), "it is used again"
        return "200 from the other provider; no key is marked, the deployment rests; it is used again afterwards"


for _row, _kind, _wait in ((1, "dns", 0.0), (2, "refused", 0.0), (3, "connect_timeout", 5.0), (4, "tls", 0.0)):
    _unreached(_row, _kind, _wait)


@scenario(1, {"groq": 2}, variant="alone")
async def nobody_else_can_answer(stage: Stage) -> str:
    stage.break_connections("dns")
    answer = await stage.ask()
    assert (answer.status, answer.code) == (502, "bad_upstream")
    assert {stage.state("groq-1"), stage.state("groq-2")} <= {"healthy", "cooling"}
    return "502 `bad_upstream` when nobody else can answer; no key is called invalid"


# --- 5 to 7: a connection that is lost


@scenario(5, {"groq": 1})
async def a_reused_connection_is_closed(stage: Stage) -> str:
    stage.break_connections("stale", times=1)
    answer = await stage.ask()
    assert whole(answer)
    lost, again = stage.trails[0].attempts
    assert (lost.meaning, again.meaning, again.resend) == ("server_error", "ok", True)
    assert not stage.world.gateway.marks
    return "200: sent once more at once on the same key, nothing is marked"


@scenario(6, {"groq": 2}, faults=[_chat(does="reset", times=1)])
async def a_reset_before_the_headers(stage: Stage) -> str:
    answer = await stage.ask()
    assert whole(answer)
    assert answer.headers["x-keyturn-attempts"] == "2"
    assert [each.result for each in stage.world.seen()] == ["faulted", "served"]
    assert stage.marks == []
    return "200 after 2 attempts, the second with another key; the first of a row rests nothing"


@scenario(7, {"groq": 2}, faults=[_chat(does="hang", at_byte=0, times=1)])
async def headers_and_then_nothing(stage: Stage) -> str:
    began = stage.now
    answer = await stage.ask()
    assert whole(answer)
    first, second = stage.world.seen()
    assert (first.result, second.result) == ("cancelled", "served")
    assert abs(first.ended - began - (60.0 if stage.stream else 300.0)) < 0.25
    bound = "60 s without a first token" if stage.stream else "300 s without an answer"
    return f"200 after 2 attempts: given up after {bound}, the upstream is closed at that moment"


# --- 26 to 29: answers that are none


@scenario(26, TWO, models=BOTH, faults=[_chat(provider="groq", quirks=frozenset({"redirect"}))])
async def a_redirect(stage: Stage) -> str:
    answer = await stage.ask(SHARED)
    assert whole(answer)
    assert answer.headers["x-keyturn-provider"] == "together"
    assert [each.status for each in stage.world.seen(provider="groq")] == [302]
    return "200 from the other provider; the redirect is not followed and no other key is sent after it"


@scenario(27, {"groq": 2}, faults=[_chat(error="rate_limited", status=200, wait=46, times=1)])
async def an_error_in_a_200(stage: Stage) -> str:
    answer = await stage.ask()
    assert whole(answer)
    assert 46.0 - 1e-6 <= stage.left(stage.mark("group_model")) <= 47.0
    return "200 after 2 attempts; classified as the 429 that it is: that key rests for the 46 s that it asks for"


@scenario(28, {"groq": 2}, variant="html", faults=[_chat(quirks=frozenset({"html"}), times=1)])
@scenario(28, {"groq": 2}, variant="guard", faults=[_chat(quirks=frozenset({"block_page"}), times=1)])
async def a_web_page(stage: Stage) -> str:
    answer = await stage.ask()
    assert whole(answer)
    assert stage.sent() == 2
    assert b"<html" not in answer.body.lower()
    return "200 after 2 attempts; nothing of the page is passed on"


@scenario(
    29, {"groq": 2}, modes=("plain",), variant="json", faults=[_chat(quirks=frozenset({"truncated_json"}), times=1)]
)
@scenario(29, {"groq": 2}, modes=("plain",), variant="cut", faults=[_chat(does="reset", at_byte=60, times=1)])
@scenario(29, {"groq": 2}, modes=("plain",), variant="end", faults=[_chat(does="end", at_byte=60, times=1)])
async def half_an_answer(stage: Stage) -> str:
    answer = await stage.ask()
    assert whole(answer)
    assert stage.sent() == 2
    return "200 after 2 attempts"


# --- 30 to 34: streams


@scenario(
    30, {"groq": 2}, modes=("stream",), variant="limit", faults=[_chat(error="rate_limited", at_chunk=0, times=1)]
)
@scenario(
    30, {"groq": 2}, modes=("stream",), variant="fault", faults=[_chat(error="server_error", at_chunk=1, times=1)]
)
async def an_error_event_comes_first(stage: Stage) -> str:
    answer = await stage.ask()
    assert whole(answer)
    assert answer.text.count("This is") == 1
    assert answer.headers["x-keyturn-attempts"] == "2"
    return "200 after 2 attempts, invisible in the stream"


_DRAW = random.Random(31)
for _number, _byte in enumerate(sorted(_DRAW.sample(range(40, 1100), 6))):

    @scenario(
        31,
        {"groq": 2},
        modes=("stream",),
        variant=f"byte-{_byte}",
        environ={"LIMITS_GROQ": "tpm=100000"},
        faults=[_chat(does=("reset", "end")[_number % 2], at_byte=_byte, times=1)],
    )
    async def a_cut_anywhere(stage: Stage) -> str:
        answer = await stage.ask()
        assert whole(answer) or cut(answer)
        assert answer.body.endswith(b"\n\n")
        assert _charged(stage) > 0
        return "whole after an invisible failover, or ended by one error event; tokens are settled"


for _inside in ("event", "character"):

    @scenario(
        31,
        {"groq": 2},
        modes=("stream",),
        variant=f"inside-{_inside}",
        environ={"LIMITS_GROQ": "tpm=100000"},
        faults=[_chat(does="reset", at_chunk=4, inside=_inside)],
    )
    async def a_cut_inside(stage: Stage) -> str:
        answer = await stage.ask()
        assert cut(answer)
        answer.body.decode()
        assert _charged(stage) > 0
        return "whole after an invisible failover, or ended by one error event; tokens are settled"


@scenario(32, {"groq": 2}, modes=("stream",), faults=[_chat(does="end", at_chunk=3)])
async def a_clean_end_without_the_last_event(stage: Stage) -> str:
    answer = await stage.ask()
    assert cut(answer)
    assert stage.sent() == 1
    return "ended by one error event, never by an invented `[DONE]`"


@scenario(33, {"groq": 1}, modes=("stream",), faults=[_chat(quirks=frozenset({"no_done"}))])
async def a_finish_without_done(stage: Stage) -> str:
    answer = await stage.ask()
    assert answer.text.endswith("You said: Hello")
    assert all("error" not in json.loads(event) for event in answer.events)
    assert stage.trails[0].code == ""
    return "accepted as it is: whole, nothing is added"


@scenario(34, {"groq": 1}, modes=("stream",), environ={"TIMEOUT_TOTAL": "7200"}, faults=[_chat(pace=59.0)])
async def a_chunk_every_59_seconds(stage: Stage) -> str:
    assert whole(await stage.ask())
    return "a chunk every 59 s: whole"


@scenario(34, {"groq": 2}, modes=("stream",), faults=[_chat(quirks=frozenset({"pings_only"}), times=1)])
async def pings_from_the_beginning(stage: Stage) -> str:
    began = stage.now
    assert whole(await stage.ask())
    assert 59.0 < stage.now - began < 62.0
    return "pings alone: given up at the first token timeout (60 s), whole from another key"


@scenario(34, {"groq": 2}, modes=("stream",), faults=[_chat(does="ping", at_chunk=3)])
async def pings_after_content(stage: Stage) -> str:
    began = stage.now
    assert cut(await stage.ask())
    assert 299.0 < stage.now - began < 302.0
    return "pings after content: ended by an error event once no content came for 300 s"


# --- 35 and 36: odd but honest bytes, and what they say was used


@scenario(35, {"groq": 1}, variant="bytewise", faults=[_chat(quirks=frozenset({"bytewise"}))])
@scenario(35, {"groq": 1}, variant="crlf", modes=("stream",), faults=[_chat(quirks=frozenset({"crlf"}))])
@scenario(35, {"groq": 1}, variant="pings", modes=("stream",), faults=[_chat(quirks=frozenset({"pings"}))])
@scenario(35, {"groq": 1}, variant="blank", modes=("plain",), faults=[_chat(quirks=frozenset({"blank_lines"}))])
async def odd_bytes(stage: Stage) -> str:
    assert whole(await stage.ask())
    return "whole"


def _events(*texts: str) -> str:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@scenario(35, {"groq": 1}, variant="bom", modes=("stream",), faults=[_chat(body=BOM + _events("You said: Hello"))])
@scenario(
    35, {"groq": 1}, variant="empty", modes=("stream",), faults=[_chat(body="data:\n\n" + _events("You said: Hello"))]
)
async def odd_beginnings(stage: Stage) -> str:
    answer = await stage.ask()
    assert answer.status == 200
    assert "You said: Hello" in answer.body.decode()
    assert "data: [DONE]" in answer.body.decode()
    return "whole"


@scenario(35, {"groq": 2}, faults=[_chat(quirks=frozenset({"huge"}), times=1)])
async def one_event_of_ten_megabytes(stage: Stage) -> str:
    answer = await stage.ask()
    if stage.stream:
        assert whole(answer)
        assert stage.sent() == 2
        return "above the bound of one event: whole from another key"
    assert len(answer.text) == 10_000_000
    return "within the bound of a plain answer: whole"


def _answer(usage: object) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": "You said: Hello"}, "finish_reason": "stop"}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})


def _stream(*usages: object) -> str:
    chunk = {"choices": [{"index": 0, "delta": {"content": "You said: Hello"}, "finish_reason": None}]}
    ends = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage} for usage in usages]
    return "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk, *ends)) + "data: [DONE]\n\n"


_NEGATIVE = {"prompt_tokens": -5, "completion_tokens": -1, "total_tokens": -6}
_HUGE = {"prompt_tokens": 10**30, "completion_tokens": 10**30}
_ONE, _TWO = {"prompt_tokens": 7, "completion_tokens": 2}, {"prompt_tokens": 7, "completion_tokens": 5}
LIMITED = {"LIMITS_GROQ": "tpm=100000"}


@scenario(36, {"groq": 1}, variant="missing", environ=LIMITED, faults=[_chat(quirks=frozenset({"no_usage"}))])
@scenario(
    36, {"groq": 1}, variant="negative", modes=("plain",), environ=LIMITED, faults=[_chat(body=_answer(_NEGATIVE))]
)
@scenario(
    36, {"groq": 1}, variant="negative", modes=("stream",), environ=LIMITED, faults=[_chat(body=_stream(_NEGATIVE))]
)
async def usage_that_tells_nothing(stage: Stage) -> str:
    assert (await stage.ask()).status == 200
    (attempt,) = stage.trails[0].attempts
    assert attempt.usage is None or not attempt.usage.exact
    assert 0 < _charged(stage) < 1000
    return "missing or negative: what was reserved stays charged"


@scenario(36, {"groq": 1}, variant="huge", modes=("plain",), environ=LIMITED, faults=[_chat(body=_answer(_HUGE))])
@scenario(36, {"groq": 1}, variant="huge", modes=("stream",), environ=LIMITED, faults=[_chat(body=_stream(_HUGE))])
async def usage_that_is_huge(stage: Stage) -> str:
    assert (await stage.ask()).status == 200
    (attempt,) = stage.trails[0].attempts
    assert attempt.usage is not None
    assert attempt.usage.input <= 10**9
    await stage.later(70.0)
    assert (await stage.ask()).status == 200
    return "huge: held at 10⁹ tokens, and over with the window"


@scenario(
    36, {"groq": 1}, variant="twice", modes=("stream",), environ=LIMITED, faults=[_chat(body=_stream(_ONE, _TWO))]
)
async def usage_that_comes_twice(stage: Stage) -> str:
    assert (await stage.ask()).status == 200
    assert _charged(stage) == 12
    return "twice: the last counts, once"


def _charged(stage: Stage) -> int:
    """The tokens that the keys of groq are charged with."""
    rows: Any = [row["limits"] for row in stage.world.gateway.keys() if row["provider"] == "groq"]
    return sum(int(limit["used"]) for limits in rows for limit in limits if limit["metric"] == "tokens")


# --- 37 and 38: answers that are too much


@scenario(37, {"groq": 2}, faults=[_chat(quirks=frozenset({"gzip"}), times=1)])
async def a_compressed_answer_within_its_bounds(stage: Stage) -> str:
    assert whole(await stage.ask())
    return "what is compressed although it was not asked for is read within its bounds"


@scenario(38, TWO, models=BOTH)
async def headers_that_are_too_much(stage: Stage) -> str:
    stage.break_connections("protocol", provider="groq")
    answer = await stage.ask(SHARED)
    assert whole(answer)
    assert answer.headers["x-keyturn-provider"] == "together"
    return "200 from the other provider"
