"""The lines of a journal: what a row becomes, and how it is read again. Each is JSON.

    [["<id>","<call>",at,input,…],["f","<caller>","<route>",…]]    an attempt
    ["c","<id>",at,…]                                               a call

An attempt has two parts: what is its own, and what it shares with many others, by their text. So a database takes in
together those that share theirs, and looks at that once. It may also stand flat, like a call; that is read as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from keyturn.errors import RowsRefused

from .ledger import AttemptRow, CallRow

FLAT = (b'["i"', b'["f"')

ID = 48
"""Bytes of the line of an attempt that are like in no other attempt: its id, as `new_id` makes it, is among them."""

OWN = tuple("id call at input output charged cost ms first_token_ms cached written reasoning".split())
SHARED = tuple("kind caller route role provider model key fingerprint tier resend meaning status exact detail".split())
"""The members of an `AttemptRow` in the two parts of its line, in order."""

Own = tuple[Any, ...]
"""The values of a first part."""

_types = {field.name: field.type for field in msgspec.structs.fields(AttemptRow)}
_Own, _Shared = (
    msgspec.defstruct(name, [(each, _types[each]) for each in part], array_like=True, forbid_unknown_fields=True)
    for name, part in (("_Own", OWN), ("_Shared", SHARED))
)

_encoder = msgspec.json.Encoder()
_pairs = msgspec.json.Decoder(tuple[_Own, _Shared])  # type: ignore[valid-type]
_flat = msgspec.json.Decoder(AttemptRow)
_calls = msgspec.json.Decoder(CallRow)
_own, _shared = (tuple[tuple(_types[each] for each in part)] for part in (OWN, SHARED))  # type: ignore[misc]
_many = msgspec.json.Decoder(list[tuple[_own, msgspec.Raw]])  # type: ignore[valid-type]
_shareds = msgspec.json.Decoder(_shared)


def line_of(row: AttemptRow | CallRow | bytes) -> bytes:
    """*row* as it stands in a journal, with its newline; one that is a line already stays as it is."""
    if isinstance(row, bytes):
        return row
    parts = _parts(row) if isinstance(row, AttemptRow) else [getattr(row, name) for name in row.__struct_fields__]
    try:
        return _encoder.encode(parts) + b"\n"
    except UnicodeEncodeError:  # half of a character, from a client or an upstream
        return _encoder.encode(_plain(parts)) + b"\n"


def attempt_of(line: bytes) -> AttemptRow:
    """The attempt that *line* tells. Raises msgspec.DecodeError when it tells none."""
    if not line.startswith(b"[["):
        return _flat.decode(line)
    own, shared = _pairs.decode(line)
    return AttemptRow(**msgspec.structs.asdict(own), **msgspec.structs.asdict(shared))


def is_row(line: bytes) -> bool:
    """Whether *line* is whole."""
    try:
        _calls.decode(line) if line.startswith(b'["c"') else attempt_of(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def told_apart(lines: Sequence[bytes]) -> tuple[dict[bytes, list[Own]], list[bytes]]:
    """The attempts, by the second part of their lines, which they share: the values of the first part of each. And the
    calls. Of an attempt that is over mostly only its end, which follows its beginning. Raises RowsRefused when a line
    is neither."""
    attempts = {line[:ID]: line for line in lines if line.startswith(b"[[")}
    others = [line for line in lines if not line.startswith(b"[[")]
    calls = [line for line in others if line.startswith(b'["c"')]
    flat = [in_two_parts(line) for line in others if not line.startswith(b'["c"')]
    try:
        pairs = cast("list[tuple[Own, msgspec.Raw]]", _many.decode(b"[%b]" % b",".join([*attempts.values(), *flat])))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error
    together: dict[bytes, list[Own]] = {}
    for own, raw in pairs:
        shared = bytes(raw)
        if shared in together:
            together[shared].append(own)
        else:
            together[shared] = [own]
    return together, calls


def in_two_parts(line: bytes) -> bytes:
    """*line*, or that of the same attempt if it stands flat. Raises RowsRefused."""
    if not line.startswith(FLAT):
        return line
    try:
        return line_of(_flat.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error


def shared_values(shared: bytes) -> list[object]:
    """The values of the second part of a line, as `told_apart` gives it, with the state of the attempt in the place of
    its kind. Raises RowsRefused."""
    try:
        kind, *values = cast("tuple[object, ...]", _shareds.decode(shared))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error
    return ["final" if kind == "f" else "open", *values]


def _parts(row: AttemptRow) -> list[list[object]]:
    return [[getattr(row, name) for name in OWN], [getattr(row, name) for name in SHARED]]


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
