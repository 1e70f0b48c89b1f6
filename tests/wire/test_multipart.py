"""Multipart forms: their text fields, and a field replaced with every other byte as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import BadRequest
from keyturn.wire.multipart import read_form, with_field

TYPE = "multipart/form-data; boundary=xyz"
FILE = (
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"RIFF\r\n--xy\r\n"
)


def form(*fields: tuple[str, bytes], file: bytes = FILE) -> bytes:
    parts = [b'--xyz\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (n.encode(), v) for n, v in fields]
    return b"".join(parts) + file + b"--xyz--\r\n"


def test_text_fields_are_read_and_files_are_not() -> None:
    fields = read_form(form(("model", b"openai/whisper-1"), ("language", "dé".encode())), TYPE)
    assert {name: json.loads(text) for name, text in fields.items()} == {"model": "openai/whisper-1", "language": "dé"}


def test_the_model_is_replaced_and_the_rest_stays() -> None:
    body = form(("model", b"openai/whisper-1"), ("prompt", b"model"))
    assert with_field(body, TYPE, "model", "w") == form(("model", b"w"), ("prompt", b"model"))


@pytest.mark.parametrize(
    "content_type", ['multipart/form-data; boundary="xyz"', "Multipart/Form-Data;charset=utf-8; boundary=xyz"]
)
def test_the_boundary_in_all_its_spellings(content_type: str) -> None:
    assert read_form(form(("model", b"m")), content_type) == {"model": b'"m"'}


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (form(("model", b"m")), "multipart/form-data", "boundary"),
        (b"", TYPE, "no part"),
        (b"nothing of the kind", TYPE, "no part"),
        (form(("model", b"m"))[:-20], TYPE, "middle of a part"),
        (b"--xyz\r\nContent-Type: text/plain\r\n\r\nm\r\n--xyz--", TYPE, "no name"),
        (form(*[("a", b"b")] * 300), TYPE, "more than 200 parts"),
    ],
)
def test_what_is_no_form_is_told_so(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        read_form(body, content_type)


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_a_form_or_an_error(body: bytes, value: bytes) -> None:
    for given_body in (body, b"--xyz" + body, form(("model", value.replace(b"\r\n--xyz", b""))), form() + body):
        try:
            read_form(given_body, TYPE)
            with_field(given_body, TYPE, "model", "m")
        except BadRequest:
            pass


@given(st.binary(max_size=60).filter(lambda value: b"--xyz" not in value), st.text(max_size=20))
def test_only_the_field_changes(value: bytes, new: str) -> None:
    body = form(("model", value), ("other", value))
    assert with_field(body, TYPE, "model", new) == form(("model", new.encode("utf-8", "replace")), ("other", value))


def test_no_second_model_is_smuggled_in() -> None:
    file = FILE.replace(b'name="file"; filename="a.wav"', b'name="model"; filename=""')
    with pytest.raises(BadRequest, match="text field"):
        read_form(form(("model", b"m"), file=file), TYPE)
    with pytest.raises(BadRequest, match="behind its end"):
        read_form(form(("model", b"m")) + form(("model", b"other")), TYPE)
