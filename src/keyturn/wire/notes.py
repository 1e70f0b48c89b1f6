"""What a translation left out, told to the client: each loss once, and not without end."""

from __future__ import annotations

_MOST = 200
_MORE = "left out more than is told here"


def note(notes: list[str], text: str) -> None:
    """Add *text* to *notes*. Of more than `_MOST`, which only a request made for that has, the rest is one note."""
    if len(notes) > _MOST or text in notes:
        return
    notes.append(text if len(notes) < _MOST else _MORE)
