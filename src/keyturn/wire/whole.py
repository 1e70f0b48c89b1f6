"""Whether what was held back is whole JSON: the arguments of calls, and an answer that was to be JSON."""

from __future__ import annotations

from collections.abc import Sequence

from keyturn.core import Call, Origin, Shape, TextDelta, ToolDelta, ToolStarted
from keyturn.errors import KeyturnError

from .bridge import dialect
from .jsontext import loose
from .told import elements

LARGEST_REQUEST = 512 * 1024
"""Bytes of a request that is read once more to learn what its answer had to have."""


def faults_of(call: Call, held: Sequence[bytes], *, shaped: bool) -> list[str]:
    """What is not whole in *held*, the last events of an answer to *call*; *shaped*: its text had to be JSON."""
    reader = dialect(call.dialect).reader
    assert reader is not None
    reading, found = reader(Origin("", "", "")), []
    texts: list[str] = []
    calls: dict[int, tuple[str, list[str]]] = {}
    for event in held:
        rows = [b"data: " + each + b"\n\n" for each in elements(event)] if call.form == "array" else [event]
        for row in rows:
            for delta in reading.feed(row):
                if isinstance(delta, TextDelta) and not delta.choice:
                    texts.append(delta.text)
                elif isinstance(delta, ToolStarted) and not (delta.choice or delta.free):
                    calls[delta.index] = (delta.name, [])
                elif isinstance(delta, ToolDelta) and not delta.choice and delta.index in calls:
                    calls[delta.index][1].append(delta.arguments)
    for name, parts in calls.values():
        if (arguments := "".join(parts)) and not isinstance(loose(arguments.encode("utf-8", "replace")), dict):
            found.append(f"the arguments of {name} are no JSON object")
    if shaped and texts:
        found += _faults_of_text("".join(texts), call)
    return found


def _faults_of_text(text: str, call: Call) -> list[str]:
    answer = loose(text.encode("utf-8", "replace"))
    if answer is None and text.strip() != "null":
        return ["the text is no JSON"]
    try:
        shape = dialect(call.dialect).read_request(call).shape if call.size <= LARGEST_REQUEST else None
    except KeyturnError:  # an upstream took it all the same: what it had to have is not known
        shape = None
    missing = [name for name in _required(shape) if not isinstance(answer, dict) or name not in answer]
    return [f"the JSON lacks {', '.join(missing)}"] if missing else []


def _required(shape: Shape | None) -> list[str]:
    schema = loose(shape.schema) if shape is not None and shape.schema else None
    required = schema.get("required") if isinstance(schema, dict) else None
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
