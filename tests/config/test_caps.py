"""Custom caps: how they are written, printed, and refused with a word about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyturn.config import Cap, Rest, load
from keyturn.config.caps import METRICS, WINDOWS, WORDS, Amount, BadCap, CapBound, parse_caps, seconds_of
from keyturn.errors import ConfigError

from .files import loaded, problems_of

NOWHERE = Path("/nonexistent")
KEYS = {"GEMINI_API_KEY_1": "first-key", "GEMINI_API_KEY_2": "second-key"}

amounts = st.one_of(
    st.integers(1, 10**9).map(lambda number: Amount("exact", number)),
    st.integers(1, 100).map(lambda number: Amount("share", number)),
    st.integers(-(10**6), 10**6).filter(bool).map(lambda number: Amount("shift", number)),
)
bounds = st.builds(CapBound, st.sampled_from(METRICS), st.sampled_from(WINDOWS), amounts)
rests = st.one_of(st.just(Rest()), st.builds(Rest, st.booleans(), st.integers(1, 10**6)))
models = st.from_regex(r"[A-Za-z0-9*?][A-Za-z0-9*?./:=_-]{0,20}\Z", fullmatch=True)
caps = st.builds(
    Cap,
    st.lists(models, min_size=1, max_size=3).map(tuple),
    st.lists(st.integers(1, 99), max_size=3).map(tuple),
    st.lists(bounds, min_size=1, max_size=4, unique_by=lambda bound: bound[:2]).map(tuple),
    rests,
)


@given(st.lists(caps, max_size=4))
def test_LIM_12_what_is_printed_is_read_as_it_was(written: list[Cap]) -> None:
    assert list(parse_caps("; ".join(map(str, written)))) == written


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from([*(f"{each}=1/day" for each in WORDS), ";", "="]))))
@example("requests=100/day")
@example("model= requests=1/day")
def test_LIM_12_any_text_is_read_or_refused_by_the_word(text: str | list[str]) -> None:
    line = text if isinstance(text, str) else " ".join(text)
    refused: BadCap | None = None
    try:
        found = parse_caps(line)
    except BadCap as bad:
        refused = bad
    if refused is None:
        assert all(cap.bounds for cap in found)
    else:
        assert refused.word
        assert " ".join(refused.word.split()) in " ".join(line.split())
        assert refused.said


def test_CFG_39_the_whole_grammar() -> None:
    first, second = parse_caps(
        "model=gemini-2.5-flash*,x priority=2,3 requests=1_000/day cooldown=1h; tokens=80%/minute"
    )
    assert first == Cap(
        ("gemini-2.5-flash*", "x"), (2, 3), (CapBound("requests", "day", Amount("exact", 1000)),), Rest(False, 3600)
    )
    assert second == Cap(bounds=(CapBound("tokens", "minute", Amount("share", 80)),))
    assert str(first) == "model=gemini-2.5-flash*,x priority=2,3 requests=1000/day cooldown=1h"


@pytest.mark.parametrize(
    ("text", "known", "capacity"),
    [
        ("100", None, 100),
        ("100", 7, 100),
        ("80%", 250, 200),
        ("80%", None, None),
        ("-10", 250, 240),
        ("+10", 250, 260),
        ("-300", 250, 1),
        ("1%", 5, 1),
    ],
)
def test_CFG_39_amounts(text: str, known: int | None, capacity: int | None) -> None:
    (cap,) = parse_caps(f"requests={text}/day")
    assert cap.bounds[0].amount.of(known) == capacity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("7d", 604800), ("0", None), ("1w", None), ("", None)],
)
def test_lengths(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "requets=1/day",
            "'requets=1/day' is not one of model=, priority=, requests=, tokens=, cooldown= (did you mean",
        ),
        ("requests=100", "needs a window of second, minute, hour, day, month: requests=100/day"),
        ("requests=0/day", "has no amount like 100, 80%, -10 or +10"),
        ("tokens=120%/day", "more than 100% of a limit"),
        ("requests=1/day requests=2/day", "bounds the requests of one day a second time"),
        ("priority=0 requests=1/day", "needs key priorities from 1 to 99"),
        ("model=a", "bounds nothing; add requests=100/day"),
        ("requests=1/day cooldown=soon", "is no length like cooldown=reset, cooldown=30m"),
        ("requests=1/day cooldown=1h+reset", "is no length like"),
        ("model=a model=b requests=1/day", "is a second model=; separate the values by commas"),
    ],
)
def test_LIM_12_mistakes_are_named(text: str, told: str) -> None:
    (problem,) = problems_of_cap(text)
    assert told in problem
    assert problem.startswith("CUSTOM_CAP_GEMINI: ")


def problems_of_cap(text: str, **more: str) -> list[str]:
    return problems_of_env(CUSTOM_CAP_GEMINI=text, **more)


def problems_of_env(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(KEYS | environ, cwd=NOWHERE)
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("CUSTOM_CAP_GEMINI_T2_PRO", "100", 'CUSTOM_CAP_GEMINI="model=pro priority=2 requests=100/day"'),
        ("CUSTOM_CAP_GOOGLE_AI_STUDIO_TDEFAULT_PRO", "-5", 'CUSTOM_CAP_GOOGLE_AI_STUDIO="model=pro requests=-5/day"'),
        ("CUSTOM_CAP_GEMINI_T2_25_FLASH", "80%", 'CUSTOM_CAP_GEMINI="model=25-flash priority=2 requests=80%/day"'),
        ("CUSTOM_CAP_COOLDOWN_GEMINI_T2_PRO", "offset:1h", "of CUSTOM_CAP_GEMINI: cooldown=reset+1h"),
        ("CUSTOM_CAP_COOLDOWN_GEMINI_T2_PRO", "fixed:1800", "cooldown=1800s"),
        ("CUSTOM_CAP_COOLDOWN_GEMINI_T2_PRO", "quota_reset", "cooldown=reset"),
    ],
)
def test_CFG_39_the_older_forms_are_refused_with_the_line_to_write(name: str, value: str, line: str) -> None:
    (problem,) = problems_of_env(**{name: value})
    assert "older form" in problem
    assert line in problem
    if name.endswith("25_FLASH"):
        assert "or priority=2,25 model=flash" in problem
    inside = line.partition('"')[2].rstrip('"')
    assert not inside or load(KEYS | {"CUSTOM_CAP_GEMINI": inside}, cwd=NOWHERE).modes.caps["gemini"]


def test_LIM_12_the_variable_wins_over_the_file(tmp_path: Path) -> None:
    models = """
        providers:
          google_ai_studio: { kind: http, caps: ["requests=5/day", "model=pro* tokens=50%/minute cooldown=reset+5m"] }
    """
    filed = loaded(tmp_path, KEYS, models=models).modes.caps["gemini"]
    assert [str(each) for each in filed] == ["requests=5/day", "model=pro* tokens=50%/minute cooldown=reset+5m"]
    said = loaded(tmp_path, KEYS | {"CUSTOM_CAP_GOOGLE": "requests=9/day"}, models=models).modes.caps["gemini"]
    assert [str(each) for each in said] == ["requests=9/day"]


def test_LIM_12_a_mistake_in_the_file_has_its_line(tmp_path: Path) -> None:
    models = 'providers:\n  groq:\n    kind: http\n    caps:\n      - "requests=5/day"\n      - "requests=5/weak"\n'
    (problem,) = problems_of(tmp_path, {"GROQ_API_KEY": "the-key"}, models=models)
    assert problem.startswith("config/models.yaml:6: 'requests=5/weak' needs a window")


def test_a_key_in_the_wrong_place_is_not_shown() -> None:
    (problem,) = problems_of_cap("gsk_abcdefghijklmnopqrstuvwxyz0123456789abcdef")
    assert "gsk_" not in problem
