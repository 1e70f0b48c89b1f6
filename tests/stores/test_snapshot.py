"""The snapshot in its file: what is written, what is removed, and who may look at it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from keyturn.core import MINUTE, Grounds, KeptLimit, KeptMark, KeptUse, Limit, kept_limit
from keyturn.errors import StoreError
from keyturn.stores import (
    Changes,
    Head,
    Kept,
    Name,
    Snapshots,
    SqliteFile,
    forget_limits,
    forget_marks,
    look_at_snapshot,
)

HEAD = Head(1000.0, 5.0, "boot", False, {"groq": "abc"})


def use(number: int) -> KeptUse:
    return KeptUse(f"requests rolling 60.0 UTC groq/k{number}|m", 30, 900.5, [(3.0, number), (4.0, 1)])


def mark(*scope: str) -> KeptMark:
    return KeptMark(scope, "cooling", 1060.25, "rate_limited", 2, 1000.0)


def written(folder: Path, *steps: Changes) -> Kept:
    async def story() -> None:
        snapshots = Snapshots(SqliteFile(folder / "state.sqlite"))
        assert await snapshots.load() is None
        for step in steps:
            await snapshots.write(HEAD, step)
        await snapshots.close()

    asyncio.run(story())
    kept = look_at_snapshot(folder)
    assert kept is not None
    return kept


def test_more_rows_than_go_at_once_come_back_as_they_were(tmp_path: Path) -> None:
    kept = written(tmp_path, Changes([("use", use(number).key, use(number)) for number in range(2500)]))
    assert sorted(kept.uses, key=lambda each: each.amounts[0]) == [use(number) for number in range(2500)]
    assert (kept.head, kept.unread) == (HEAD, 0)
    assert kept.head.instant == (1000.0, 5.0, "boot")


def test_rows_are_replaced_removed_and_all_at_once(tmp_path: Path) -> None:
    first = Changes([("use", "a", use(1)), ("use", "b", use(2)), ("mark", "a", mark("key", "groq", "a"))])
    gone: list[Name] = [("use", "b"), ("use", "never there"), *(("use", f"{number}") for number in range(2000))]
    kept = written(tmp_path, first, Changes([("use", "a", use(3))], gone))
    assert (list(kept.uses), list(kept.marks)) == ([use(3)], [mark("key", "groq", "a")])
    (tmp_path / "other").mkdir()
    kept = written(tmp_path / "other", first, Changes([("use", "c", use(4))], whole=True))
    assert (list(kept.uses), list(kept.marks)) == ([use(4)], [])


def test_marks_are_forgotten_by_key_by_group_and_by_whole_provider(tmp_path: Path) -> None:
    scopes = [
        ("key", "groq", "one"),
        ("key", "groq", "two"),
        ("group_model", "groq", "one", "m"),
        ("group", "groq", "both"),
        ("deployment", "groq", "m"),
        ("absent", "gemini", "m"),
    ]
    written(tmp_path, Changes([("mark", "|".join(scope), mark(*scope)) for scope in scopes]))

    def left() -> set[tuple[str, ...]]:
        kept = look_at_snapshot(tmp_path)
        assert kept is not None
        return {each.scope for each in kept.marks}

    forget_marks(tmp_path, ["one"], ["both"], [])
    assert left() == {scopes[1], scopes[2], scopes[4], scopes[5]}
    forget_marks(tmp_path, [], ["one"], ["groq"])
    assert left() == {scopes[1], scopes[5]}


def test_learned_limits_come_back_with_their_grounds_and_are_forgotten_one_by_one(tmp_path: Path) -> None:
    learned = Limit("groq/k|m", "requests", MINUTE, 27, "learned")
    reported = Limit("groq/k|m", "tokens", MINUTE, 6000, "reported")
    rows = [
        kept_limit(learned, Grounds(990.0, ("a1", "a2"), 30, 6), 5000.0),
        kept_limit(reported, Grounds(), 6000.0),
    ]
    kept = written(tmp_path, Changes([("limit", "groq/k|m", rows)]))
    assert kept.limits == rows
    forget_limits(tmp_path, [learned, Limit("groq/k|m", "tokens", MINUTE, 1, "learned")])
    left = look_at_snapshot(tmp_path)
    assert left is not None
    assert left.limits == rows[1:]
    forget_limits(tmp_path, [reported])
    left = look_at_snapshot(tmp_path)
    assert left is not None
    assert left.limits == []


def test_a_limit_that_an_earlier_version_wrote_is_a_reported_one(tmp_path: Path) -> None:
    kept = written(
        tmp_path, Changes([("limit", "groq/k|m", [("groq/k|m", "requests", "rolling", 60.0, "UTC", 30, 5000.0)])])
    )
    assert kept.limits == [KeptLimit("groq/k|m", "requests", "rolling", 60.0, "UTC", 30, 5000.0, "reported")]


def test_rows_that_cannot_be_read_keep_nothing_from_being_forgotten(tmp_path: Path) -> None:
    learned = Limit("groq/k|m", "requests", MINUTE, 27, "learned")
    rows = [kept_limit(learned, Grounds(), 5000.0)]
    written(
        tmp_path,
        Changes(
            [
                ("limit", "odd", {"no": "list"}),
                ("mark", "odd", 5),
                ("mark", "odder", []),
                ("limit", "groq/k|m", rows),
            ]
        ),
    )
    forget_limits(tmp_path, [learned])
    forget_marks(tmp_path, ["one"], [], [])
    left = look_at_snapshot(tmp_path)
    assert left is not None
    assert (left.limits, left.unread) == ([], 3)


def test_nothing_is_seen_where_nothing_is(tmp_path: Path) -> None:
    assert look_at_snapshot(tmp_path) is None
    forget_marks(tmp_path, ["one"], [], [])
    assert list(tmp_path.iterdir()) == []
    sqlite3.connect(tmp_path / "state.sqlite").close()
    assert look_at_snapshot(tmp_path) is None


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"no database at all " * 500)
    with pytest.raises(StoreError, match=r"state\.sqlite"):
        look_at_snapshot(tmp_path)


def test_who_looks_while_it_is_written_sees_a_whole_one(tmp_path: Path) -> None:
    async def story() -> None:
        snapshots = Snapshots(SqliteFile(tmp_path / "state.sqlite"))
        await snapshots.load()
        await snapshots.write(HEAD, Changes([("use", "a", use(1))]))
        for number in range(20):
            await snapshots.write(HEAD, Changes([("use", "a", use(number)), ("use", "b", use(number))], whole=True))
            kept = look_at_snapshot(tmp_path)
            assert kept is not None
            assert list(kept.uses) == [use(number)] * 2
        await snapshots.close()
        with pytest.raises(StoreError, match="is not open"):
            await snapshots.write(HEAD, Changes())

    asyncio.run(story())
