"""The lines of a journal: what a row becomes, and how it is read again. Each is JSON.

    ["n",7,["f","<caller>","<route>",…]]                            what many attempts share, and its number
    [["<id>","<call>",at,input,…],7]                                an attempt
    [["<id>","<call>",at,input,…],["f","<caller>","<route>",…]]     the same, whole
    ["c","<id>",at,…]                                               a call

An attempt has two parts: what is its own, and what it shares with many others. That is written out once in each part
of a file, before its number is used there: most of what a line would hold is in all of its neighbours. So a database
takes in together those that share theirs, and looks at that once. An attempt may also stand flat, like a call; that is
read as well.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from itertools import count
from typing import Any, cast

import msgspec

from keyturn.errors import RowsRefused

from .ledger import AttemptRow, CallRow

FLAT = (b'["i"', b'["f"')
TOLD = b'["n"'
"""The beginning of a line that tells what many share."""

ID = 48
"""Bytes of the line of an attempt that are like in no other attempt: its id, as `new_id` makes it, is among them."""

OWN = tuple("id call at input output charged cost ms first_token_ms cached written reasoning".split())
SHARED = tuple("kind caller route role provider model key fingerprint tier resend meaning status exact detail".split())
"""The members of an `AttemptRow` in the two parts of its line, in order."""

Own = tuple[Any, ...]
"""The values of a first part."""
Names = MutableMapping[bytes, bytes]
"""What the lines of one file share: number -> second part, as they stand there."""

_types = {field.name: field.type for field in msgspec.structs.fields(AttemptRow)}
_Own, _Shared = (
    msgspec.defstruct(name, [(each, _types[each]) for each in part], array_like=True, forbid_unknown_fields=True)
    for name, part in (("_Own", OWN), ("_Shared", SHARED))
)

_encoder = msgspec.json.Encoder()
_pairs = msgspec.json.Decoder(tuple[_Own, _Shared])  # type: ignore[valid-type]
_numbered = msgspec.json.Decoder(tuple[_Own, int])  # type: ignore[valid-type]
_told = msgspec.json.Decoder(tuple[str, msgspec.Raw, msgspec.Raw])
_halves = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw])
_flat = msgspec.json.Decoder(AttemptRow)
_calls = msgspec.json.Decoder(CallRow)
_own, _shared = (tuple[tuple(_types[each] for each in part)] for part in (OWN, SHARED))  # type: ignore[misc]
_many = msgspec.json.Decoder(list[tuple[_own, msgspec.Raw]])  # type: ignore[valid-type]
_shareds = msgspec.json.Decoder(_shared)
_numbers = count(1)


class Shared:
    """The second part of the lines of many attempts: `text`, JSON."""

    __slots__ = ("number", "text", "told_in")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.number = msgspec.Raw(b"%d" % next(_numbers))
        """What stands in its place; no other in this process has it."""
        self.told_in: object = None
        """The part of a file that it was last written out in."""

    def told(self) -> bytes:
        """The line that writes it out."""
        return b"%b,%b,%b]\n" % (TOLD, self.number, self.text)

    def whole(self, line: bytes | bytearray) -> bytes:
        """*line*, which has the number, so that it says all by itself."""
        return bytes(line[: -len(bytes(self.number)) - 2]) + self.text + b"]\n"


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
    """The attempt that *line*, which is whole, tells. Raises msgspec.DecodeError when it tells none."""
    if not line.startswith(b"[["):
        return _flat.decode(line)
    own, shared = _pairs.decode(line)
    return AttemptRow(**msgspec.structs.asdict(own), **msgspec.structs.asdict(shared))


def sifted(lines: Sequence[bytes], names: Names) -> list[bytes]:
    """Those of *lines* that were written to their end, and whose number, if they have one, is known. *names* of their
    file are added to."""
    return [line for line in lines if _is_row(line, names)]


def _is_row(line: bytes, names: Names) -> bool:
    try:
        if line.startswith(TOLD):
            _learn(line, names)
        elif line.startswith(b'["c"'):
            _calls.decode(line)
        elif line.startswith(b"[[") and not line.rstrip().endswith(b"]]"):
            return b"%d" % _numbered.decode(line)[1] in names
        else:
            attempt_of(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RowsRefused):
        return False
    return True


def told_apart(lines: Sequence[bytes], names: Names) -> tuple[dict[bytes, list[Own]], list[bytes]]:
    """The attempts, by what they share with each other (or its number): the values of the first part of each. And the
    calls. Of an attempt that is over mostly only its end, which follows its beginning. *names* of their file are added
    to. Raises RowsRefused when a line is nothing of that."""
    latest = {line[:ID]: line for line in lines}
    attempts = [line for line in latest.values() if line.startswith(b"[[")]
    calls: list[bytes] = []
    if len(attempts) < len(latest):
        for line in lines:
            if line.startswith(b'["c"'):
                calls.append(line)
            elif line.startswith(TOLD):
                _learn(line, names)
            elif not line.startswith(b"[["):
                attempts.append(_in_two_parts(line))
    try:
        pairs = cast("list[tuple[Own, msgspec.Raw]]", _many.decode(b"[%b]" % b",".join(attempts)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_row(error) from error
    together: dict[bytes, list[Own]] = {}
    for own, raw in pairs:
        shared = bytes(raw)
        if shared in together:
            together[shared].append(own)
        else:
            together[shared] = [own]
    return together, calls


def in_full(lines: Sequence[bytes], names: Names) -> list[bytes]:
    """The attempts and calls among *lines*, each of which says all by itself, attempts in two parts. *names* of their
    file are added to. Raises RowsRefused."""
    full: list[bytes] = []
    for line in lines:
        if line.startswith(TOLD):
            _learn(line, names)
        elif line.startswith(FLAT):
            full.append(_in_two_parts(line))
        elif line.startswith(b"[[") and not line.rstrip().endswith(b"]]"):
            try:
                own, number = _halves.decode(line)
                full.append(b"[%b,%b]" % (own, names[bytes(number)]))
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
                raise _no_row(error) from error
        else:
            full.append(line)
    return full


def _learn(line: bytes, names: Names) -> None:
    try:
        _, number, text = _told.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_row(error) from error
    names[bytes(number)] = bytes(text)


def _in_two_parts(line: bytes) -> bytes:
    try:
        return line_of(_flat.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_row(error) from error


def _no_row(error: Exception) -> RowsRefused:
    return RowsRefused(f"a line of the journal is no row ({error})")


def shared_values(shared: bytes, names: Mapping[bytes, bytes]) -> list[object]:
    """The values of the second part of a line, as `told_apart` gives it, with the state of the attempt in the place of
    its kind. Raises RowsRefused."""
    try:
        kind, *values = cast("tuple[object, ...]", _shareds.decode(names.get(shared, shared)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_row(error) from error
    return ["final" if kind == "f" else "open", *values]


def _parts(row: AttemptRow) -> list[list[object]]:
    return [[getattr(row, name) for name in OWN], [getattr(row, name) for name in SHARED]]


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
