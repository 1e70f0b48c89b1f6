"""Rows 8 to 20: what providers say of a key."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate

from keyturn.simulator import Fault, KeyRule
from tests.support import virtual

from .stage import BOTH, GEMINI, OTHER, SHARED, TURBO, Stage, scenario, whole

UNCLEAR = json.dumps({"error": {"message": "Unauthorized"}})
LIMITED = json.dumps({"error": {"message": "Too many requests", "type": "requests", "code": "rate_limit_exceeded"}})
HOUR = 3600.0


@scenario(8, {"groq": 2}, faults=[Fault(key="*-1", status=401, body=UNCLEAR, times=1)])
async def a_401_once(stage: Stage) -> str:
    assert whole(await stage.ask())
    assert stage.state("groq-1") == "cooling"
    assert 299.0 < stage.left(stage.mark("key")) <= 300.0
    await stage.later(301.0)
    for _ in range(4):
        assert whole(await stage.ask())
    assert stage.sent(key="groq-secret-key-1") > 1
    assert stage.state("groq-1") == "healthy"
    return "200 after 2 attempts; without an explicit code the key rests for 5 minutes, then it is healthy"


@scenario(9, {"groq": [KeyRule(state="invalid_key") if number == 4 else KeyRule() for number in range(10)]})
async def one_dead_key_of_ten(stage: Stage) -> str:
    for _ in range(40):
        assert whole(await stage.ask())
    assert stage.sent(key="groq-secret-key-5") == 1
    assert stage.attempts() == 41
    assert stage.state("groq-5") == "invalid"
    return "40 of 40 calls are answered; the dead key cost one attempt in all and is invalid"


@scenario(10, {"groq": 4}, faults=[Fault(error="invalid_key", until=60.0)])
async def all_keys_answer_401(stage: Stage) -> str:
    answer = await stage.ask()
    assert (answer.status, answer.code) == (503, "no_valid_credentials")
    assert stage.sent() == 4
    assert len(stage.alarms) >= 1
    assert "401 within a minute" in stage.alarms[0]
    assert {stage.state(f"groq-{number}") for number in range(1, 5)} == {"cooling"}
    assert max(map(stage.left, stage.marks)) <= 300.0
    await stage.later(301.0)
    assert whole(await stage.ask())
    return "503 `no_valid_credentials` and an alarm; no key becomes invalid, all are back after 5 minutes"


@scenario(
    11,
    {"together": 3},
    environ={"QUOTA_GROUP_TOGETHER": "1,2"},
    faults=[Fault(key="*-[12]", error="insufficient_credit")],
)
async def no_credit(stage: Stage) -> str:
    answer = await stage.ask(TURBO)
    assert whole(answer)
    assert stage.sent() == 2
    assert [each.status for each in stage.world.seen()] == [402, 200]
    assert stage.world.seen()[1].key == "together-secret-key-3"
    assert {stage.state("together-1"), stage.state("together-2")} == {"exhausted"}
    assert 3599.0 < stage.left(stage.mark("group")) <= 3601.0
    return "200 after 2 attempts, the second in another quota group; the first group is exhausted for an hour"


@scenario(12, {"groq": 2}, variant="403", faults=[Fault(key="*-1", model="llama-3.1-8b-instant", error="forbidden")])
async def a_model_is_forbidden_to_one_key(stage: Stage) -> str:
    for _ in range(4):
        assert whole(await stage.ask())
    assert stage.sent(key="groq-secret-key-1") == 1
    assert stage.state("groq-1") == "unentitled"
    assert stage.mark("key_model").state == "unentitled"
    for _ in range(4):
        assert whole(await stage.ask(OTHER))
    assert stage.sent(key="groq-secret-key-1", model="llama-3.3-70b-versatile") == 2
    return "403: 200 after 2 attempts; the key rests for this model alone, its other models are served"


@scenario(
    12,
    {"groq": 2, "together": 1},
    variant="404",
    models=BOTH,
    faults=[Fault(kind="chat", provider="groq", error="not_found")],
)
async def a_model_is_not_found(stage: Stage) -> str:
    answer = await stage.ask(SHARED)
    assert whole(answer)
    assert answer.headers["x-keyturn-provider"] == "together"
    assert stage.sent(provider="groq") == 1
    direct = await stage.ask(f"groq/{SHARED}")
    assert direct.status == 404
    assert "keyturn" not in direct.json()["error"]
    return "404: asked once per deployment; the next of a chain answers, to a direct call it comes back as it was"


@scenario(13, {"gemini": 2}, faults=[Fault(key="*-1", error="rate_limited", wait=46.0, times=1)])
async def a_delay_in_the_body(stage: Stage) -> str:
    assert whole(await stage.ask(GEMINI))
    assert 46.0 - 1e-6 <= stage.left(stage.mark("group_model")) <= 47.0
    for _ in range(9):
        await stage.later(5.0)
        assert whole(await stage.ask(GEMINI))
    assert stage.sent(key="gemini-secret-key-1") == 1
    return "200 after 2 attempts; the key rests for 46 to 47 s and is not asked before"


@scenario(14, {"groq": 2}, folder=True, faults=[Fault(key="*-1", error="daily_quota", wait=9 * HOUR, times=1)])
async def a_day_quota(stage: Stage) -> str:
    assert whole(await stage.ask())
    mark = stage.mark("group_model")
    assert (mark.state, mark.reason) == ("exhausted", "daily_quota")
    assert 9 * HOUR - 1e-6 <= stage.left(mark) <= 9 * HOUR + 1.0
    await stage.later(60.0)
    await stage.restart()
    assert stage.state("groq-1") == "exhausted"
    assert 9 * HOUR - 62.0 <= stage.left(stage.mark("group_model")) <= 9 * HOUR - 58.0
    for _ in range(3):
        assert whole(await stage.ask())
    assert stage.sent(key="groq-secret-key-1") == 1
    return "200 after 2 attempts; exhausted for 9 h, also after a restart"


@scenario(15, {"gemini": 2}, faults=[Fault(key="*-1", error="not_offered")])
async def a_limit_of_zero(stage: Stage) -> str:
    for _ in range(6):
        assert whole(await stage.ask(GEMINI))
    assert stage.sent(key="gemini-secret-key-1") == 1
    mark = stage.mark("key_model")
    assert (mark.state, mark.until) == ("unentitled", float("inf"))
    return "200 after 2 attempts; not offered to this key until the configuration changes"


@scenario(15, {"gemini": 1}, variant="alone", faults=[Fault(error="not_offered")])
async def a_limit_of_zero_and_nobody_else(stage: Stage) -> str:
    began = stage.now
    for _ in range(2):
        answer = await stage.ask(GEMINI)
        assert (answer.status, answer.code) == (503, "no_valid_credentials")
    assert stage.now == began
    assert stage.sent() == 1
    return "alone: 503 at once, nobody waits for it"


for _skew in (HOUR, -HOUR):

    @scenario(
        16,
        {"groq": 2},
        variant="ahead" if _skew > 0 else "behind",
        faults=[
            Fault(
                key="*-1",
                status=429,
                body=LIMITED,
                times=1,
                headers={
                    "date": formatdate(virtual.START_WALL + _skew, usegmt=True),
                    "retry-after": formatdate(virtual.START_WALL + _skew + 30.0, usegmt=True),
                },
            )
        ],
    )
    async def a_date_by_another_clock(stage: Stage) -> str:
        assert whole(await stage.ask())
        assert 29.5 <= stage.left(stage.mark("group_model")) <= 31.6
        return "200 after 2 attempts; the key rests for 30 s by the answer's own `Date`"


for _hint in ("-5", "NaN", "1e12", "soon"):

    @scenario(
        17,
        {"groq": 2},
        variant=_hint,
        faults=[Fault(key="*-1", status=429, body=LIMITED, times=1, headers={"retry-after": _hint})],
    )
    async def a_hint_that_makes_no_sense(stage: Stage) -> str:
        assert whole(await stage.ask())
        assert 10.0 - 1e-6 <= stage.left(stage.mark("group_model")) <= 10.6
        return "200 after 2 attempts; the hint is ignored, the key rests for the first step, 10 s"


@scenario(
    18,
    {"groq": 1},
    faults=[
        Fault(times=1, latency=1.0, error="rate_limited", wait=40.0),
        Fault(times=1, latency=2.0, error="rate_limited", wait=5.0),
    ],
)
async def an_older_failure_with_a_shorter_delay(stage: Stage) -> str:
    answers = await asyncio.gather(stage.ask(timeout=4.0), stage.ask(timeout=4.0))
    assert {answer.status for answer in answers} == {429}
    mark = stage.mark("group_model")
    assert 38.5 <= stage.left(mark) <= 41.0
    assert mark.strikes == 1
    return "the 40 s of the first stand; both together count as one step"


@scenario(
    19,
    {"groq": 1},
    faults=[Fault(times=1, latency=3.0), Fault(times=1, latency=1.0, error="rate_limited", wait=40.0)],
)
async def a_success_that_began_before(stage: Stage) -> str:
    older, newer = await asyncio.gather(stage.ask(), stage.ask(timeout=2.0))
    assert whole(older)
    assert newer.status == 429
    assert 36.5 <= stage.left(stage.mark("group_model")) <= 39.1
    return "the cooldown stands"


@scenario(
    20,
    {"groq": 3},
    environ={"QUOTA_GROUP_GROQ": "1,2"},
    faults=[Fault(key="*-[12]", error="rate_limited", wait=40.0)],
)
async def keys_of_one_project(stage: Stage) -> str:
    for _ in range(3):
        assert whole(await stage.ask())
    assert stage.sent(status=429) == 1
    assert [stage.state(f"groq-{number}") for number in (1, 2, 3)] == ["cooling", "cooling", "healthy"]
    return "200 after 2 attempts; both keys of the group rest, the second is not even asked"
