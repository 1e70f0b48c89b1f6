"""A configuration that changes while calls run: taken over without losing a count, or refused with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Config, load
from keyturn.dispatch import Event, Reloaded, Reloader
from keyturn.dispatch.reloading import changes
from keyturn.errors import ConfigError
from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import World

LLAMA = "groq/llama-3.1-8b-instant"
LIMITS = "providers: { groq: { models: { llama-3.1-8b-instant: { rpm: RPM } } } }\n"


class Watched:
    """A reloader over a world whose configuration is made anew at each look; a file on the disk plays the change."""

    def __init__(self, world: World, place: Path) -> None:
        self.world = world
        self.file = place / "models.yaml"
        self.said: list[Event] = []
        self.adopted: list[Config] = []
        self.broken: list[str] = []
        self.meanwhile: Callable[[], object] | None = None
        """What happens while the files are being read, once."""
        world.gateway.events.subscribe(self.said.append)
        self.reloader = Reloader(world.gateway, self.read, self.adopted.append)

    def watch_its_size(self) -> None:
        """Look at the one file alone, from now on, and only at how long it is."""
        self.reloader._signature = lambda: (  # type: ignore[method-assign]
            (str(self.file), 0, 0, self.file.stat().st_size) if self.file.exists() else None,
        )
        self.reloader._taken = self.reloader._seen = self.reloader._signature()
        self.reloader.start()

    def read(self) -> Config:
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        if self.broken:
            raise ConfigError(self.broken)
        return replace(self.world.config(), files=self.world.gateway.config.files)

    @property
    def told(self) -> list[Reloaded]:
        return [each for each in self.said if isinstance(each, Reloaded)]


def test_counters_and_cooldowns_survive_a_reload() -> None:
    async def story() -> None:
        files = {"limits.yaml": LIMITS.replace("RPM", "3")}
        faults = [Fault(key="*-1", error="rate_limited", wait=300, times=1)]
        async with World({"groq": 2}, files=files, faults=faults) as world:
            assert (await world.chat(LLAMA)).status == 200
            assert (await world.chat(LLAMA)).status == 200
            world.files["limits.yaml"] = LIMITS.replace("RPM", "4")
            world.gateway.adopt(world.config())
            # two of four are used on the only key that is not resting
            assert [(await world.chat(LLAMA)).status for _ in range(2)] == [200, 200]
            refused = await world.chat(LLAMA, timeout=1)
            assert (refused.status, refused.code) == (429, "capacity")
            states = {str(row["key"])[:6]: row["state"] for row in world.gateway.keys()}
            assert states == {"groq-1": "cooling", "groq-2": "healthy"}

    virtual.run(story)


def test_calls_in_flight_finish_on_what_they_began_with() -> None:
    async def story() -> None:
        async with World({"groq": 1}, faults=[Fault(latency=30.0, times=1)]) as world:
            running = asyncio.create_task(world.chat(LLAMA))
            await world.clock.sleep_until(world.clock.mono() + 1.0)
            old = world.gateway.generation
            world.rules = {"mistral": {"mistral-secret-key-1": KeyRule()}}
            world.gateway.adopt(world.config())
            assert (await world.chat(LLAMA)).status == 404
            assert old.calls == 1
            answer = await running
            assert answer.status == 200
            assert old.calls == 0
            assert world.gateway.retired == []

    virtual.run(story)


def test_who_waits_is_served_by_what_it_began_with() -> None:
    async def story() -> None:
        files = {"limits.yaml": LIMITS.replace("RPM", "1")}
        async with World({"groq": 1}, files=files) as world:
            assert (await world.chat(LLAMA)).status == 200
            waiting = asyncio.create_task(world.chat(LLAMA, timeout=100))
            await world.clock.sleep_until(world.clock.mono() + 1.0)
            world.files["limits.yaml"] = LIMITS.replace("RPM", "5")
            world.gateway.adopt(world.config())
            assert (await world.chat(LLAMA, timeout=100)).status == 200
            assert (await waiting).status == 200

    virtual.run(story)


def look(change: Callable[[Watched], Any], tmp_path: Path, **options: Any) -> Watched:
    """A reloader that watches one real file; *change* is made after it began to look; five virtual seconds pass."""

    async def story() -> Watched:
        async with World({"groq": 1}, **options) as world:
            watched = Watched(world, tmp_path)
            watched.file.write_text("a")
            watched.watch_its_size()
            change(watched)
            await world.clock.sleep_until(world.clock.mono() + 5.0)
            await watched.reloader.close()
            assert (await world.chat(LLAMA)).status == 200
            return watched

    return virtual.run(story)


def test_a_changed_file_is_taken_up_once(tmp_path: Path) -> None:
    def change(watched: Watched) -> None:
        watched.file.write_text("changed")
        watched.world.environ["USE_PAID_MODELS"] = "true"

    watched = look(change, tmp_path)
    assert len(watched.adopted) == 1
    assert watched.told == [Reloaded(changes=("use paid: True",))]
    assert watched.reloader.told()["valid"] is True


def test_a_broken_file_keeps_the_running_configuration(tmp_path: Path) -> None:
    def change(watched: Watched) -> None:
        watched.file.write_text("changed")
        watched.broken = ["config/models.yaml:3: no provider is called gorq"]

    watched = look(change, tmp_path)
    assert watched.adopted == []
    assert watched.told == [Reloaded(problems=("config/models.yaml:3: no provider is called gorq",))]
    assert watched.reloader.told()["problems"] == ["config/models.yaml:3: no provider is called gorq"]


def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    def change(watched: Watched) -> None:
        watched.file.write_text("changed")
        watched.meanwhile = lambda: watched.file.write_text("changed once more")

    assert len(look(change, tmp_path).adopted) == 2


def test_nothing_is_read_when_nothing_changed(tmp_path: Path) -> None:
    watched = look(lambda watched: None, tmp_path)
    assert watched.told == []


def test_a_key_that_is_gone_leaves_nothing_behind() -> None:
    async def story() -> None:
        async with World({"groq": [KeyRule(state="invalid_key"), KeyRule()]}) as world:
            assert (await world.chat(LLAMA)).status == 200
            (bad,) = [row for row in world.gateway.keys() if row["state"] == "invalid"]
            del world.rules["groq"]["groq-secret-key-1"]
            world.gateway.adopt(world.config())
            assert bad["key"] not in [row["key"] for row in world.gateway.keys()]
            assert world.gateway.marks.of("groq", counting=True) == []

    virtual.run(story)


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_reloads_loses_no_call_and_leaves_nothing(seed: int) -> None:
    """Keys come and go, limits change, callers wait and leave; each call is answered once, and nothing stays behind."""

    async def story() -> None:
        dice = virtual.seeded(seed)
        files = {"limits.yaml": LIMITS.replace("RPM", "20"), "models.yaml": f"aliases: {{ fast: [{LLAMA}] }}"}
        faults = [
            Fault(latency=2.0, every=3),
            Fault(error="rate_limited", wait=3, every=17),
            Fault(status=500, every=23),
        ]
        async with World({"groq": 3}, files=files, faults=faults) as world:
            every = dict(world.rules["groq"])

            async def call(number: int) -> int:
                await world.clock.sleep_until(world.clock.mono() + dice() * 30)
                answer = await world.chat("fast", stream=number % 2 == 0, timeout=20 + dice() * 60)
                return answer.status

            tasks = [asyncio.create_task(call(number)) for number in range(300)]
            for turn in range(60):
                await world.clock.sleep_until(world.clock.mono() + 0.5 + dice())
                present = [key for key in every if dice() < 0.7] or [next(iter(every))]
                world.rules["groq"] = {key: every[key] for key in present}
                world.files["limits.yaml"] = LIMITS.replace("RPM", str(10 + int(dice() * 30)))
                world.gateway.adopt(world.config())
                if turn % 3 == 0:
                    tasks[int(dice() * len(tasks))].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            statuses = [each for each in answers if isinstance(each, int)]
            assert all(isinstance(each, (int, asyncio.CancelledError)) for each in answers)
            assert set(statuses) <= {200, 429, 502, 504}
            assert statuses.count(200) > 100
            assert world.gateway.retired == []
            assert world.gateway.generation.calls == 0
            assert world.gateway.room.waiting == 0

    virtual.run(story)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"GROQ_API_BASE": "http://127.0.0.1:1/v1"}, "groq: its address or another of its settings changed"),
        ({"KEY_PRIORITIES_GROQ": "1:2,2:1"}, "groq: priority, group, plan or weight of its keys changed"),
        ({"IGNORE_MODELS_GROQ": "x"}, "priorities, caps, cycles or lists of keys and models changed"),
        ({}, ""),
    ],
)
def test_what_is_different_is_told_in_words(said: dict[str, str], told: str, tmp_path: Path) -> None:
    keys = {"GROQ_API_KEY_1": "a", "GROQ_API_KEY_2": "b"}
    lines = list(changes(load(keys, cwd=tmp_path), load(keys | said, cwd=tmp_path)))
    assert told in lines if told else lines == []


STORES = "what is said of {} is heeded at the next start"
SERVER = "server.{} is heeded at the next start"


@pytest.mark.parametrize(
    ("settings", "said", "told"),
    [
        (
            "[server]\nmax_connections = 9\ngrace_seconds = 2",
            {},
            [(SERVER, "grace_seconds"), (SERVER, "max_connections")],
        ),
        ("[server]\nmemory_limit_mib = 900", {}, [(SERVER, "memory_limit")]),
        ("[server]\nmax_connections_per_ip = 3", {}, [(SERVER, "max_connections_per_ip")]),
        ("", {"METRICS_ENABLED": "false"}, [(SERVER, "metrics")]),
        ("", {"REDIS_URL": "redis://:a-password@h:6379/0"}, [(STORES, "redis")]),
        ("[ledger]\nkeep_days = 3\n[responses]\nstore = true", {}, [(STORES, "ledger"), (STORES, "responses")]),
        ("", {"DATABASE_URL": "postgresql://u:a-password@h/d"}, [(STORES, "ledger")]),
    ],
)
def test_what_is_read_once_is_said_to_be_heeded_at_the_next_start(
    settings: str, said: dict[str, str], told: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    before = load({"GROQ_API_KEY": "a"}, cwd=tmp_path)
    (tmp_path / "config" / "settings.toml").write_text(settings)
    lines = list(changes(before, load({"GROQ_API_KEY": "a", **said}, cwd=tmp_path)))
    assert sorted(lines) == [text.format(name) for text, name in told]
    assert "a-password" not in str(lines)
