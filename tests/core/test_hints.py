"""Durations, dates and delays, as providers write them."""

from __future__ import annotations

import pytest

from keyturn.core.hints import delay_in, duration, http_date, iso_date, number, reset, retry_after, sane, to_midnight

NOW = 1741132216.0  # Tue, 04 Mar 2025 23:50:16 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("2m59.56s", 179.56),
        ("26ms", 0.026),
        ("1h2m3s", 3723.0),
        ("6m 11.52s", 371.52),
        ("34.07s", 34.07),
        ("156h14m36.7s", 562476.7),
        ("900ms", 0.9),
        ("17.399999999s", 17.399999999),
        ("1d 2h 3m 4s", 93784.0),
        ("2 hours", 7200.0),
        ("5 days, 3 hours and 2 minutes", 442920.0),
        ("0s", 0.0),
        ("59", 59.0),
        (" 12.5 ", 12.5),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("1e5", None),
        ("-", None),
        ("²s", None),
    ],
)
def test_ERR_13_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["inf", "0x10", "1_000", "+5", "1e3", "٣", ".", "9" * 30, "1.2.3"])
def test_a_number_is_plain_decimal(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("please try again in 1.4s. visit us", 1.4),
        ("please try again in 7m12s.", 432.0),
        ("please try again in 202ms.", 0.202),
        ("please wait 25 seconds before retrying.", 25.0),
        ("please retry after 86400 seconds.", 86400.0),
        ("please retry in 38.662417882s.", 38.662417882),
        ("your quota will reset after 156h14m36s", 562476.0),
        ("resets in: 45s.", 45.0),
        ("5-hour usage limit reached. resets in 4hr 10min. more", 15000.0),
        ("please wait and try again later", None),
        ("try again in a minute", None),
        ("you will regain access on 2025-03-06 at 00:00 utc.", 86984.0),
        ("you will regain access on 2025-03-06", 86984.0),
        ("rate limited until 2025-03-05t00:00:16z, sorry", 600.0),
        ("resets at 2025-03-06 10:00:00.", None),  # a time of day without a zone tells no moment
        ("you will regain access on 2020-01-01", None),
        ("quota will be replenished in 12:33:01.", 45181.0),
        ("try again in 00:00:59", 59.0),
        ("try again after 12:30:00", None),
        ("retry in 1:2:3", None),
        ("try again in 2026:11:21:10", None),
    ],
)
def test_ERR_12_delays_in_sentences(text: str, seconds: float | None) -> None:
    assert delay_in(text, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds", "epoch_ms"),
    [
        ("1s", 1.0, None),
        ("33011.382867", 33011.382867, None),
        ("17.399999999s", 17.4, None),
        ("2025-03-04T23:50:57Z", 41.0, None),
        ("2025-03-04T23:50:13Z", 0.0, None),
        ("1741132276", 60.0, None),
        ("1741132276000", None, 1741132276000),
        ("Tue, 04 Mar 2025 23:50:46 GMT", 30.0, None),
        ("n/a", None, None),
        ("-5", 0.0, None),
    ],
)
def test_resets(text: str, seconds: float | None, epoch_ms: int | None) -> None:
    assert reset(text, NOW) == (seconds, epoch_ms)


def test_bare_numbers_in_milliseconds() -> None:
    assert reset("500", NOW, "ms") == (0.5, None)
    assert reset("2s", NOW, "ms") == (2.0, None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after": "Tue, 04 Mar 2025 23:50:46 GMT"}, 30.0),
        ({"retry-after": "Tue, 04 Mar 2025 23:50:10 GMT"}, None),
        ({"retry-after": "2025-03-04T23:51:16Z"}, 60.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    "text", ["Tue, 04 Mar 2025 23:50:16 GMT", "Tue, 04-Mar-2025 23:50:16 GMT", "Tuesday, 04-Mar-25 23:50:16 GMT"]
)
def test_http_dates(text: str) -> None:
    assert http_date(text) == NOW


@pytest.mark.parametrize(
    "text", ["", "Tue", "Tue, 99 Mar 2025 23:50:16 GMT", "Tue, 04 Foo 2025 23:50:16 GMT", "a b mar c d:e:f"]
)
def test_no_http_dates(text: str) -> None:
    assert http_date(text) is None


def test_iso_dates() -> None:
    assert iso_date("2025-03-04T23:50:16Z") == NOW
    assert iso_date("2025-03-05T00:50:16+01:00") == NOW
    assert iso_date("2025-03-04T23:50:16") is None
    assert iso_date("yesterday") is None


def test_midnights() -> None:
    assert to_midnight("UTC", NOW) == 584.0
    assert to_midnight("America/Los_Angeles", NOW) == 8 * 3600 + 584.0
    assert to_midnight("No/Such", NOW) is None
    assert to_midnight("UTC", float("nan")) is None


def test_sane() -> None:
    assert sane(5.0) == 5.0
    assert [sane(value) for value in (None, 0.0, -1.0, float("nan"), float("inf"), 33 * 86400.0)] == [None] * 6
    assert sane(700.0, most=600.0) is None
