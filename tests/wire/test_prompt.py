"""measure: text, media and needs of a prompt, from its raw text."""

from __future__ import annotations

import json

import pytest

from keyturn.wire.prompt import measure

PNG = "data:image/png;base64," + "iVBORw0K" * 5000


def messages(*parts: object, spaced: bool = False) -> bytes:
    separators = None if spaced else (",", ":")
    return json.dumps([{"role": "user", "content": list(parts)}], separators=separators).encode()


def image(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize("spaced", [False, True])
def test_inline_media_is_not_text(spaced: bool) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "UklGR" * 5000, "format": "wav"}}
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64," + "JVBE" * 5000}}
    prompt = measure(messages(image(PNG), audio, pdf, image(PNG), {"type": "text", "text": "Hi"}, spaced=spaced))
    assert prompt.media == 4
    assert set(prompt.needs) == {"vision", "audio"}
    assert prompt.text_bytes < 600


def test_an_image_by_address_counts_as_media() -> None:
    given = messages(image("https://example.com/a.png"))
    assert measure(given) == (len(given), 1, ("vision",))


def test_what_a_user_wrote_is_text() -> None:
    text = f'<img src="{PNG}"> {{"image_url": {{"url": "{PNG}"}}, "type": "file", "file": 1, "data": "xyz"}}'
    given = messages({"type": "text", "text": text})
    assert measure(given) == (len(given), 0, ())


def test_written_text_stays_text_beside_an_image() -> None:
    text = f'<img src="{PNG}">'
    prompt = measure(messages({"type": "text", "text": text}, image(PNG)))
    assert len(text) < prompt.text_bytes < len(text) + 300


def test_text_that_begins_like_a_data_url_stays_text() -> None:
    given = messages({"type": "text", "text": "data: 1, 2, 3" + ", 4" * 500}, image("https://example.com/a.png"))
    assert measure(given).text_bytes == len(given)


def test_plain_messages() -> None:
    given = b'[{"role":"user","content":"Hi"}]'
    assert measure(given) == (len(given), 0, ())


def test_members_named_data_that_are_no_strings() -> None:
    given = messages(image("https://example.com/a.png"), {"type": "x", "data": 1}, {"type": "x", "data": [2]})
    assert measure(given).text_bytes == len(given)
