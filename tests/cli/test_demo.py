"""`keyturn demo`: the story that it promises, told on virtual time."""

from __future__ import annotations

import io
import re

from rich.console import Console

from keyturn.cli.demo import tell
from tests.support import virtual


def test_the_story_is_short_and_every_call_is_answered() -> None:
    told = io.StringIO()

    async def main() -> float:
        clock = virtual.VirtualClock()
        began = clock.mono()
        await tell(Console(file=told, width=120, emoji=False), clock, virtual.seeded(1))
        return clock.mono() - began

    assert virtual.run(main) < 20
    story = told.getvalue()
    assert "26 of 26 calls were answered" in story
    for happened in ("groq-1 ok", "groq-2 ok", "groq-3 ok", "groq-2 rate_limited → ", "overloaded → together-1 ok"):
        assert happened in story
    assert story.count("groq-4 invalid_key") == 1
    assert re.search(r"groq-4:[0-9a-f]{6} rests for 2[45] h: invalid_key", story)
    assert story.rindex("behind: groq-") > story.rindex("behind: together-")
    attempts, requests, lists = (
        int(found[1])
        for pattern in (
            r"│ all +│ +│ +([0-9]+) │",
            r"counted ([0-9]+) requests",
            r"([0-9]+) of them for lists of models",
        )
        if (found := re.search(pattern, " ".join(story.split()))) is not None
    )
    assert attempts + lists == requests
    assert "What the client saw" in story
    assert "What happened behind" in story
