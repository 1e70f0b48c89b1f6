"""When a tool says that its limit ends."""

from __future__ import annotations

from datetime import datetime

import pytest

from keyturn.providers.cli_moments import seconds_until_stated

NOW = datetime.fromisoformat("2026-11-21T05:30:20+00:00").timestamp()
"""A Saturday."""


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("You’ve hit your usage limit. Upgrade to Pro or try again at 6:35 AM.", "2026-11-21T06:35:00+00:00"),
        ("or try again at 12:05 AM.", "2026-11-22T00:05:00+00:00"),
        ("or try again at 12:05 PM.", "2026-11-21T12:05:00+00:00"),
        ("or try again at 5:30 AM.", "2026-11-21T05:31:00+00:00"),
        ("or try again at 5:29 AM.", "2026-11-22T05:29:00+00:00"),
        ("try again at Nov 22nd, 2026 6:35 AM.", "2026-11-22T06:35:00+00:00"),
        ("Try again at Dec 3rd 6:35 PM.", "2026-12-03T18:35:00+00:00"),
        ("You've hit your session limit · resets 3pm (America/New_York)", "2026-11-21T20:00:00+00:00"),
        ("You've hit your weekly limit · resets Mon 12:00am", "2026-11-23T00:00:00+00:00"),
        ("weekly limit · resets Saturday 5:00 AM (UTC)", "2026-11-28T05:00:00+00:00"),
        ("limit reached ∙ resets Nov 25 at 3pm", "2026-11-25T15:00:00+00:00"),
        ("limit reached ∙ resets at 15:45", "2026-11-21T15:45:00+00:00"),
        ("limit reached ∙ resets 3pm (Nowhere/Atlantis)", "2026-11-21T15:00:00+00:00"),
        ("Claude AI usage limit reached|1795300000", "2026-11-21T22:26:40+00:00"),
        ("Try again later.", None),
        ("try again at 25:00 AM", None),
        ("try again at 13:00 PM", None),
        ("try again at Feb 30th, 2027 6:35 AM", None),
        ("try again at Nov 1st, 2026 6:35 AM", None),
        ("Try again at Jan 3rd, 2027 6:35 PM.", None),
        ("try again at 0000", None),
        ("resets 3", None),
        ("usage limit reached|9999999999", None),
        ("", None),
    ],
)
def test_a_stated_moment(text: str, moment: str | None) -> None:
    expected = None if moment is None else datetime.fromisoformat(moment).timestamp() - NOW
    assert seconds_until_stated(text, NOW) == expected
    assert seconds_until_stated(text.upper(), NOW) == expected or "(" in text


def test_over_the_end_of_a_year() -> None:
    now = datetime.fromisoformat("2026-12-31T23:50:00+00:00").timestamp()
    assert seconds_until_stated("try again at Jan 2nd 6:00 AM", now) == 30 * 3600 + 600
    assert seconds_until_stated("try again at 12:10 AM", now) == 20 * 60


def test_long_texts_cost_little() -> None:
    assert seconds_until_stated("again at " * 1_000_000, NOW) is None
    assert seconds_until_stated("resets " + "mon " * 1_000_000, NOW) is None
