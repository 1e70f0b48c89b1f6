"""A secret never survives the redactor, whatever form it takes; ordinary text does."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.core import Redactor, Secret

SECRETS = ["sk-proj-Ab_cd-ef0123456789ABCDEF", "AIzaSyPlanted0123456789", "plain-password+/=1", "ключ-от-провайдера"]
REDACTOR = Redactor(map(Secret, SECRETS))


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", [str, quote, lambda s: quote(s, safe=""), json.dumps, lambda s: s.encode().hex()])
def test_escaped_forms_are_found(secret: str, form: object) -> None:
    assert callable(form)
    text = f"<{form(secret)}>"
    assert form(secret).strip('"') not in REDACTOR.text(text)
    assert "***" in REDACTOR.text(text)


@given(st.sampled_from(SECRETS), st.binary(max_size=20), st.binary(max_size=20))
def test_a_secret_inside_base64_is_found_at_any_offset(secret: str, before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        clean = REDACTOR.text(encode(before + secret.encode() + after).decode())
        assert "***" in clean
        for offset in range(3):
            inside = encode(bytes(offset) + secret.encode())[4:-4].decode()
            assert not any(inside[n : n + 8] in clean for n in range(len(inside) - 7))


@given(st.sampled_from(SECRETS), st.text(), st.text())
def test_a_secret_is_found_in_any_text(secret: str, before: str, after: str) -> None:
    clean = REDACTOR.text(before + secret + after)
    assert "***" in clean
    assert secret not in clean


@given(st.sampled_from(SECRETS), st.binary(), st.binary())
def test_a_secret_is_found_in_any_bytes(secret: str, before: bytes, after: bytes) -> None:
    clean = REDACTOR.data(before + secret.encode() + after)
    assert b"***" in clean
    assert secret.encode() not in clean


@given(st.lists(st.sampled_from([*SECRETS, "sk-proj-", "AIzaSy", "x", " "]), max_size=12))
def test_secrets_next_to_each_other_are_all_found(parts: list[str]) -> None:
    clean = REDACTOR.text("".join(parts))
    assert not any(secret in clean for secret in SECRETS)


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-abcdefghijklmnop_QR-stuvwx",
        "sk-or-v1-0123456789abcdef0123456789abcdef",
        "gsk_0123456789abcdefghijABCDEFGHIJ",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        "nvapi-0123456789abcdefghij_-ABCD",
        "xai-0123456789abcdefghijABCDEFGHIJ",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "ghp_0123456789abcdefghijABCDEFGHIJ",
        "github_pat_0123456789abcdefghij_ABC",
        "pplx-0123456789abcdefghijABCDEFGHIJ",
        "csk-0123456789abcdefghijABCDEFGHIJ",
        "sk-proj-************************abcd",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl",
        "fw_0123456789abcdefghijABCDEFGHIJ",
        "r8_0123456789abcdefghijABCDEFGHIJ",
        "tgp_v1_0123456789abcdefghijABCDEF",
        "nvapi-0123456789abcdefghijABCDEFG",
        "ya29.0123456789abcdefghijABCDEFGHI",
        "GOCSPX-0123456789abcdefghijABCDEF",
        "AKIA0123456789ABCDEF",
    ],
)
def test_unknown_keys_are_known_by_their_shape(key: str) -> None:
    assert Redactor().text(f'Incorrect API key provided: "{key}".') == 'Incorrect API key provided: "***".'


def test_whatever_follows_bearer_is_taken_out() -> None:
    assert Redactor().text("authorization: Bearer abc.def/ghi+12") == "authorization: Bearer ***"
    assert Redactor().text("AUTHORIZATION: BEARER abc.def/ghi+12") == "AUTHORIZATION: BEARER ***"


@pytest.mark.parametrize(
    "text",
    [
        "groq-2:9f3a1c → rate_limited 38 ms", "openrouter/deepseek/deepseek-r1-0528:free", "task-force sk-1 hf_small",
        "019a8f3e-1c2d-7aaa-8bbb-0123456789ab", "the bearer of news", "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ],
)  # fmt: skip
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_short_values_are_not_looked_for() -> None:
    assert Redactor([Secret("ollama"), Secret("x"), Secret("")]).text("ollama x") == "ollama x"


def test_a_secret_may_be_added_later() -> None:
    redactor = Redactor()
    assert redactor.text("caller kt-abcdefghij") == "caller kt-abcdefghij"
    redactor.add(Secret("kt-abcdefghij"))
    assert redactor.text("caller kt-abcdefghij") == "caller ***"


def test_of_two_secrets_where_one_begins_the_other_the_longer_is_taken_out() -> None:
    assert Redactor([Secret("abcdefgh"), Secret("abcdefgh12345678")]).text("abcdefgh12345678") == "***"
