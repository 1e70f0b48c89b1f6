"""Bad input, from clients and from upstreams: each gets a clear error, and the server goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keyturn.simulator import Fault
from tests.security.live import BAD, CALLER_KEY, GOOD, KEY, Answer, Live, live
from tests.support.raw_upstream import RawUpstream, Script, answer, listens, says, streamed

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
    "two documents": Mistake(b"{}{}", ("byte 2",)),
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
    "texts as messages": Mistake(b"{" + MODEL + b', "messages": ["Hello"]}', ("must be a list of objects",), "messages"),
    "stream as text": Mistake(b"{" + MODEL + b"," + MESSAGES + b',"stream": "yes"}', ("true or false",), "stream"),
    "tokens as text": Mistake(b"{" + MODEL + b"," + MESSAGES + b',"max_tokens": "9"}', ("a whole number",), "max_tokens"),
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
        async with RawUpstream(says(answer(b'{"data": [{"id": "small"}]}'), then="again")) as upstream:
            async with live(tmp_path, {"GROQ_API_BASE": upstream.url}) as gateway:
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
    "an unknown path": Request(404, "unknown_path", ("/v1/responses", f"POST {CHAT}"), path="/v1/responses"),
    "a path of nothing": Request(404, "unknown_path", (f"POST {CHAT}",), "GET", "/.env"),
    "a path around corners": Request(404, "unknown_path", (), "GET", "/v1/../admin/keys"),
    "a quoted path": Request(404, "unknown_path", (), "GET", "/v1/%6dodels"),
    "two slashes": Request(404, "unknown_path", (), "GET", "//v1/models"),
    "an absolute address": Request(404, "unknown_path", (), "GET", "http://example.com/v1/models"),
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
