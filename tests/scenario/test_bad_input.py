"""Bad input, from clients and from upstreams: each gets a clear error, and the server goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keyturn.simulator import Fault
from tests.security.live import BAD, CALLER_KEY, GOOD, KEY, Answer, Live, live
from tests.support import virtual
from tests.support.raw_upstream import RawUpstream, Script, answer, listens, says, streamed
from tests.support.world import World

CHAT = "/v1/chat/completions"
MESSAGES = b'"messages": [{"role": "user", "content": "Hello"}]'
MODEL = f'"model": "{GOOD}"'.encode()
MIB = 1024 * 1024

Story = Callable[[Live], Awaitable[None]]


def play(folder: Path, story: Story, **environ: str) -> None:
    """*story* on a gateway over real sockets, after which it must still answer and hold nothing."""

    async def main() -> None:
        async with live(folder, environ) as gateway:
            await story(gateway)
            await gateway.goes_on()

    asyncio.run(main())


def check(answer: Answer, status: int, code: str, *words: str, param: str | None = None) -> None:
    """The error is in OpenAI's shape, says what is wrong and how to mend it, and names its call; it holds no key."""
    error = answer.error
    assert (answer.status, error["code"], error["param"]) == (status, code, param), answer.body
    assert error["type"]
    for word in words:
        assert word in error["message"], error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-keyturn-call"] == error["keyturn"]["call"]
    assert isinstance(error["keyturn"]["attempts"], list)
    assert KEY.encode() not in answer.head + answer.body
    assert CALLER_KEY.encode() not in answer.head + answer.body


class Mistake(NamedTuple):
    """A request body, and the words that its error must hold."""

    body: bytes
    words: tuple[str, ...]
    param: str | None = None
    path: str = CHAT


MISTAKES = {
    "broken JSON": Mistake(b'{"model": "x",\n "messages": [}', ("line 2, column 15 (byte 29)",)),
    "cut JSON": Mistake(b"{" + MODEL + b', "messages": [{"ro', ("ends in the middle", "Send it whole")),
    "single quotes": Mistake(b"{'model': 'x'}", ("byte 1", "double quotes")),
    "NaN": Mistake(b"{" + MODEL + b"," + MESSAGES + b', "top_p": NaN}', ("NaN is not JSON", "send null or a number")),
    "trailing comma": Mistake(b"{" + MODEL + b",}", ("Remove the comma",)),
    "two documents": Mistake(b"{}{}", ("trailing characters", "line 1, column")),
    "a list": Mistake(b"[1]", ("must be a JSON object",)),
    "a text": Mistake(b'"Hello"', ("must be a JSON object",)),
    "null": Mistake(b"null", ("must be a JSON object",)),
    "nothing": Mistake(b"", ("is empty", "Send a JSON object")),
    "blanks": Mistake(b" \r\n\t ", ("is empty", "Send a JSON object")),
    "not UTF-8": Mistake(b'{"model": "\xff\xfe"}', ("UTF-8", "byte 11", "Encode the body as UTF-8")),
    "UTF-16": Mistake('{"model": "x"}'.encode("utf-16"), ("UTF-8",)),
    "deep messages": Mistake(b'{"model": "x", "messages": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", ("200 levels",)),
    "a deep member": Mistake(b"{" + MODEL + b"," + MESSAGES + b',"x":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
                             ("200 levels",)),
    "deep and cut": Mistake(b'{"x":' + b"[" * 100_000, ()),
    "no model": Mistake(b"{" + MESSAGES + b"}", ("is missing", "GET /v1/models lists them"), "model"),
    "model null": Mistake(b'{"model": null, ' + MESSAGES + b"}", ("is missing",), "model"),
    "an empty model": Mistake(b'{"model": "", ' + MESSAGES + b"}", ("is missing",), "model"),
    "a number as model": Mistake(b'{"model": 7, ' + MESSAGES + b"}", ("must be a string",), "model"),
    "a list as model": Mistake(b'{"model": ["x"], ' + MESSAGES + b"}", ("must be a string",), "model"),
    "a path as model": Mistake(b'{"model": "groq/../../etc", ' + MESSAGES + b"}", ("cannot be",), "model"),
    "an address as model": Mistake(b'{"model": "http://127.0.0.1/x", ' + MESSAGES + b"}", ("cannot be",), "model"),
    "a long model": Mistake(b'{"model": "' + b"x" * 300 + b'", ' + MESSAGES + b"}", ("at most 200",), "model"),
    "no messages": Mistake(b"{" + MODEL + b"}", ("is missing", '"role": "user"'), "messages"),
    "messages null": Mistake(b"{" + MODEL + b', "messages": null}', ("is missing",), "messages"),
    "empty messages": Mistake(b"{" + MODEL + b', "messages": []}', ("is empty", "at least one"), "messages"),
    "a text as messages": Mistake(b"{" + MODEL + b', "messages": "Hello"}', ("must be a list",), "messages"),
    "an object as messages": Mistake(b"{" + MODEL + b', "messages": {}}', ("must be a list",), "messages"),
    "texts as messages": Mistake(b"{" + MODEL + b', "messages": ["Hi"]}', ("must be a list of objects",), "messages"),
    "stream as text": Mistake(b"{" + MODEL + b"," + MESSAGES + b',"stream": "yes"}', ("true or false",), "stream"),
    "tokens as text": Mistake(b"{" + MODEL + b"," + MESSAGES + b',"max_tokens": "9"}', ("whole number",), "max_tokens"),
    "no input": Mistake(b'{"model": "x"}', ("is missing",), "input", "/v1/embeddings"),
    "an empty input": Mistake(b'{"model": "x", "input": []}', ("is empty",), "input", "/v1/embeddings"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_body_that_cannot_be_used(mistake: Mistake, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        answer = await gateway.ask("POST", mistake.path, mistake.body)
        check(answer, 400, "bad_request", *mistake.words, param=mistake.param)

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct-Turb", ["nearest", GOOD]),
        ("togehter/meta-llama/Llama-3.3-70B-Instruct-Turbo", ["nearest", GOOD]),
        ("mistral/mistral-small-latest", ["set MISTRAL_API_KEY"]),
        ("no-such-thing-at-all", ["GET /v1/models"]),
    ],
)
def test_an_unknown_model(model: str, words: list[str], tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        check(await gateway.chat(model), 404, "model_not_found", *words, param="model")

    async def main() -> None:
        models = says(answer(b'{"data": [{"id": "small"}]}'), then="again")
        async with RawUpstream(models) as upstream, live(tmp_path, {"GROQ_API_BASE": upstream.url}) as gateway:
            await story(gateway)
            await gateway.goes_on()

    asyncio.run(main())


class Request(NamedTuple):
    """A request whose head is the mistake. A header without a value is left out."""

    status: int
    code: str
    words: tuple[str, ...] = ()
    method: str = "POST"
    path: str = CHAT
    headers: Mapping[str, str] = {}


REQUESTS = {
    "no key": Request(401, "invalid_api_key", ("Authorization: Bearer", "caller.key"), headers={"authorization": ""}),
    "a wrong key": Request(
        401, "invalid_api_key", ("PROXY_API_KEY", "caller.key"), headers={"authorization": "Bearer sk-wrong-key-0123"}
    ),
    "a provider's key": Request(401, "invalid_api_key", headers={"authorization": f"Bearer {KEY}"}),
    "a key of another kind": Request(401, "invalid_api_key", headers={"authorization": "Basic a3Q6eA=="}),
    "a key with more behind it": Request(
        401, "invalid_api_key", headers={"authorization": f"Bearer {CALLER_KEY}x", "x-api-key": CALLER_KEY[:-1]}
    ),
    "a compressed body": Request(
        415, "unsupported_encoding", ("without Content-Encoding",), headers={"content-encoding": "gzip"}
    ),
    "a hundred megabytes": Request(
        413, "too_large", ("32 MiB",), headers={"content-length": str(100 * MIB), "expect": "100-continue"}
    ),
    "an absurd length": Request(413, "too_large", ("32 MiB",), headers={"content-length": "9" * 18}),
    "an unknown path": Request(404, "unknown_path", ("/v1/answers", f"POST {CHAT}"), path="/v1/answers"),
    "a path of nothing": Request(404, "unknown_path", (f"POST {CHAT}",), "GET", "/.env"),
    "a path around corners": Request(404, "unknown_path", (), "GET", "/v1/../admin/keys"),
    "a quoted path": Request(404, "unknown_path", (), "GET", "/v1/%6dodels"),
    "two slashes": Request(404, "unknown_path", (), "GET", "//v1/models"),
    "an absolute address": Request(
        421, "wrong_host", (), "GET", "http://127.0.0.1/v1/models", headers={"host": "rebound.example.com"}
    ),
    "a wrong method": Request(405, "method_not_allowed", ("is served with POST",), "GET"),
    "another wrong method": Request(405, "method_not_allowed", ("is served with GET",), "DELETE", "/v1/models"),
    "a foreign host": Request(421, "wrong_host", ("KEYTURN_ALLOWED_HOSTS",), headers={"host": "rebound.example.com"}),
    "no host": Request(421, "wrong_host", headers={"host": ""}),
    "a host with a user": Request(421, "wrong_host", headers={"host": "127.0.0.1@example.com"}),
    "a foreign page": Request(
        403, "route_not_allowed", ("another origin",), headers={"origin": "https://evil.example.com"}
    ),
    "another site": Request(403, "route_not_allowed", headers={"sec-fetch-site": "cross-site"}),
    "an admin page": Request(401, "invalid_api_key", ("x-keyturn-admin",), "GET", "/admin/keys"),
    "an unlikely patience": Request(400, "bad_request", ("milliseconds",), headers={"x-request-timeout-ms": "soon"}),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_is_refused_by_its_head(request_: Request, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        body = b"{" + MODEL + b"," + MESSAGES + b"}" if request_.method == "POST" else None
        answer = await gateway.ask(request_.method, request_.path, body, request_.headers)
        param = "x-request-timeout-ms" if "x-request-timeout-ms" in request_.headers else None
        check(answer, request_.status, request_.code, *request_.words, param=param)
        assert ("www-authenticate" in answer.headers) == (request_.status == 401)
        assert ("allow" in answer.headers) == (request_.status == 405)

    play(tmp_path, story)


HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {CALLER_KEY}\r\n".encode()
CHUNK = b"100000\r\n" + b" " * MIB + b"\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"x-large: " + b"a" * 40_000 + b"\r\ncontent-length: 2\r\n\r\n{}"],
        [HEAD, *(b"x-%d: " % number + b"a" * 1000 + b"\r\n" for number in range(60))],
        [HEAD + b"".join(b"x-%d: a\r\n" % number for number in range(5000)) + b"\r\n"],
        [HEAD, *([b"x-never-ends: " + b"a" * 8000] * 10)],
    ],
    ids=["one header", "many, one by one", "many at once", "one that never ends"],
)
def test_headers_that_are_too_large(parts: list[bytes], tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        answer = await gateway.send(*parts)
        assert (answer.status, answer.error["code"]) == (431, "headers_too_large")
        assert "too large" in answer.error["message"] or "larger than 32 KiB" in answer.error["message"]

    play(tmp_path, story)


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"transfer-encoding: chunked\r\n\r\n", *[CHUNK] * 40],
        [HEAD + b"content-length: %d\r\n\r\n" % (100 * MIB), *[b" " * MIB] * 100],
    ],
    ids=["without an announced length", "a hundred megabytes"],
)
@pytest.mark.parametrize("to_the_end", [False, True], ids=["reads at once", "sends everything first"])
def test_a_body_that_is_too_large(parts: list[bytes], to_the_end: bool, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        check(await gateway.send(*parts, to_the_end=to_the_end), 413, "too_large", "32 MiB")

    play(tmp_path, story)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"Hello?\r\n\r\n",
        HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        HEAD + b"content-length: -2\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        HEAD.replace(b"host:", b"host :") + b"content-length: 2\r\n\r\n{}",
        HEAD + b"x-folded: a\r\n b\r\n\r\n",
        b"GET /v1/\x00models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n",
    ],
    ids=[
        *(
            "TLS",
            "prose",
            "two framings",
            "two lengths",
            "a negative length",
            "a broken chunk",
            "a blank before a colon",
        ),
        *("a folded header", "a NUL in the path", "a path without end", "CONNECT"),
    ],
)
def test_a_request_that_is_no_http(request_: bytes, tmp_path: Path) -> None:
    """Whoever frames it in two ways, or in none, loses the connection: nothing behind it is read as a request."""

    async def story(gateway: Live) -> None:
        answer = await gateway.send(request_ + HEAD + b"content-length: 2\r\n\r\n{}")
        assert answer.status == 400
        assert b"nvalid" in answer.body
        assert answer.headers["connection"] == "close"

    play(tmp_path, story)


def test_two_hosts_are_none(tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        check(await gateway.send(HEAD + b"host: evil.example.com\r\ncontent-length: 0\r\n\r\n"), 421, "wrong_host")

    play(tmp_path, story)


EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
WHOLE = EVENT + LAST
PLAIN = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
).encode()
HUGE = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 10_000_000 + b'"}}]}\n\n'
BOMB = gzip.compress(b" " * (100 * MIB))
OK = b"HTTP/1.1 200 OK\r\n"
PAGE = b"<!DOCTYPE html><html><h1>It works!</h1></html>"
SHORT = {"TIMEOUT_FIRST_TOKEN": "0.1", "TIMEOUT_NO_CONTENT": "0.1", "TIMEOUT_SILENCE": "0.1"}


def goes_on_for_ever(start: bytes, more: bytes) -> Script:
    async def script(line: Any) -> None:
        await line.request()
        await line.say(start)
        while True:
            await line.say(more)

    return script


FAILING: dict[str, tuple[Script, str]] = {
    "a page": (says(answer(PAGE, media=b"text/html")), "a web page came instead of an answer: It works"),
    "a page with an error status": (says(answer(PAGE, media=b"text/html", status=b"502 Bad Gateway")), "It works"),
    "half a chunk": (says(*streamed(end=False), b"40\r\ndata: {"), "ended before its announced length"),
    "half a chunk, then a reset": (says(*streamed(end=False), b"40\r\ndata: {", then="reset"), "connection broke"),
    "half an answer": (says(OK + b"content-length: 500\r\n\r\n" + PLAIN[:40]), "ended before its announced length"),
    "nothing and the end": (says(), "closed the connection without an answer"),
    "nothing and a reset": (says(then="reset"), "closed the connection without an answer"),
    "garbage": (says(b"\x00\x01\x02SSH-2.0-OpenSSH_9.6\r\n\r\n"), "not well-formed HTTP"),
    "an answer without a head": (says(PLAIN), "not well-formed HTTP"),
    "another encoding": (says(answer(b"\x0b\x02\x80", b"content-encoding: br")), "encoding 'br'"),
    "an encoding that it is not in": (says(answer(PLAIN, b"content-encoding: gzip")), "is damaged"),
    "a bomb": (says(answer(BOMB, b"content-encoding: gzip")), "beyond all bounds"),
    "a redirect": (says(answer(b"", b"location: http://127.0.0.1:9/x", status=b"302 Found")), "unknown 302"),
    "a lasting redirect": (says(answer(PLAIN, b"location: /v1/x", status=b"308 Permanent Redirect")), "unknown 308"),
    "not modified": (says(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "unknown 304"),
    "no content": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), "is no completion"),
    "another protocol": (says(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"), "101"),
    "a status of its own": (says(b"HTTP/1.1 999 What\r\ncontent-length: 2\r\n\r\n{}"), "999"),
    "headers without end": (goes_on_for_ever(OK, b"x-more: " + b"a" * 1000 + b"\r\n"), "not well-formed HTTP"),
    "a header without end": (goes_on_for_ever(OK + b"x-more: ", b"a" * 10_000), "not well-formed HTTP"),
    "two lengths": (says(OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + PLAIN), "not well-formed HTTP"),
    "a negative length": (says(OK + b"content-length: -5\r\n\r\n" + PLAIN), "not well-formed HTTP"),
    "a broken chunk": (says(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + PLAIN), "not well-formed HTTP"),
    "a deep answer": (says(answer(b'{"choices":' + b"[" * 10_000 + b"]" * 10_000 + b"}")), "is no completion"),
    "not UTF-8": (says(answer(b'{"choices":[{"message":{"content":"\xff\xfe"}}]}')), "is no completion"),
    "null": (says(answer(b"null")), "is no completion"),
    "an empty answer": (says(answer(b"")), "is no completion"),
}
"""What an upstream does, and what the log must say of it. To the client it is a bad upstream, streamed or not."""


def with_upstream(folder: Path, script: Script, story: Story, **environ: str) -> RawUpstream:
    """*story* with an upstream for BAD that does what *script* says."""

    async def main() -> RawUpstream:
        async with RawUpstream(script) as upstream, live(folder, {"GROQ_API_BASE": upstream.url, **environ}) as gateway:
            await story(gateway)
            await gateway.goes_on()
        return upstream

    return asyncio.run(main())


def log_of(folder: Path) -> list[str]:
    """What the log says of the calls to BAD."""
    return [line for line in (folder / "log").read_text().splitlines() if f" {BAD} " in line]


@pytest.mark.parametrize("failing", FAILING)
def test_an_upstream_that_fails(failing: str, tmp_path: Path) -> None:
    script, told = FAILING[failing]

    async def story(gateway: Live) -> None:
        for stream in (False, True):
            check(await gateway.chat(BAD, stream=stream), 502, "bad_upstream", "the attempts are listed")
            gateway.gateway.reset(None)

    upstream = with_upstream(tmp_path, script, story)
    assert len(log_of(tmp_path)) == 2
    assert all(told in line for line in log_of(tmp_path)), log_of(tmp_path)
    assert upstream.accepted >= 2


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("https://no-such-host.invalid/v1", "no-such-host.invalid:443: Name or service not known"),
        ("http://127.0.0.1:1/v1", "127.0.0.1:1: "),
    ],
    ids=["does not resolve", "refuses"],
)
def test_an_address_where_nobody_answers(base: str, told: str, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        for stream in (False, True):
            check(await gateway.chat(BAD, stream=stream), 502, "bad_upstream")
            gateway.gateway.reset(None)

    play(tmp_path, story, GROQ_API_BASE=base)
    assert len(log_of(tmp_path)) == 2
    assert all(told in line for line in log_of(tmp_path))


@pytest.mark.realtime
@pytest.mark.parametrize(
    "script", [listens, says(OK + b"content-type: text/event-stream\r\n\r\n", then="hang")], ids=["no head", "no body"]
)
def test_an_upstream_that_says_nothing(script: Script, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        for stream in (False, True):
            answer = await gateway.chat(BAD, stream=stream)
            check(answer, 502, "bad_upstream")
            assert answer.error["keyturn"]["attempts"][0]["meaning"] == "timeout"
            gateway.gateway.reset(None)
        patient = await gateway.chat(BAD, headers={"x-request-timeout-ms": "50"})
        check(patient, 504, "deadline")

    with_upstream(tmp_path, script, story, **SHORT)


def test_an_upstream_that_says_nothing_for_a_minute() -> None:
    async def story(world: World) -> None:
        began = world.clock.mono()
        streamed = await world.chat(BAD, stream=True)
        assert (streamed.status, streamed.code) == (502, "bad_upstream")
        assert world.clock.mono() - began == pytest.approx(60.0, abs=0.1)
        assert streamed.headers["x-keyturn-call"]
        world.upstream.script.clear()
        assert (await world.chat(BAD)).status == 200

    async def main() -> None:
        async with World({"groq": 1}, faults=[Fault(kind="chat", does="hang")]) as world:
            await story(world)

    virtual.run(main)


CUT: dict[str, tuple[Script, str]] = {
    "the end": (says(*streamed(EVENT, EVENT, end=False)), "ended before its announced length"),
    "an end in good order": (says(*streamed(EVENT, EVENT)), "without its terminal event"),
    "a reset": (says(*streamed(EVENT, end=False), then="reset"), "connection broke"),
    "half a chunk": (says(*streamed(EVENT, end=False), b"40\r\ndata: {"), "ended before its announced length"),
    "a broken chunk": (says(*streamed(EVENT, end=False), b"zz\r\n{}\r\n"), "framing is broken"),
    "10 MB in one event": (says(*streamed(EVENT, HUGE, WHOLE)), "an event of the stream is larger than"),
    "10 MB without an event": (says(*streamed(EVENT, b"data: " + b"x" * 10_000_000)), "larger than"),
    "an error": (says(*streamed(EVENT, b'data: {"error": {"message": "out of memory"}}\n\n')), "out of memory"),
}


@pytest.mark.parametrize("cut", CUT)
def test_a_stream_that_is_cut(cut: str, tmp_path: Path) -> None:
    script, told = CUT[cut]

    async def story(gateway: Live) -> None:
        answer = await gateway.chat(BAD, stream=True)
        assert (answer.status, answer.error["code"]) == (200, "upstream_interrupted")
        assert told in answer.error["message"]
        assert answer.error["keyturn"]["call"] == answer.headers["x-keyturn-call"]
        assert answer.body.startswith(EVENT)
        assert b"[DONE]" not in answer.body
        assert b"stop" not in answer.body

    with_upstream(tmp_path, script, story)


@pytest.mark.realtime
def test_a_stream_that_falls_silent(tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        answer = await gateway.chat(BAD, stream=True)
        assert answer.error["code"] == "upstream_interrupted"
        assert "nothing came in time" in answer.error["message"]

    with_upstream(tmp_path, says(*streamed(EVENT, end=False), then="hang"), story, **SHORT)


def test_10_MB_in_the_first_event(tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        check(await gateway.chat(BAD, stream=True), 502, "bad_upstream")

    with_upstream(tmp_path, says(*streamed(HUGE, LAST)), story)
    assert "an event of the stream is larger than" in log_of(tmp_path)[0]


def test_10_MB_in_a_plain_answer_are_an_answer(tmp_path: Path) -> None:
    body = PLAIN.replace(b"Hi", b"x" * 10_000_000)

    async def story(gateway: Live) -> None:
        assert (await gateway.chat(BAD)).body == body

    with_upstream(tmp_path, says(answer(body)), story)


def test_an_answer_that_announces_more_than_is_accepted(tmp_path: Path) -> None:
    start = OK + b"content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"

    async def story(gateway: Live) -> None:
        check(await gateway.chat(BAD), 502, "bad_upstream")

    with_upstream(tmp_path, says(start, then="hang"), story)
    assert "larger than" in log_of(tmp_path)[0]


ANSWERING: dict[str, tuple[bytes, ...]] = {
    "byte by byte": streamed(*(bytes([byte]) for byte in WHOLE)),
    "compressed": (answer(gzip.compress(WHOLE), b"content-encoding: gzip", media=b"text/event-stream"),),
    "after interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
        *streamed(WHOLE),
    ),
    "without framing": (OK + b"content-type: text/event-stream\r\n\r\n" + WHOLE,),
}


@pytest.mark.parametrize("answering", ANSWERING)
def test_an_odd_answer_is_an_answer(answering: str, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        answer = await gateway.chat(BAD, stream=True)
        assert (answer.status, answer.body) == (200, WHOLE)
        assert "content-encoding" not in answer.headers

    with_upstream(tmp_path, says(*ANSWERING[answering]), story)


def test_a_plain_answer_to_a_streamed_request_is_not_lost(tmp_path: Path) -> None:
    """Some servers ignore `stream`. The client gets what they said, or an error; never an empty answer."""

    async def story(gateway: Live) -> None:
        answer = await gateway.chat(BAD, stream=True)
        assert b'"Hi"' in answer.body or answer.status == 502

    with_upstream(tmp_path, says(answer(PLAIN)), story)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def main() -> None:
        async with RawUpstream(says(answer(PLAIN))) as elsewhere:
            header = f"location: {elsewhere.url}/chat/completions".encode()
            for status in (b"301 Moved Permanently", b"303 See Other", b"307 Temporary Redirect"):
                script = says(answer(b"", header, status=status))
                async with RawUpstream(script) as upstream, live(tmp_path, {"GROQ_API_BASE": upstream.url}) as gateway:
                    check(await gateway.chat(BAD), 502, "bad_upstream")
            assert elsewhere.accepted == 0

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_for_lack_of_capacity_says_when(stream: bool, tmp_path: Path) -> None:
    async def story(gateway: Live) -> None:
        answer = await gateway.chat(BAD, stream=stream)
        check(answer, 429, "capacity", "one is free again in")
        exact = int(answer.headers["retry-after-ms"])
        assert 7000 <= exact <= 9000
        assert int(answer.headers["retry-after"]) == -(-exact // 1000)

    script = says(answer(b'{"error": {"message": "slow down"}}', b"retry-after: 7", status=b"429 Too Many Requests"))
    with_upstream(tmp_path, script, story, TIMEOUT_QUEUE_WAIT="0.01")


def test_an_upstreams_own_refusal_of_a_mistake_is_handed_on_as_it_came(tmp_path: Path) -> None:
    body = b'{"error": {"message": "temperature must be below 2", "param": "temperature"}}'

    async def story(gateway: Live) -> None:
        answer = await gateway.chat(BAD, temperature=9)
        assert (answer.status, answer.body) == (400, body)
        assert answer.headers["x-keyturn-call"]
        assert answer.headers["x-keyturn-attempts"] == "1"

    upstream = with_upstream(tmp_path, says(answer(body, status=b"400 Bad Request")), story)
    assert len(upstream.heard) == 1
