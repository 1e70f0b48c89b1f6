"""The cooldown profiles adaptive, fixed and patient, as settings.toml chooses them, through the gateway."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.dispatch import Cooled
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

LLAMA = "groq/llama-3.1-8b-instant"
HOUR, DAY = 3600.0, 86400.0
WORDLESS = {"body": '{"error":{"message":"Slow down."}}', "headers": {"retry-after": ""}}
LIMITED: dict[str, Any] = {"status": 429, **WORDLESS}
"""A minute limit that does not say how long."""
UNCLEAR_401: dict[str, Any] = {"status": 401, "body": '{"error":{"message":"No."}}'}
KNOWN: dict[str, dict[str, Any]] = {
    "limited": LIMITED,
    "invalid": {"error": "invalid_key"},
    "unclear": UNCLEAR_401,
    "forbidden": {"error": "forbidden"},
    "credit": {"error": "insufficient_credit"},
    "overloaded": {"status": 503},
    "error": {"status": 502},
    "redirect": {"quirks": frozenset({"redirect"})},
}


def rests(profile: str | None, case: str, times: int) -> list[float]:
    """How long the only key rests each time, when the same failure meets every request that is sent to it.

    After each failure the next call is made as soon as the rest is over; that it is over then, and not before, is
    looked at too. 0 stands for no rest at all.
    """
    found: list[float] = []

    async def story() -> None:
        files = {} if profile is None else {"settings.toml": f'[cooldown]\nprofile = "{profile}"\n'}
        async with World({"groq": 1}, files=files, faults=[Fault(**KNOWN[case])]) as world:
            cooled: list[Cooled] = []
            world.gateway.events.subscribe(lambda event: cooled.append(event) if isinstance(event, Cooled) else None)
            for number in range(1, times + 1):
                cooled.clear()
                await world.chat(LLAMA, timeout=0.5)
                assert len(world.seen()) == number, "asked when its time has come"
                found.append(cooled[-1].seconds if cooled else 0.0)
                if cooled:
                    await world.clock.sleep_until(world.clock.mono() + found[-1] - 1)
                    await world.chat(LLAMA, timeout=0.5)
                    assert len(world.seen()) == number, "and not before"
                    await world.clock.sleep_until(world.clock.mono() + 1)

    virtual.run(story, horizon=400 * DAY)
    return found


def assert_steps(found: list[float], *steps: float) -> None:
    """Each rest is that of its step, with a twentieth of jitter at most."""
    assert len(found) == len(steps)
    for rest, step in zip(found, steps, strict=True):
        assert step <= rest <= step * 1.05 + 0.001, (found, steps)


@pytest.mark.parametrize("profile", [None, "adaptive"])
def test_adaptive_rests_longer_each_time_after_a_minute_limit(profile: str | None) -> None:
    assert_steps(rests(profile, "limited", 6), 10, 30, 60, 120, 300, 300)


def test_adaptive_by_meaning() -> None:
    assert_steps(rests("adaptive", "invalid", 1), DAY)
    assert_steps(rests("adaptive", "unclear", 5), 300, 600, 1200, 2400, 3600)
    assert_steps(rests("adaptive", "forbidden", 2), HOUR, HOUR)
    assert_steps(rests("adaptive", "credit", 2), HOUR, HOUR)
    assert_steps(rests("adaptive", "overloaded", 6), 2, 4, 8, 16, 32, 60)
    assert_steps(rests("adaptive", "redirect", 4), 0, 0, 600, 600)


def test_adaptive_lets_the_first_fault_in_a_row_pass() -> None:
    found = rests("adaptive", "error", 5)
    assert_steps(found, 0, 5, 10, 20, 40)


@pytest.mark.parametrize("case", ["limited", "unclear", "forbidden", "credit", "overloaded", "error", "redirect"])
def test_fixed_rests_a_minute_whatever_it_was(case: str) -> None:
    assert rests("fixed", case, 4) == [60.0] * 4


def test_fixed_leaves_a_key_that_is_surely_invalid_for_a_day() -> None:
    assert rests("fixed", "invalid", 2) == [DAY, DAY]


@pytest.mark.parametrize(("case", "steps"), [
    ("limited", [HOUR, HOUR]),
    ("credit", [HOUR, HOUR]),
    ("invalid", [DAY, DAY]),
    ("unclear", [DAY, DAY]),
    ("overloaded", [0, 0, 600, 600]),
    ("error", [0, 0, 600, 600]),
    ("forbidden", [0, 0, 600, 600]),
    ("redirect", [0, 0, 600, 600]),
])  # fmt: skip
def test_patient_60_minutes_24_hours_and_10_minutes_after_three(case: str, steps: list[float]) -> None:
    assert rests("patient", case, len(steps)) == steps


@pytest.mark.parametrize("profile", ["adaptive", "fixed", "patient"])
def test_the_providers_own_word_comes_first_in_every_profile(profile: str) -> None:
    async def story() -> None:
        files = {"settings.toml": f'[cooldown]\nprofile = "{profile}"\n'}
        faults = [Fault(error="rate_limited", wait=37, times=1)]
        async with World({"groq": 1}, files=files, faults=faults) as world:
            assert (await world.chat(LLAMA)).status == 429
            assert (await world.chat(LLAMA, timeout=100)).status == 200
            assert 37 <= world.clock.mono() - virtual.START_MONO <= 39

    virtual.run(story)


@pytest.mark.parametrize("profile", ["adaptive", "fixed", "patient"])
def test_a_clients_mistake_rests_nothing_in_any_profile(profile: str) -> None:
    async def story() -> None:
        files = {"settings.toml": f'[cooldown]\nprofile = "{profile}"\n'}
        async with World({"groq": 1}, files=files, faults=[Fault(error="bad_request", times=5)]) as world:
            assert [(await world.chat(LLAMA)).status for _ in range(6)] == [400] * 5 + [200]
            assert [row["state"] for row in world.gateway.keys()] == ["healthy"]

    virtual.run(story)


@pytest.mark.parametrize(("profile", "length"), [("adaptive", 45), ("fixed", 45), ("patient", 45)])
def test_cooldown_seconds_of_a_provider_is_its_first_step_in_every_profile(profile: str, length: float) -> None:
    files = {
        "settings.toml": f'[cooldown]\nprofile = "{profile}"\n',
        "models.yaml": "providers: { groq: { kind: http, rotation: { cooldown_seconds: 45 } } }\n",
    }

    async def story() -> None:
        async with World({"groq": 1}, files=files, faults=[Fault(times=1, **LIMITED)]) as world:
            assert (await world.chat(LLAMA)).status == 429
            assert (await world.chat(LLAMA, timeout=100)).status == 200
            assert length <= world.clock.mono() - virtual.START_MONO <= length * 1.06

    virtual.run(story)


def test_a_success_begins_the_steps_anew() -> None:
    async def story() -> None:
        faults = [Fault(every=2, times=4, **LIMITED)]
        async with World({"groq": 1}, faults=faults) as world:
            waits = []
            for _ in range(4):
                before = world.clock.mono()
                assert (await world.chat(LLAMA, timeout=5)).status == 429
                assert (await world.chat(LLAMA, timeout=100)).status == 200
                waits.append(world.clock.mono() - before)
            assert all(10 <= wait <= 10.6 for wait in waits)

    virtual.run(story)


def test_a_reload_may_change_the_profile() -> None:
    async def story() -> None:
        async with World({"groq": 1}, faults=[Fault(**LIMITED)]) as world:
            world.files["settings.toml"] = '[cooldown]\nprofile = "patient"\n'
            world.gateway.adopt(world.config())
            refused = await world.chat(LLAMA)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) == HOUR

    virtual.run(story)
