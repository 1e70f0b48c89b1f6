"""What a restart must not lose: rotation indexes and the month's spend, in the data folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyturn.config import DataFolder
from keyturn.core import MONTH, Limit, Marks, nano
from keyturn.dispatch.carried import Carried
from keyturn.errors import ConfigError
from keyturn.stores import MemoryState
from tests.support import virtual

BUDGET = Limit("caller/ci", "cost", MONTH, nano(10.0), owner="caller")


def carried(folder: DataFolder | None, **spent: int) -> tuple[Carried, MemoryState, virtual.VirtualClock]:
    clock = virtual.VirtualClock()
    live = MemoryState(Marks(), wall_offset=clock.wall() - clock.mono())
    return Carried(folder, clock, live, spent), live, clock


def test_ROT_02_an_index_is_written_at_each_move_and_read_again(tmp_path: Path) -> None:
    async def story() -> None:
        keeper, _, _ = carried(DataFolder(tmp_path / "new"))
        assert keeper.index("gemini") == 0
        keeper.moved("gemini", 3)
        keeper.moved("groq", 1)
        await keeper.close()
        assert json.loads((tmp_path / "new" / "google_ai_studio.keyidx").read_text()) == {"current_index": 3}
        again, _, _ = carried(DataFolder(tmp_path / "new"))
        assert (again.index("gemini"), again.index("groq")) == (3, 1)

    virtual.run(story)


@pytest.mark.parametrize("text", ["", "garbage", "[]", "{}", '{"current_index": "1"}', '{"current_index": -4}', "null"])
def test_ROT_02_a_corrupt_index_counts_as_0(tmp_path: Path, text: str) -> None:
    (tmp_path / "google_ai_studio.keyidx").write_text(text)
    assert DataFolder(tmp_path).rotation_index("gemini") == 0


def test_the_older_form_of_an_index_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "google_ai_studio.keyidx").write_text("2\n")
    assert DataFolder(tmp_path).rotation_index("gemini") == 2


def test_spend_is_taken_over_once_and_kept(tmp_path: Path) -> None:
    DataFolder(tmp_path).write_spent("2026-03", {"caller/ci": nano(2.5), "role/gone": nano(1.0)})

    async def story() -> None:
        keeper, live, clock = carried(DataFolder(tmp_path))
        keeper.take_over([BUDGET])
        keeper.take_over([BUDGET])
        assert live.row(BUDGET, clock.mono()).used == nano(2.5)
        live.take(BUDGET, nano(0.25), clock.mono())
        keeper.spending([BUDGET])
        await clock.sleep_until(clock.mono() + 2.0)
        found = json.loads((tmp_path / "spend.json").read_text())
        assert found == {"month": "2026-03", "usd": {"caller/ci": 2.75, "role/gone": 1.0}}
        await keeper.close()

    virtual.run(story)


def test_the_spend_of_another_month_is_over(tmp_path: Path) -> None:
    DataFolder(tmp_path).write_spent("2026-02", {"caller/ci": nano(9.0)})

    async def story() -> None:
        keeper, live, clock = carried(DataFolder(tmp_path))
        keeper.take_over([BUDGET])
        assert live.row(BUDGET, clock.mono()).used == 0

    virtual.run(story)


def test_what_a_role_had_spent_before_counts_until_the_file_knows_it(tmp_path: Path) -> None:
    role = Limit("role/qa", "cost", MONTH, nano(75.0), owner="caller")

    async def story() -> None:
        keeper, live, clock = carried(DataFolder(tmp_path), qa=nano(70.0))
        keeper.take_over([role])
        assert live.row(role, clock.mono()).used == nano(70.0)
        live.take(role, nano(1.0), clock.mono())
        keeper.spending([role])
        await keeper.close()
        again, other, _ = carried(DataFolder(tmp_path), qa=nano(70.0))
        again.take_over([role])
        assert other.row(role, clock.mono()).used == nano(71.0)

    virtual.run(story)


@pytest.mark.parametrize("text", ["", "[]", '{"month": "2026-03"}', '{"month": "2026-03", "usd": {"caller/ci": "x"}}'])
def test_a_broken_spend_file_stops_the_start_rather_than_spend_twice(tmp_path: Path, text: str) -> None:
    (tmp_path / "spend.json").write_text(text)
    with pytest.raises(ConfigError, match=r"spend\.json"):
        DataFolder(tmp_path).spent("2026-03")


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    async def story() -> None:
        keeper, _, _ = carried(None)
        keeper.moved("gemini", 2)
        assert keeper.index("gemini") == 2
        await keeper.close()

    virtual.run(story)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_does_not_stop_a_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        keeper, _, _ = carried(DataFolder(tmp_path / "file"))
        (tmp_path / "file").write_text("in the way")
        keeper.moved("gemini", 2)
        assert keeper.index("gemini") == 2

    virtual.run(story)
    assert "could not be written" in caplog.text
