"""The lines of a journal: what a row becomes, and how it is read again. Each is JSON.

    [["<id>","<call>",at,input,…],["f","<caller>","<route>",…]]    an attempt
    ["c","<id>",at,…]                                               a call

An attempt has two parts: what is its own, and what it shares with many others, by their text. So a database takes in
together those that share theirs, and looks at that once. It may also stand flat, like a call; that is read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from keyturn.errors import RowsRefused

from .ledger import AttemptRow, CallRow

FLAT = (b'["i"', b'["f"')
BEGUN = b'],["i",'
"""In the line of an attempt that is not over. The quotes of a text are escaped, so that it is in no other."""
BETWEEN = b"],["
"""What the two parts meet with. It is in no id, so that where it comes first it is that."""


OWN = tuple("id call at input output charged cost ms first_token_ms cached written reasoning".split())
SHARED = tuple("kind caller route role provider model key fingerprint tier resend meaning status exact detail".split())
"""The members of an `AttemptRow` in the two parts of its line, in order."""

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
_owns, _shareds = msgspec.json.Decoder(list[_own]), msgspec.json.Decoder(_shared)  # type: ignore[valid-type]


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


def told_apart(lines: Iterable[bytes]) -> tuple[dict[bytes, list[bytes]], list[bytes]]:
    """The attempts, by the second part of their lines, which they share: the first part of each, without the bracket
    before it. And the calls. Of an attempt that is over only its end. Raises RowsRefused when a line is neither."""
    calls: list[bytes] = []
    attempts: dict[bytes, bytes] = {}
    for line in lines:
        if line[1:2] != b"[":  # not as attempts are written now
            if line.startswith(b'["c"'):
                calls.append(line)
                continue
            line = in_two_parts(line)
        id = line[2 : line.find(b",")]
        known = attempts.get(id)
        if known is None or BEGUN in known:
            attempts[id] = line
    together: dict[bytes, list[bytes]] = {}
    for line in attempts.values():
        end = line.find(BETWEEN)
        own, shared = line[1:end], line[end + len(BETWEEN) :]
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


def own_values(owns: Sequence[bytes]) -> list[tuple[object, ...]]:
    """The values of first parts of lines, as `told_apart` gives them. Raises RowsRefused."""
    try:
        return cast("list[tuple[object, ...]]", _owns.decode(b"[%b]]" % b"],".join(owns)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error


def shared_values(shared: bytes) -> list[object]:
    """The values of the second part of a line, as `told_apart` gives it, with the state of the attempt in the place of
    its kind. Raises RowsRefused."""
    try:
        kind, *values = cast("tuple[object, ...]", _shareds.decode(b"[" + shared.rstrip()[:-1]))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RowsRefused(f"a line of the journal is no row ({error})") from error
    return ["final" if kind == "f" else "open", *values]


def _parts(row: AttemptRow) -> list[list[object]]:
    return [[getattr(row, name) for name in OWN], [getattr(row, name) for name in SHARED]]


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
