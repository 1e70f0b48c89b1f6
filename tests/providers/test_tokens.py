"""What is asked of authorisation servers, and what their answers mean; and where a token goes in a request."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.core import Account, Candidate, Credential, Deployment, HttpRequest, Secret
from keyturn.errors import KeyturnError
from keyturn.providers import (
    CALLBACK,
    CATALOG,
    Denied,
    DeviceCode,
    Granted,
    authorize_url,
    jwt_to_sign,
    known,
    prepare,
    prepare_models,
    read_callback,
    read_device,
    read_new_key,
    read_token,
    renewal,
    token_request,
    vertex_url,
    why_no_login,
)
from keyturn.providers.sign_in import challenge
from keyturn.wire import parse_chat

ROBOT = Account("service_account", "robot", "robot", "https://t.example/token", ("a", "b"), "robot@p", key_id="k1")
APP = Account(
    "refresh_token", "ada", "ada", "https://t.example/token", client_id="app", client_secret=Secret("planted-s")
)


class Held:
    """A source with one token."""

    latest = Secret("planted-token")
    trouble = ""

    def current(self) -> Secret | None:
        return self.latest

    async def obtain(self) -> Secret:
        return self.latest

    def rejected(self, token: Secret) -> bool:
        return False

    def reset(self) -> None: ...


def credential(provider: str, **more: Any) -> Credential:
    account = Account("refresh_token", "ada", "ada", "https://t.example/token", **more)
    return Credential(provider, Secret(""), 0, account.fingerprint(provider), "g", account=account, tokens=Held())


def test_a_request_for_a_token_holds_its_secrets_in_the_body_only() -> None:
    request = token_request(APP, Secret("planted-refresh"))
    assert (
        request.body == b"client_id=app&client_secret=planted-s&grant_type=refresh_token&refresh_token=planted-refresh"
    )
    assert (request.method, request.url) == ("POST", "https://t.example/token")
    assert "planted" not in repr(request)
    assert "planted" not in repr(APP)


def test_a_jwt_is_dated_back_a_little_and_holds_for_an_hour() -> None:
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + b"==")) for part in jwt_to_sign(ROBOT, 1000.9).split(b".")
    )
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert claims == {"iss": "robot@p", "scope": "a b", "aud": "https://t.example/token", "iat": 990, "exp": 4590}


@pytest.mark.parametrize(
    ("status", "members", "found"),
    [
        (200, {"access_token": "t", "expires_in": 10}, Granted(Secret("t"), 10)),
        (200, {"access_token": "t", "expires_in": "86399"}, Granted(Secret("t"), 86399)),
        (200, {"access_token": "t"}, Granted(Secret("t"), 3600)),
        (200, {"access_token": "t", "expires_in": -1}, Granted(Secret("t"), 3600)),
        (200, {"access_token": "t", "refresh_token": "r", "scope": "s"}, Granted(Secret("t"), 3600, Secret("r"), "s")),
        (200, {"access_token": "t\r\nx: y"}, Denied("no_token", "its answer holds no token", False)),
        (200, {"error": "slow"}, Denied("no_token", "its answer holds no token", False)),
        (400, {"error": "invalid_grant", "error_description": "gone"}, Denied("invalid_grant", "gone", True)),
        (400, {"error": "temporarily_unavailable"}, Denied("temporarily_unavailable", "", False)),
        (401, {"error": {"code": 401, "message": "no"}}, Denied("401", "no", True)),
        (429, {"error": "rate"}, Denied("rate", "", False)),
        (503, {}, Denied("status 503", "", False)),
        (404, {"message": "no such page"}, Denied("status 404", "no such page", False)),
        (400, {"error": "a\n\x1b[31mb"}, Denied("a [31mb", "", True)),
    ],
)
def test_answers_of_a_token_endpoint(status: int, members: dict[str, Any], found: Granted | Denied) -> None:
    assert read_token(status, json.dumps(members).encode()) == found


def test_a_refusal_that_quotes_a_secret_is_told_without_it() -> None:
    body = json.dumps({"error": "invalid_client", "error_description": "planted-s is wrong"}).encode()
    assert read_token(401, body, *APP.secrets) == Denied(
        "invalid_client", "planted-s is wrong".replace("planted-s", "***"), True
    )


@settings(max_examples=50)
@given(
    st.integers(100, 599),
    st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode),
)
def test_any_answer_is_understood_or_none(status: int, body: bytes) -> None:
    assert isinstance(read_token(status, body), Granted | Denied)
    assert isinstance(read_device(status, body), DeviceCode | Denied)
    assert isinstance(read_new_key(status, body), Secret | Denied)


@given(st.floats(0.1, 1e8))
def test_a_token_is_renewed_before_its_end_and_not_at_once(lifetime: float) -> None:
    assert lifetime / 2 <= renewal(lifetime) < lifetime
    if lifetime >= 600:
        assert lifetime - renewal(lifetime) == pytest.approx(max(300, lifetime / 10))


# --- logins ---------------------------------------------------------------------------------------------------------


def test_OAU_01_the_challenge_of_rfc_7636() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_OAU_01_the_page_that_asks_the_user() -> None:
    url = authorize_url("https://openrouter.ai/auth", "http://localhost:3000/callback/n", "v")
    assert url.startswith(
        "https://openrouter.ai/auth?callback_url=http%3A%2F%2Flocalhost%3A3000%2Fcallback%2Fn&code_challenge="
    )
    assert url.endswith("&code_challenge_method=S256")


@pytest.mark.parametrize("start", ["", "http://localhost:3000", "  http://127.0.0.1:9"])
def test_OAU_01_the_answer_is_known_by_its_nonce(start: str) -> None:
    assert read_callback(f"{start}{CALLBACK}nonce?code=c%2F1", "nonce") == Secret("c/1")
    assert read_callback(f"{start}{CALLBACK}other?code=c", "nonce") is None
    assert read_callback(f"{start}/favicon.ico", "nonce") is None


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("error=access_denied", "you did not allow it"),
        ("error=x", "failed: 'x'"),
        ("", "holds no code"),
        ("code=", "no code"),
    ],
)
def test_OAU_01_an_answer_that_is_no(query: str, said: str) -> None:
    with pytest.raises(KeyturnError, match=said):
        read_callback(f"{CALLBACK}nonce?{query}", "nonce")


@pytest.mark.parametrize(
    "name", ["anthropic", "claude", "Claude-Code", "chatgpt", "codex", "gemini-cli", "copilot", "qwen"]
)
def test_OAU_07_logins_of_other_programs_are_refused_with_what_to_do_instead(name: str) -> None:
    assert "key" in why_no_login(name)


def test_OAU_07_no_client_id_of_anybody_is_shipped() -> None:
    addresses = [address for row in CATALOG.values() for address in row.signs_in.values()]
    assert addresses
    assert not [each for each in addresses if "client_id" in each]
    assert {row.name for row in CATALOG.values() if row.signs_in} == {
        "openrouter", "huggingface", "gemini", "vertex", "azure",
    }  # fmt: skip


# --- where tokens go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("location", "host"), [
    ("global", "aiplatform.googleapis.com"),
    ("us-central1", "us-central1-aiplatform.googleapis.com"),
    ("eu", "aiplatform.eu.rep.googleapis.com"),
])  # fmt: skip
def test_the_address_of_vertex(location: str, host: str) -> None:
    assert vertex_url("p-1", location) == f"https://{host}/v1/projects/p-1/locations/{location}/publishers/google"


@pytest.mark.parametrize("provider", ["vertex", "gemini", "azure", "huggingface"])
def test_a_token_is_a_bearer_wherever_keys_go(provider: str) -> None:
    payer = (("x-goog-user-project", "payer"),)
    key = credential(provider, headers=payer)
    call = parse_chat(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}', {})
    request = prepare(CATALOG[provider], call, Candidate(Deployment(provider, "m"), key), [])
    assert isinstance(request, HttpRequest)
    assert request.auth == ("authorization", "Bearer ", Secret("planted-token"))
    assert payer[0] in request.headers
    assert request.url.endswith("/models/m:generateContent") is (provider in ("vertex", "gemini"))
    listing = prepare_models(CATALOG[provider], key)
    assert isinstance(listing, HttpRequest)
    assert listing.auth == request.auth
    assert payer[0] in listing.headers


def test_vertex_is_known_by_its_names() -> None:
    for name in ("vertex", "vertex_ai", "vertex-ai", "google_vertex"):
        row = known(name)
        assert row is not None
        assert row.name == "vertex"
