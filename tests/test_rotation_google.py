"""Gemini keys take turns as promised: round robin over `api_keys`, on after a 429, wrapped, remembered on the disk."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import DataFolder
from keyturn.core import Redactor
from keyturn.dispatch import Cooled, Event, Rotated
from keyturn.simulator import Fault, KeyRule
from keyturn.telemetry.logs import Lines
from tests.support import virtual
from tests.support.world import Answer, World

FLASH = "gemini/gemini-2.5-flash"
MODELS = """
providers:
  google_ai_studio:
    kind: http
    base_url: https://generativelanguage.googleapis.com
    api_keys: [${GOOGLE_API_KEY_1}, ${GOOGLE_API_KEY_2}, ${GOOGLE_API_KEY_3}, ${GOOGLE_API_KEY_4}, ${GOOGLE_API_KEY_5}]
    rotation: { strategy: round_robin, cooldown_seconds: 60 }
"""
WORDLESS = '[{"error":{"code":429,"message":"Resource has been exhausted.","status":"RESOURCE_EXHAUSTED"}}]'
"""A 429 that does not say how long."""
SECRET = "gemini-secret-key-"
Story = Callable[[World], Coroutine[Any, Any, Any]]


class Gemini(World):
    """A world of Gemini keys that are set as GOOGLE_API_KEY_<n>, as the seed has them."""

    def __init__(self, keys: int | list[KeyRule] = 5, place: Path | None = None, **options: Any) -> None:
        count = keys if isinstance(keys, int) else len(keys)
        environ = {f"GOOGLE_API_KEY_{number}": f"{SECRET}{number}" for number in range(1, count + 1)}
        environ |= {f"GEMINI_API_KEY_{number}": "" for number in range(1, count + 1)}
        folder = None if place is None else DataFolder(place)
        files = {"models.yaml": MODELS} | options.pop("files", {})
        super().__init__(
            {"gemini": keys}, environ=environ | options.pop("environ", {}), files=files, folder=folder, **options
        )

    async def __aenter__(self) -> Gemini:
        await super().__aenter__()
        self.rotated: list[int] = []
        """Where the index went, from 1."""
        self.gateway.events.subscribe(
            lambda event: self.rotated.append(event.position) if isinstance(event, Rotated) else None
        )
        return self

    def asked(self) -> list[int]:
        """The numbers of the keys that the upstream saw, in order."""
        return [int(each.key.removeprefix(SECRET)) for each in self.seen()]


def play(story: Callable[[Gemini], Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> None:
    async def main() -> None:
        async with Gemini(*args, **options) as world:
            await story(world)

    virtual.run(main)


def index_in(place: Path, name: str = "google_ai_studio") -> object:
    return json.loads((place / f"{name}.keyidx").read_bytes())


def number_of(answer: Answer) -> int:
    """The number of the key that answered."""
    return int(answer.headers["x-keyturn-key"].partition(":")[0].rpartition("-")[2])


def limited(*keys: int, **more: Any) -> list[Fault]:
    return [Fault(key=f"{SECRET}{key}", error="rate_limited", **{"times": 1, **more}) for key in keys]


def test_TST_01_a_429_moves_the_index_to_the_next_key_which_answers_at_once(tmp_path: Path) -> None:
    async def story(world: Gemini) -> None:
        answer = await world.chat(FLASH)
        assert (answer.status, number_of(answer)) == (200, 2)
        assert world.asked() == [1, 2]
        assert index_in(tmp_path) == {"current_index": 1}
        assert [number_of(await world.chat(FLASH)) for _ in range(3)] == [2, 2, 2]

    play(story, place=tmp_path, faults=limited(1))


def test_ROT_01_every_key_in_turn_and_round_again(tmp_path: Path) -> None:
    async def story(world: Gemini) -> None:
        for _ in range(3):
            answers = [number_of(await world.chat(FLASH)) for _ in range(10)]
            assert answers == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
            await world.clock.sleep_until(world.clock.mono() + 200)
            # the last of each round met no 429 before: key 5 is found spent only by the next call
            assert number_of(await world.chat(FLASH)) == 5
            await world.chat(FLASH)
            assert number_of(await world.chat(FLASH)) == 1
            await world.clock.sleep_until(world.clock.mono() + 200)
        assert world.rotated == [2, 3, 4, 5, 1] * 3
        assert index_in(tmp_path) == {"current_index": 0}

    # What 429s do by themselves: a limit that was learned from them would not let it come to the next, nor would keys
    # go in turn while it is found out whether some share a quota.
    learns_nothing = {"LEARNING_ENABLED": "false", "LEARNING_GROUPS": "off"}
    play(story, [KeyRule(rpm=2) for _ in range(5)], tmp_path, environ=learns_nothing)


@pytest.mark.parametrize("case", ["rate_limited", "daily_quota"])
def test_ROT_01_it_wraps_from_the_last_key_to_the_first(tmp_path: Path, case: str) -> None:
    async def story(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 1
        assert world.asked() == [5, 1]
        assert index_in(tmp_path) == {"current_index": 0}

    DataFolder(tmp_path).write_rotation_index("gemini", 4)
    play(story, place=tmp_path, faults=[Fault(key=f"{SECRET}5", error=case)])


@pytest.mark.parametrize(
    "fault", [Fault(status=500, times=1), Fault(error="invalid_key", times=1), Fault(does="reset", times=1)]
)
def test_ROT_01_nothing_else_moves_it(tmp_path: Path, fault: Fault) -> None:
    async def story(world: Gemini) -> None:
        assert (await world.chat(FLASH)).status == 200
        assert world.rotated == []
        assert not (tmp_path / "google_ai_studio.keyidx").exists()

    play(story, place=tmp_path, faults=[fault])


def test_ROT_01_many_calls_that_meet_the_same_429_move_it_once(tmp_path: Path) -> None:
    async def story(world: Gemini) -> None:
        answers = await world.many(FLASH, 12)
        assert {answer.status for answer in answers} == {200}
        assert world.asked().count(1) == 12
        assert world.rotated == [2]
        assert index_in(tmp_path) == {"current_index": 1}

    play(story, place=tmp_path, faults=limited(1, times=12, latency=1.0))


def test_ROT_01_keys_that_are_met_one_after_the_other_in_one_call_each_move_it() -> None:
    async def story(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 4
        assert world.rotated == [2, 3, 4]

    play(story, faults=limited(1, 2, 3))


def test_ROT_02_the_index_survives_a_restart(tmp_path: Path) -> None:
    async def first(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 3

    async def second(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 3
        assert world.asked() == [3]

    place = tmp_path / "made" / "when needed"
    play(first, place=place, faults=limited(1, 2))
    assert index_in(place) == {"current_index": 2}
    play(second, place=place)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'{"current_index": "two"}', b'{"current_index": -3}',
     b'{"current_index": 1.5}', b'{"current_index": true}', b'{"index": 2}'],
)  # fmt: skip
def test_ROT_02_a_broken_file_counts_as_0_and_is_mended(tmp_path: Path, content: bytes) -> None:
    async def story(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 2
        assert world.asked() == [1, 2]
        assert index_in(tmp_path) == {"current_index": 1}

    (tmp_path / "google_ai_studio.keyidx").write_bytes(content)
    play(story, place=tmp_path, faults=limited(1))


@pytest.mark.parametrize(("index", "keys", "first"), [(7, 3, 2), (3, 3, 1), (4, 1, 1), (4, 5, 5), (10**30, 5, 1)])
def test_ROT_02_an_index_of_more_keys_is_clamped_to_those_there_are(
    tmp_path: Path, index: int, keys: int, first: int
) -> None:
    async def story(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == first

    DataFolder(tmp_path).write_rotation_index("gemini", index)
    play(story, keys, tmp_path)


def test_ROT_02_the_file_is_whole_at_each_move_and_replaced_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "google_ai_studio.keyidx"
    told: list[object] = []

    async def story(world: Gemini) -> None:
        with file.open("rb") as old:
            loop = asyncio.get_running_loop()

            def rotated(event: Event) -> None:
                if isinstance(event, Rotated):
                    loop.call_soon(lambda: told.append(index_in(tmp_path)))

            world.gateway.events.subscribe(rotated)
            await world.chat(FLASH)
            assert json.loads(old.read()) == {"current_index": 0}, (
                "who reads while it is written sees the old file whole"
            )
        assert told == [{"current_index": 1}, {"current_index": 2}, {"current_index": 3}]
        assert [name for name in os.listdir(tmp_path) if "keyidx" in name] == [file.name]
        assert file.stat().st_mode & 0o077 == 0

    DataFolder(tmp_path).write_rotation_index("gemini", 0)
    play(story, place=tmp_path, faults=limited(1, 2, 3))


def test_ROT_03_each_key_is_asked_once_and_then_the_truth_is_told() -> None:
    """The seed's text was "All Google API keys exhausted"; the design's answer is 429 `capacity` (§6)."""

    async def story(world: Gemini) -> None:
        answer = await world.chat(FLASH, timeout=1)
        assert (answer.status, answer.code) == (429, "capacity")
        assert world.asked() == [1, 2, 3, 4, 5]
        assert 29 <= int(answer.headers["retry-after"]) <= 33
        assert [each["meaning"] for each in answer.json()["error"]["keyturn"]["attempts"]] == ["rate_limited"] * 5
        assert world.clock.mono() == virtual.START_MONO, "nobody slept"

    play(story, faults=[Fault(error="rate_limited", wait=30)])


def test_ROT_03_with_every_key_spent_a_patient_call_waits_for_the_first_that_returns() -> None:
    async def story(world: Gemini) -> None:
        first = await world.chat(FLASH, timeout=1)
        assert first.status == 429
        began = world.clock.mono()
        answer = await world.chat(FLASH, timeout=100)
        assert answer.status == 200
        assert int(first.headers["retry-after"]) - 2 <= world.clock.mono() - began <= int(first.headers["retry-after"])

    play(story, faults=limited(1, 2, 3, 4, 5, wait=30))


def test_ROT_03_one_key_neither_moves_nor_sleeps(tmp_path: Path) -> None:
    async def story(world: Gemini) -> None:
        answer = await world.chat(FLASH, timeout=1)
        assert (answer.status, answer.code) == (429, "capacity")
        assert world.asked() == [1]
        assert world.rotated == []
        assert world.clock.mono() == virtual.START_MONO

    play(story, 1, tmp_path, faults=limited(1))


def test_ROT_04_the_log_tells_the_number_of_the_key_in_use_and_never_the_key() -> None:
    async def story(world: Gemini) -> None:
        lines = Lines(Redactor([]))
        said: list[str] = []
        world.gateway.events.subscribe(lambda event: said.append(lines.line(event, world.clock.wall())))
        await world.chat(FLASH)
        assert [line.partition(" ")[2] for line in said if "in use" in line] == ["gemini: key 2 of 5 is in use now"]
        (call,) = [line for line in said if "→ ok" in line]
        assert "gemini-1:" in call
        assert "gemini-2:" in call
        assert SECRET not in "\n".join(said)

    play(story, faults=limited(1))


def test_ROT_05_the_call_does_not_sleep_while_another_key_is_free() -> None:
    """The seed slept `cooldown_seconds` after each rotation; the design (§5.6) cools the key that failed."""

    async def story(world: Gemini) -> None:
        answer = await world.chat(FLASH)
        assert (answer.status, number_of(answer)) == (200, 5)
        assert world.clock.mono() == virtual.START_MONO
        assert [row["state"] for row in world.gateway.keys()] == ["cooling"] * 4 + ["healthy"]

    play(story, faults=limited(1, 2, 3, 4))


def test_ROT_05_cooldown_seconds_is_the_first_rest_of_the_failed_key_and_the_least() -> None:
    """Later steps are never shorter (design §5.5): the table's 10, 30, 60, 120, 300 s become 60, 60, 60, 120, 300."""

    async def story(world: Gemini) -> None:
        rests: list[float] = []
        world.gateway.events.subscribe(lambda event: rests.append(event.seconds) if isinstance(event, Cooled) else None)
        for number in range(5):
            assert (await world.chat(FLASH, timeout=1)).status == 429
            assert len(world.seen()) == len(rests) == number + 1
            await world.clock.sleep_until(world.clock.mono() + rests[-1])
        for rest, least in zip(rests, (60, 60, 60, 120, 300), strict=True):
            assert least <= rest <= least * 1.05

    play(story, 1, faults=[Fault(status=429, body=WORDLESS)])


def test_ROT_05_the_providers_own_word_wins_over_cooldown_seconds() -> None:
    async def story(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 2
        await world.clock.sleep_until(world.clock.mono() + 9)
        world.upstream.script.add(Fault(key=f"{SECRET}*", error="rate_limited", times=4))
        assert number_of(await world.chat(FLASH)) == 1
        assert world.asked() == [1, 2, 2, 3, 4, 5, 1]

    play(story, faults=limited(1, wait=7))


def test_rotation_is_honoured_for_every_provider(tmp_path: Path) -> None:
    files = {
        "models.yaml": """
providers:
  groq:
    kind: http
    base_url: https://api.groq.com/openai/v1
    api_keys: [${GROQ_API_KEY_1}, ${GROQ_API_KEY_2}, ${GROQ_API_KEY_3}]
    rotation: { strategy: round_robin, cooldown_seconds: 45 }
"""
    }
    says_nothing = {"body": '{"error":{"message":"Slow down."}}', "headers": {"retry-after": ""}}
    wordless = Fault(key="groq-secret-key-1", status=429, times=1, **says_nothing)  # type: ignore[arg-type]

    async def main() -> None:
        async with World({"groq": 3}, files=files, folder=DataFolder(tmp_path), faults=[wordless]) as world:
            rests: list[Cooled] = []
            world.gateway.events.subscribe(lambda event: rests.append(event) if isinstance(event, Cooled) else None)
            assert [number_of(await world.chat("groq/llama-3.1-8b-instant")) for _ in range(3)] == [2, 2, 2]
            assert [each.key.partition(":")[0] for each in rests] == ["groq-1"]
            assert 45 <= rests[0].seconds <= 45 * 1.05
        assert index_in(tmp_path, "groq") == {"current_index": 1}

    virtual.run(main)


def test_rotate_each_call_moves_on_with_every_call(tmp_path: Path) -> None:
    files = {"models.yaml": MODELS.replace("cooldown_seconds: 60", "cooldown_seconds: 60, rotate_each_call: true")}

    async def story(world: Gemini) -> None:
        assert [number_of(await world.chat(FLASH)) for _ in range(7)] == [1, 2, 3, 4, 5, 1, 2]
        assert index_in(tmp_path) == {"current_index": 2}

    play(story, place=tmp_path, files=files)


def test_keys_of_one_quota_group_are_no_remedy_for_each_other() -> None:
    """A second key of the same Google project meets the same 429 (design §5.7): it is passed over, not asked."""
    files = {"models.yaml": MODELS + "    quota_groups: [[1, 2, 3], [4, 5]]\n"}

    async def story(world: Gemini) -> None:
        assert number_of(await world.chat(FLASH)) == 4
        assert world.asked() == [1, 4]

    play(story, files=files, faults=limited(1))


def test_CRD_02_only_the_first_key_is_set_and_the_others_are_blank() -> None:
    async def story(world: Gemini) -> None:
        assert (await world.chat(FLASH)).status == 200
        assert [str(row["key"]).partition(":")[0] for row in world.gateway.keys()] == ["gemini-1"]

    blanks = {"GOOGLE_API_KEY_2": "", "GOOGLE_API_KEY_3": "   ", "GOOGLE_API_KEY_5": "\t"}
    play(story, 1, environ=blanks)


def test_CRD_02_spaces_around_a_key_are_taken_off_and_numbers_stay() -> None:
    async def story(world: Gemini) -> None:
        assert (await world.chat(FLASH)).status == 200
        assert [str(row["key"]).partition(":")[0] for row in world.gateway.keys()] == ["gemini-1", "gemini-3"]

    play(story, 1, environ={"GOOGLE_API_KEY_1": f"  {SECRET}1\t", "GOOGLE_API_KEY_3": f" {SECRET}3 "})


def test_CRD_02_without_any_key_the_error_names_the_variable_to_set() -> None:
    """The seed refused to construct the adapter; here the others go on working and a call says what is missing (§6)."""

    async def main() -> None:
        blanks = {f"GOOGLE_API_KEY_{number}": "" for number in range(1, 6)}
        async with World({"groq": 1}, files={"models.yaml": MODELS}, environ=blanks) as world:
            answer = await world.chat(FLASH)
            assert (answer.status, answer.code) == (404, "model_not_found")
            assert "GOOGLE_API_KEY_1" in answer.json()["error"]["message"]
            assert (await world.chat("groq/llama-3.1-8b-instant")).status == 200

    virtual.run(main)
