from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfoNotFoundError

import pytest

from keyturn.core.windows import GUARD, day_of, month_of, slots_of

HOUR = 3600.0


def instant(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("seconds", "slots", "guard"),
    [(1, 20, 10), (10, 120, 6), (60, 120, 1), (3600, 120, 1), (3 * 3600, 96, 0), (86_400, 96, 0)],
)
def test_slots_of_known_lengths(seconds: float, slots: int, guard: int) -> None:
    assert slots_of(seconds) == (slots, guard)


@pytest.mark.parametrize("seconds", [0.02, 0.3, 1, 2, 5, 7, 10, 15, 30, 45, 60, 90, 600, 3600])
def test_the_guard_slots_cover_the_guard(seconds: float) -> None:
    slots, guard = slots_of(seconds)
    assert guard * seconds / slots >= GUARD - 1e-9
    assert (guard - 1) * seconds / slots < GUARD


@pytest.mark.parametrize(
    ("zone", "moment", "starts", "hours"),
    [
        ("UTC", "2026-03-08T12:00", "2026-03-08T00:00", 24),
        ("America/Los_Angeles", "2026-03-07T12:00", "2026-03-07T08:00", 24),
        ("America/Los_Angeles", "2026-03-08T12:00", "2026-03-08T08:00", 23),  # clocks go forward
        ("America/Los_Angeles", "2026-11-01T12:00", "2026-11-01T07:00", 25),  # and back
        ("America/Los_Angeles", "2026-11-02T07:59", "2026-11-01T07:00", 25),
        ("America/Los_Angeles", "2026-11-02T08:00", "2026-11-02T08:00", 24),
        ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", 23),  # midnight itself is skipped
        ("America/Havana", "2025-11-02T04:30", "2025-11-02T04:00", 25),  # the hour after midnight comes twice
        ("America/Havana", "2025-11-02T05:30", "2025-11-02T04:00", 25),
        ("Asia/Kathmandu", "2026-01-01T00:00", "2025-12-31T18:15", 24),  # year end at an odd offset
        ("UTC", "2028-02-28T23:59", "2028-02-28T00:00", 24),
        ("UTC", "2028-02-29T00:00", "2028-02-29T00:00", 24),  # leap day
        ("America/Los_Angeles", "2028-03-01T07:00", "2028-02-29T08:00", 24),
    ],
)
def test_calendar_days(zone: str, moment: str, starts: str, hours: int) -> None:
    assert day_of(instant(moment), zone) == (instant(starts), instant(starts) + hours * HOUR)


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "America/Havana", "America/Sao_Paulo", "Asia/Beirut"])
def test_the_days_of_years_follow_on_each_other_without_gap(zone: str) -> None:
    begin, moment = instant("2017-01-01T12:00"), instant("2017-01-01T12:00")
    days = 0
    while days < 366 * 9:
        starts, ends = day_of(moment, zone)
        assert starts <= moment < ends
        assert day_of(ends, zone)[0] == ends
        assert day_of(ends - 1e-3, zone) == (starts, ends)
        moment, days = ends, days + 1
    assert moment - begin == pytest.approx(days * 24 * HOUR, abs=24 * HOUR)


@pytest.mark.parametrize(
    ("zone", "moment", "starts", "ends"),
    [
        ("UTC", "2026-01-31T23:59", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("UTC", "2026-02-01T00:00", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),  # leap year
        ("UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),  # year end
        ("Asia/Kathmandu", "2026-12-31T18:15", "2026-12-31T18:15", "2027-01-31T18:15"),  # there it is January
        ("America/Los_Angeles", "2026-03-20T00:00", "2026-03-01T08:00", "2026-04-01T07:00"),  # clocks go forward
        ("America/Los_Angeles", "2026-11-30T00:00", "2026-11-01T07:00", "2026-12-01T08:00"),  # and back on the 1st
        ("America/Havana", "2020-11-01T04:30", "2020-11-01T04:00", "2020-12-01T05:00"),  # its first hour comes twice
        ("America/Asuncion", "2017-10-01T04:00", "2017-10-01T04:00", "2017-11-01T03:00"),  # its midnight is skipped
        ("America/Asuncion", "2017-10-01T03:59", "2017-09-01T04:00", "2017-10-01T04:00"),
    ],
)
def test_calendar_months(zone: str, moment: str, starts: str, ends: str) -> None:
    assert month_of(instant(moment), zone) == (instant(starts), instant(ends))


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "America/Havana", "America/Asuncion", "Asia/Beirut"])
def test_the_months_of_years_follow_on_each_other_without_gap(zone: str) -> None:
    moment = instant("2015-01-15T12:00")
    for _ in range(12 * 12):
        starts, ends = month_of(moment, zone)
        assert starts <= moment < ends
        assert month_of(ends - 1e-3, zone) == (starts, ends)
        assert day_of(starts, zone)[0] == starts
        moment = ends
    assert moment == month_of(instant("2027-01-15T12:00"), zone)[0]


@pytest.mark.parametrize("period_of", [day_of, month_of])
def test_an_unknown_zone_is_an_error(period_of: Callable[[float, str], tuple[float, float]]) -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        period_of(0.0, "Mars/Olympus")
