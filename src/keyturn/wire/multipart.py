"""Multipart forms (RFC 7578), as uploads of sound and images come: the text fields read, one field replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from keyturn.errors import BadRequest

_BOUNDARY = re.compile(r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.I)
_NAME = re.compile(rb'^content-disposition:[^\r\n]*?[;\s]name="([^"\r\n]*)"', re.I | re.M)
_FILE = re.compile(rb"^content-disposition:[^\r\n]*?[;\s]filename\*?=", re.I | re.M)
LONGEST_FIELD = 64 * 1024
"""Bytes of a text field that are looked at; a longer one is passed on unread."""
MOST_PARTS = 200


class _Part(NamedTuple):
    """One part: its name, whether it is a file, and where its content begins and ends in the body."""

    name: str
    is_file: bool
    begin: int
    end: int


def read_form(body: bytes, content_type: str) -> dict[str, bytes]:
    """The text fields of a form, each as the JSON text of a string; of fields of one name the last.

    Raises BadRequest for what is no multipart form.
    """
    fields = {}
    for part in _parts(body, content_type):
        if part.is_file and part.name == "model":
            raise BadRequest("`model` must be a text field of the form, not a file.", param="model")
        if not part.is_file and part.end - part.begin <= LONGEST_FIELD:
            fields[part.name] = msgspec.json.encode(body[part.begin : part.end].decode("utf-8", "replace"))
    return fields


def with_field(body: bytes, content_type: str, name: str, value: str) -> bytes:
    """*body* with the text field *name* set to *value*; every other byte as it was."""
    pieces: list[bytes] = []
    at = 0
    for part in _parts(body, content_type):
        if part.name == name and not part.is_file:
            pieces += (body[at : part.begin], value.encode())
            at = part.end
    pieces.append(body[at:])
    return b"".join(pieces)


def _parts(body: bytes, content_type: str) -> Iterator[_Part]:
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise BadRequest(
            "The body must be a form: send `content-type: multipart/form-data; boundary=…`, as the official clients do."
        )
    mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    at = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if at == 1:
        raise BadRequest("The form has no part: its boundary does not occur in the body.")
    for _ in range(MOST_PARTS):
        head = body.find(b"\r\n", at)
        if body.startswith(b"--", at + len(mark)):
            if body[at + len(mark) + 2 :].strip():
                raise BadRequest("The form goes on behind its end. Send nothing after the closing boundary.")
            return
        begin = body.find(b"\r\n\r\n", head)
        end = body.find(b"\r\n" + mark, begin + 2) if begin >= 0 else -1
        if head < 0 or end < 0:
            raise BadRequest("The form ends in the middle of a part. Send it whole.")
        headers = body[head + 2 : begin + 2]
        name = _NAME.search(headers)
        if name is None:
            raise BadRequest("A part of the form has no name: each needs `content-disposition: form-data; name=…`.")
        yield _Part(name[1].decode("utf-8", "replace"), bool(_FILE.search(headers)), begin + 4, max(end, begin + 4))
        at = end + 2
    raise BadRequest(f"The form has more than {MOST_PARTS} parts.")
