"""The search for planted secrets finds them: a test that found nothing would pass for the wrong reason."""

from __future__ import annotations

import base64

import pytest

from .planted import BEGINNING, ECHOES, END, REFUSED, SECRETS, SHAPES, Collected, Scanner, half_masked, is_telling

SCANNER = Scanner(SECRETS)
BORING = (
    b'{"error":{"message":"no usable key","keyturn":{"call":"019cae6b-6600-7858-b730-916ce28b2f39"}}} groq-2:9f3a1c '
    b"authorization: Bearer *** sk-proj-*** gsk_*** https://api.groq.com/openai/v1 SGVsbG8gd29ybGQ="
)


def found(text: str | bytes) -> set[str]:
    data = BORING + (text.encode() if isinstance(text, str) else text) + BORING
    return {hit.secret for hit in SCANNER.search("somewhere", data)}


def test_there_are_a_hundred_different_secrets_of_many_shapes() -> None:
    assert len(set(SECRETS)) == 100
    assert len(SHAPES) >= 25
    assert max(map(len, SECRETS)) == 300
    assert len({secret[:BEGINNING] for secret in [*SECRETS, *REFUSED]}) == 100 + len(REFUSED)


def test_nothing_is_found_where_nothing_is() -> None:
    assert found("") == set()


@pytest.mark.parametrize("form", ECHOES)
def test_every_form_is_found(form: str) -> None:
    for secret in SECRETS:
        assert found(f'{{"message": "you sent {ECHOES[form](secret)}."}}') == {secret}


def test_a_secret_inside_base64_is_found_at_each_offset() -> None:
    for secret in SECRETS:
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for before in (b"", b"a", b"ab", b"abc"):
                assert found(encode(before + secret.encode() + b"xyz")) == {secret}


def test_a_part_of_a_secret_is_found() -> None:
    for secret in SECRETS:
        assert secret in found(f"{secret[:BEGINNING]}…")
        assert secret in found(f"…{secret[-END:]}")
        assert found(half_masked(secret)) == ({secret} if is_telling(secret) else set())


def test_what_was_collected_is_searched_text_by_text() -> None:
    collected = Collected()
    for number in range(1200):
        collected.add("log", f"line {number}")
    collected.assert_clean()
    collected.add("a header", SECRETS[7])
    assert {hit.place for hit in collected.hits()} == {"a header"}
    with pytest.raises(AssertionError, match="a header: whole of 'xai-"):
        collected.assert_clean()
