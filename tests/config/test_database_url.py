"""`DATABASE_URL`: which addresses of PostgreSQL are taken, and that a mistaken one is not quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from .files import loaded, problems_of

MODELS = "providers:\n  groq:\n"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://keyturn:hush@db.example:5432/keyturn",
        "postgres://db.example/keyturn?sslmode=require",
        "postgresql:///keyturn?host=/run/postgresql",
        "postgresql://keyturn@/keyturn?host=/run/postgresql&port=5433",
        "postgresql://%2Frun%2Fpostgresql/keyturn",
        "postgresql://keyturn:hush@one:5432,two:5432/keyturn?target_session_attrs=primary",
        "postgresql://keyturn@[::1]:5432/keyturn",
    ],
)
def test_an_address_is_kept_as_it_is_written(tmp_path: Path, url: str) -> None:
    kept = loaded(tmp_path, {"DATABASE_URL": url, "GROQ_API_KEY": "gsk_x"}).ledger.database_url
    assert kept is not None
    assert kept.reveal() == url


def test_the_driver_of_another_programs_library_is_left_out(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"DATABASE_URL": "postgresql+psycopg2://u:p@db/app", "GROQ_API_KEY": "gsk_x"})
    assert config.ledger.database_url is not None
    assert config.ledger.database_url.reveal() == "postgresql://u:p@db/app"


@pytest.mark.parametrize(
    "url",
    [
        "hush",
        "https://db/hush",
        "postgresql://",
        "postgresql:///hush",
        "postgresql://u:hush@db:port/app",
        "postgresql://u:hush@db:70000/app",
        "postgresql://u:hush@one:5432,/app",
        "postgresql://u:hush@[::1/app",
    ],
)
def test_a_mistaken_one_is_a_problem_that_does_not_quote_it(tmp_path: Path, url: str) -> None:
    (problem,) = problems_of(tmp_path, {"DATABASE_URL": url, "GROQ_API_KEY": "gsk_x"})
    assert "DATABASE_URL" in problem
    assert "is not an address such as postgresql://" in problem
    assert "hush" not in problem
