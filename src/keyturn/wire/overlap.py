"""Where an answer goes on elsewhere: what the second model says once more of the first one's text is left out."""

from __future__ import annotations

LONGEST = 240
"""Characters before the seam that are looked through for words said again."""
LEAST = 12
"""Characters that are taken for words said again; fewer are as likely the next ones."""
SHORTEST = 3
"""Characters of a whole text that, said again, are not meant twice."""
ANEW = 32
"""Characters of the very beginning that, said again, show that the model did not go on but began anew."""


class Overlap:
    """Reads the beginning of the rest of a text, piece by piece, and lets through what is new.

    *before* ends with *blank*, white space that the second model was not shown: it may say it again. Beside that, what
    is left out are the last words before the seam, exactly as they were, from the beginning of a word; but not where
    the text before says them twice in a row, since then they may be meant a third time. Nothing is held back longer
    than some words may still turn out to be such. `anew` tells that the model began its answer from the start.
    """

    __slots__ = ("_before", "_held", "_over", "_places", "anew")

    def __init__(self, before: str, blank: str = "") -> None:
        self._before = before
        self._held = ""
        self._over = not before
        self.anew = False
        size = len(before)
        words = range(max(1, size - LONGEST), size - LEAST + 1)
        places = {at for at in words if self._may_begin(at) and not self._is_repeated(at)}
        places.update(range(size - len(blank), size))
        if size >= SHORTEST:
            places.add(0)
        self._places = sorted(places)
        """Where in *before* the words that are said again may begin."""

    def _may_begin(self, at: int) -> bool:
        return self._before[at - 1].isspace() and not self._before[at].isspace()

    def _is_repeated(self, at: int) -> bool:
        """Whether what stands from *at* to the end stands right before that too."""
        tail = self._before[at:]
        return self._before[:at].rstrip().endswith(tail.rstrip())

    def feed(self, text: str) -> str:
        """What is new of *text*, the next piece; empty while that is not known yet."""
        if self._over:
            return "" if self.anew else text
        self._held += text
        held, before = self._held, self._before
        if 0 in self._places:
            self.anew = self._begins_anew(held)
        self._places = [at for at in self._places if _agree(before, at, held)]
        open_places = [at for at in self._places if len(before) - at > len(held)]
        return "" if open_places and not self.anew else self.end()

    def _begins_anew(self, held: str) -> bool:
        """Whether *held* is the beginning of the text, and is or may become more than can be left out."""
        before = self._before
        same = next((at for at, (one, other) in enumerate(zip(before, held, strict=False)) if one != other), None)
        if same is None:
            return len(held) >= ANEW and len(before) > LONGEST
        return same >= ANEW

    def end(self) -> str:
        """No more comes: what is new of what was held back."""
        self._over = True
        held, before = self._held, self._before
        self._held = ""
        said = max((len(before) - at for at in self._places if len(before) - at <= len(held)), default=0)
        return "" if self.anew else held[said:]


def _agree(before: str, at: int, held: str) -> bool:
    """Whether what is *held* and what stands from *at* are the same, as far as both go."""
    size = min(len(before) - at, len(held))
    return before[at : at + size] == held[:size]
