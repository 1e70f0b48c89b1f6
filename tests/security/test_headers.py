"""What passes through in either direction: allow-lists of headers, and the secret in its own header alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import Candidate, Credential, Deployment, HttpRequest, LocalRequest
from keyturn.dispatch import read_call
from keyturn.providers import CATALOG, prepare, prepare_models
from tests.support.raw_upstream import RawUpstream, Script, answer, says, streamed

from .live import BAD, CALLER_KEY, KEY, Answer, live
from .planted import SECRETS, Scanner

CANARY = "canary-0123456789"
TO_UPSTREAM = {"host", "content-type", "accept", "accept-encoding", "user-agent", "authorization", "content-length"}
TO_CLIENT = {
    *("content-type", "content-length", "transfer-encoding", "cache-control", "x-accel-buffering", "date"),
    *("x-request-id", "x-keyturn-call", "x-keyturn-provider", "x-keyturn-model", "x-keyturn-key"),
    *("x-keyturn-attempts", "retry-after", "retry-after-ms", "x-should-retry"),
}
OF_CLIENTS = [
    *("cookie", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "via", "referer"),
    *("x-stainless-lang", "x-stainless-retry-count", "x-stainless-helper-method", "openai-organization"),
    *("openai-project", "openai-beta", "idempotency-key", "traceparent", "baggage", "x-request-id", "x-api-key"),
    *("x-goog-api-key", "api-key", "proxy-authorization", "x-keyturn-provider", "x-keyturn-key", "x-keyturn-admin"),
    *("helicone-auth", "cf-access-token", "anthropic-version", "x-api-base", "x-http-method-override"),
]
OF_UPSTREAMS = [
    *("set-cookie", "openai-organization", "openai-project", "openai-version", "x-request-id", "cf-ray", "server"),
    *("via", "location", "www-authenticate", "access-control-allow-origin", "strict-transport-security", "alt-svc"),
    *("x-keyturn-call", "x-keyturn-key", "x-keyturn-provider", "x-should-retry", "x-ratelimit-remaining-requests"),
    *("content-security-policy", "etag", "refresh", "link", "clear-site-data", "x-groq-region", "keep-alive"),
]
COMPLETION = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
MARKS = b"".join(b"%s: %s-%s\r\n" % (name.encode(), CANARY.encode(), name.encode()) for name in OF_UPSTREAMS)


def marked(whole: bytes) -> bytes:
    """An upstream's answer with all those headers in front of its own."""
    status, _, rest = whole.partition(b"\r\n")
    return status + b"\r\n" + MARKS + rest


def names_in(head: bytes) -> list[str]:
    return [line.partition(":")[0].lower() for line in head.decode("latin-1").split("\r\n")[1:] if line]


def call(folder: Path, script: Script, *, stream: bool) -> tuple[Answer, bytes]:
    """What the client gets and what the upstream heard, when both say all that they should not."""

    async def main() -> tuple[Answer, bytes]:
        environ = {"TIMEOUT_QUEUE_WAIT": "0.01"}
        headers = {name: f"{CANARY}-{name}" for name in OF_CLIENTS} | {"user-agent": f"OpenAI/{CANARY}"}
        async with RawUpstream(script) as upstream:
            environ["GROQ_API_BASE"] = upstream.url
            async with live(folder, environ) as gateway:
                answer = await gateway.chat(BAD, stream=stream, headers=headers)
            return answer, upstream.heard[0]

    return asyncio.run(main())


ANSWERS = {
    "plain": (says(marked(answer(COMPLETION))), False, 200),
    "stream": (says(marked(streamed()[0]), *streamed(EVENTS)[1:]), True, 200),
    "the client's mistake": (says(marked(answer(b'{"error": {}}', status=b"400 Bad Request"))), False, 400),
    "no credit": (says(marked(answer(b'{"error": {}}', status=b"402 Payment Required"))), False, 503),
    "too many": (says(marked(answer(b'{"error": {}}', status=b"429 Too Many Requests"))), False, 429),
    "elsewhere": (says(marked(answer(b"", status=b"307 Temporary Redirect"))), False, 502),
    "broken": (says(marked(answer(b"", status=b"500 Internal Server Error")), then="again"), True, 502),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_only_listed_headers_pass_in_either_direction(kind: str, tmp_path: Path) -> None:
    script, stream, status = ANSWERS[kind]
    got, heard = call(tmp_path, script, stream=stream)
    assert got.status == status, got.body

    head = heard.partition(b"\r\n\r\n")[0]
    names = names_in(head)
    assert set(names) == TO_UPSTREAM
    assert len(names) == len(set(names))
    assert b"authorization: Bearer %s\r\n" % KEY.encode() in head + b"\r\n"
    assert CALLER_KEY.encode() not in heard
    assert CANARY.encode() not in heard

    assert set(names_in(got.head)) <= TO_CLIENT
    assert len(names_in(got.head)) == len(set(names_in(got.head)))
    assert CANARY.encode() not in got.head + got.body
    assert KEY.encode() not in got.head + got.body


def test_the_secret_is_in_its_header_alone(tmp_path: Path) -> None:
    _, heard = call(tmp_path, says(answer(COMPLETION)), stream=False)
    assert heard.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert heard.count(KEY.encode()) == 1


@pytest.mark.parametrize("name", [name for name, row in CATALOG.items() if row.tool is None])
def test_no_provider_gets_a_secret_in_its_url_or_body(name: str) -> None:
    """Keys in query strings end up in logs and in the text of exceptions."""
    row = CATALOG[name]
    body = {"model": f"{name}/some-model", "messages": [{"role": "user", "content": "Hello"}], "input": "Hello"}
    for secret in SECRETS:
        credential = Credential.of(name, secret, 1)
        candidate = Candidate(Deployment(name, "some-model"), credential)
        calls = [read_call("chat", json.dumps(body).encode(), {})]
        if row.embeddings_path:
            calls.append(read_call("embeddings", json.dumps(body).encode(), {}))
        requests = [prepare(row, each, candidate, []) for each in calls]
        if row.models_path:
            requests.append(prepare_models(row, credential))
        for request in requests:
            sent = request.http if isinstance(request, LocalRequest) else request
            assert isinstance(sent, HttpRequest)
            shown = f"{sent.url} {sent.headers} {sent!r}".encode() + sent.body
            assert Scanner([secret]).search(sent.url, shown) == []
            assert sent.auth is not None
            assert sent.auth[2] is credential.secret


@pytest.mark.parametrize("model", ["groq/a?key=b", "groq/a#b", "groq/..%2f..%2fadmin", "groq/a b", "groq/a\r\nx: y"])
def test_a_models_name_is_never_part_of_an_address(model: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with RawUpstream(says(answer(COMPLETION), then="again")) as upstream:
            async with live(tmp_path, {"GROQ_API_BASE": upstream.url}) as gateway:
                refused = await gateway.chat(model)
                assert (refused.status, refused.error["param"]) == (400, "model")
                assert (await gateway.chat("groq/openai/gpt-oss-20b:free@x+y")).status == 200
            (heard,) = upstream.heard
            assert heard.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
            assert json.loads(heard.partition(b"\r\n\r\n")[2])["model"] == "openai/gpt-oss-20b:free@x+y"

    asyncio.run(main())


def test_a_request_cannot_choose_where_it_goes(tmp_path: Path) -> None:
    """Members that other gateways have obeyed are passed on as any unknown member is, and mean nothing here."""

    async def main() -> None:
        trap = RawUpstream(says(answer(COMPLETION)))
        async with trap, RawUpstream(says(answer(COMPLETION), then="again")) as upstream:
            async with live(tmp_path, {"GROQ_API_BASE": upstream.url}) as gateway:
                members = ("api_base", "base_url", "api_key", "callback_url", "user_config", "proxy", "extra_headers")
                for member in members:
                    for value in (trap.url, {"base_url": trap.url, "api_key": "x"}, [trap.url]):
                        given: dict[str, Any] = {member: value}
                        assert (await gateway.chat(BAD, **given)).status == 200
                for header in ("x-api-base", "x-base-url", "helicone-target-url", "x-forwarded-host", "destination"):
                    assert (await gateway.chat(BAD, headers={header: trap.url})).status == 200
            assert trap.accepted == 0
            assert all(b"host: 127.0.0.1:%d\r\n" % upstream.port in heard.lower() for heard in upstream.heard)

    asyncio.run(main())
