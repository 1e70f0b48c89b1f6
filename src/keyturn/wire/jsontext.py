"""JSON as text: an object into raw slices, mistakes with their place, nesting, and lenient reading of upstreams."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

from keyturn.errors import BadRequest

MAX_DEPTH = 200

BOM = b"\xef\xbb\xbf"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder()

_BYTE = re.compile(r"^(?:JSON is malformed: )?(.*?)(?: \(byte (\d+)\))?$", re.S)
_ADVICE = {
    b"'": "JSON strings and names stand in double quotes",
    b"N": "NaN is not JSON; send null or a number",
    b"I": "Infinity is not JSON; send null or a number",
    b"T": "write true in lower case",
    b"F": "write false in lower case",
    b"/": "JSON has no comments",
}

_NOT_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def read_object(body: bytes) -> dict[str, bytes]:
    """The members of the JSON object *body*, each value as the text it was written in; of duplicates the last.

    Raises BadRequest, with the place, for anything that is not one JSON object in
    UTF-8 of at most `MAX_DEPTH` levels.
    """
    body = body.removeprefix(BOM)
    if not body or body.isspace():
        raise BadRequest("The request body is empty. Send a JSON object.")
    try:
        if not body.isascii():
            body.decode()  # slices are passed over unread, so msgspec does not notice broken UTF-8
        members = _object.decode(body)
    except UnicodeDecodeError as error:
        _refuse(body, f"{error.reason} in its UTF-8", error.start, "Encode the body as UTF-8.")
    except msgspec.ValidationError:
        raise BadRequest("The request body must be a JSON object, such as {...}, not another JSON value.") from None
    except msgspec.DecodeError as error:
        _explain(body, str(error))
    except RecursionError:
        raise _too_deep() from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth(body) > MAX_DEPTH:
        raise _too_deep()
    return {name: bytes(value) for name, value in members.items()}


def depth(text: bytes) -> int:
    """How many levels the valid JSON *text* is nested. Linear, without a Python step per byte."""
    marks = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_MARKS)
    # Two neighbouring quotes end and begin, or begin and end, a string: without both, each bracket is still on
    # the same side of an odd or even number of quotes.
    outside = b"".join(marks.replace(b'""', b"").split(b'"')[::2])
    return max(accumulate(memoryview(outside.translate(_STEPS)).cast("b")), default=0)


def loose(text: bytes) -> Any:
    """What *text* holds, or None when it is no JSON. Takes NaN and Infinity, which some upstreams send."""
    try:
        return _any.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def clean(text: str) -> str:
    """*text* without half surrogate pairs, which no UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _explain(body: bytes, reason: str) -> NoReturn:
    match = _BYTE.match(reason)
    what, at = match.groups() if match else (reason, None)
    if at is None:
        raise BadRequest(
            f"The request body is not valid JSON: it ends in the middle of a value, after {len(body)} bytes. "
            "Send it whole; check how it was cut or quoted."
        )
    place = int(at)
    advice = _ADVICE.get(body[place : place + 1], "Build the body with a JSON library")
    if what.startswith("trailing comma"):
        advice = "Remove the comma"
    elif "surrogate" in what or "hex escape" in what:
        advice = "Escape a character above U+FFFF as two \\u escapes, or send it as UTF-8"
    _refuse(body, what, place, advice + ".")


def _refuse(body: bytes, what: str, place: int, advice: str) -> NoReturn:
    line = body.count(b"\n", 0, place) + 1
    column = place - body.rfind(b"\n", 0, place)
    raise BadRequest(
        f"The request body is not valid JSON: {what} at line {line}, column {column} (byte {place}). {advice}"
    )


def _too_deep() -> BadRequest:
    return BadRequest(f"The request body is nested more than {MAX_DEPTH} levels deep. Flatten it.")
