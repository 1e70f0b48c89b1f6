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
        "postgresql://u:hush",
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


ODD = [
    "u:p@{hush}",
    "u:p@ss/{hush}",
    "u:{hush}/p",
    "u:p/{hush}?x",
    "u:7/{hush}",
    "u:{hush}?p",
    "u:7?a={hush}",
    "u:{hush}#p",
    "u:{hush}]",
]


@pytest.mark.parametrize("login", ODD)
@pytest.mark.parametrize(
    ("variable", "rest"), [("DATABASE_URL", "postgresql://{}@db:7432/app"), ("REDIS_URL", "redis://{}@db:6379/0")]
)
def test_a_login_that_ends_nobody_knows_where_is_to_be_escaped_and_is_not_quoted(
    tmp_path: Path, variable: str, rest: str, login: str
) -> None:
    url = rest.format(login.format(hush="hush"))
    (problem,) = problems_of(tmp_path, {variable: url, "GROQ_API_KEY": "gsk_x"})
    assert problem.startswith(f"{variable}: ")
    assert "write %40 for @, %2F for /, %3F for ?, %23 for #" in problem
    assert not [part for part in ("hush", "db", "ss") if part in problem.replace("password", "").replace("address", "")]


def test_a_login_that_is_escaped_is_taken(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://u:p%40ss%2Fw@db/app", "REDIS_URL": "rediss://:p%40s%23s@db:6379/0"}
    config = loaded(tmp_path, environ | {"GROQ_API_KEY": "gsk_x"})
    assert config.ledger.database_url is not None
    assert config.redis is not None


def test_another_programs_database_is_left_to_it(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"DATABASE_URL": "mysql://u:hush@db/app", "GROQ_API_KEY": "gsk_x"})
    assert config.ledger.database_url is None
    assert any("names a database of mysql, not PostgreSQL" in note for note in config.notes)


def test_it_is_a_mistake_where_many_gateways_are_to_share_their_budgets(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "mysql://u:hush@db/app", "REDIS_URL": "redis://db:6379/0", "GROQ_API_KEY": "gsk_x"}
    (problem,) = problems_of(tmp_path, environ)
    assert "DATABASE_URL: names a database of mysql" in problem
    assert "must be in PostgreSQL" in problem
    assert "hush" not in problem
