"""Accounts among the credentials of a gateway: calls get their token, and go on to somebody else when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from keyturn.config import Config, Login, add_login, token_folder
from keyturn.core import Redactor, Secret
from keyturn.dispatch import Alarm, Gateway, build
from keyturn.login import TokenFolder, keep
from keyturn.providers import Granted
from keyturn.simulator import KeyRule, Simulator
from keyturn.transport import Transports
from tests.support import virtual
from tests.support.authorities import Authority, Routed
from tests.support.world import APP, World

MODEL = "huggingface/meta-llama/Llama-3.3-70B-Instruct-Turbo"
LOGIN = Login("huggingface", "ada", "app", "https://id.example/oauth/token", ("inference-api",), "monday")


class Signed(World):
    """A world in which Hugging Face knows the tokens of an authority, and *keys* beside them."""

    def __init__(self, folder: Path, keys: int = 0, **more: Any) -> None:
        super().__init__({"huggingface": keys} if keys else {}, **more)
        self.authority = Authority(self.clock)
        self.place = folder
        self.tokens: dict[str, KeyRule] = {f"access-{number}": KeyRule() for number in range(1, 20)}

    async def __aenter__(self) -> Signed:
        known = {"together": {**self.tokens, **self.rules.get("huggingface", {})}}  # whom the simulator plays
        self.upstream = Simulator(self.clock, virtual.seeded(), keys=known)
        transport = Routed(self.authority, Transports(self.clock, {APP: self.upstream}))
        self.gateway: Gateway = build(self.config(), clock=self.clock, transport=transport)
        self.alarms: list[str] = []
        self.gateway.events.subscribe(self._heard)
        return self

    def _heard(self, event: object) -> None:
        if isinstance(event, Alarm):
            self.alarms.append(event.text)

    def config(self) -> Config:
        from dataclasses import replace

        add_login(self.place, LOGIN)
        config = super().config()
        from keyturn.config import Options, load

        signed = load({}, cwd=self.place, options=Options(data=self.place))
        row = replace(signed.providers["huggingface"], local_app=APP, base_url="http://simulator/together/v1")
        keys = (*signed.credentials["huggingface"], *config.credentials.get("huggingface", ()))
        return replace(
            config,
            data=self.place,
            demo=False,
            providers={**config.providers, "huggingface": row},
            credentials={**config.credentials, "huggingface": keys},
        )

    async def log_in(self) -> None:
        """What `keyturn login` leaves in the data folder."""
        self.authority.refresh_tokens.add("refresh-0")
        granted = Granted(Secret("access-0"), -1.0, Secret("refresh-0"))
        await keep(TokenFolder(token_folder(self.place)), self.clock, LOGIN.name, granted)

    def row(self) -> dict[str, Any]:
        """What `keys list` says of the account."""
        return self.gateway.keys("huggingface")[0]


def in_world(world: Signed, story: Callable[[Signed], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with world:
            await world.log_in()
            await story(world)

    virtual.run(main)


def test_OAU_02_calls_carry_the_token_and_never_wait_for_a_renewal(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        first = await world.chat(MODEL)
        assert first.status == 200, first.body
        assert first.headers["x-keyturn-key"].startswith("huggingface-1:")
        world.authority.delay = 3.0
        for _ in range(3):
            await world.clock.sleep_until(world.clock.mono() + 1620)
            before = world.clock.mono()
            assert (await world.chat(MODEL)).status == 200
            assert world.clock.mono() - before < 3.0
        assert len({each.key for each in world.seen()}) > 1, "the token was another one"
        assert world.row()["key"] == first.headers["x-keyturn-key"], "the account is the same"

    in_world(Signed(tmp_path), story)


def test_OAU_03_a_login_that_was_revoked_is_left_out_and_says_what_to_do(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        world.authority.refresh_tokens.clear()
        answer = await world.chat(MODEL)
        assert answer.status == 200, "the key of the pool answers"
        assert [attempt["meaning"] for attempt in _attempts(world)] == ["invalid_key", "ok"]
        row = world.row()
        assert row["state"] == "invalid"
        assert "keyturn login huggingface" in row["reason"]
        assert len(world.alarms) == 1
        asked = len(world.authority.asked)
        await world.many(MODEL, 5)
        assert len(world.authority.asked) == asked

    in_world(Signed(tmp_path, keys=1, environ={"ROTATION_MODE_HUGGINGFACE": "sequential"}), story)


def test_OAU_03_a_new_login_is_taken_into_use_while_calls_run(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        world.authority.refresh_tokens.clear()
        refused = await world.chat(MODEL)
        assert (refused.status, refused.code) == (503, "no_valid_credentials")
        await world.log_in()
        add_login(world.place, LOGIN._replace(since="tuesday"))
        from dataclasses import replace

        config = world.config()
        (before,) = world.gateway.config.credentials["huggingface"]
        assert before.account is not None
        renewed = replace(before, tokens=None, account=replace(before.account, since="tuesday"))
        world.gateway.adopt(replace(config, credentials={"huggingface": (renewed,)}))
        assert (await world.chat(MODEL)).status == 200
        assert world.row()["state"] == "healthy"

    in_world(Signed(tmp_path), story)


def test_OAU_02_a_token_server_that_is_down_is_no_fault_of_the_keys(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        world.authority.unreachable = True
        answer = await world.chat(MODEL)
        assert answer.status == 200
        assert [attempt["meaning"] for attempt in _attempts(world)] == ["unknown", "ok"]
        assert world.row()["state"] == "cooling"
        world.authority.unreachable = False
        await world.clock.sleep_until(world.clock.mono() + 61)
        assert (await world.chat(MODEL)).headers["x-keyturn-key"].startswith("huggingface-1:"), "it is back"

    in_world(Signed(tmp_path, keys=1, environ={"ROTATION_MODE_HUGGINGFACE": "sequential"}), story)


def test_OAU_02_a_refused_token_is_replaced_within_the_call_and_then_treated_as_a_key(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        answer = await world.chat(MODEL)
        assert answer.status == 200
        assert [(each["meaning"], each["key"]) for each in _attempts(world)] == [
            ("invalid_key", world.row()["key"]),
            ("ok", world.row()["key"]),
        ]
        assert world.row()["state"] == "healthy"
        streamed = await world.chat(MODEL, stream=True)
        assert streamed.text

    world = Signed(tmp_path)
    del world.tokens["access-1"]
    in_world(world, story)


def test_OAU_02_a_second_refusal_cools_the_account(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        assert (await world.chat(MODEL)).status == 503
        assert world.authority.granted == 2
        assert world.row()["reason"].startswith("invalid_key")

    world = Signed(tmp_path)
    world.tokens = {}
    in_world(world, story)


def test_a_client_that_leaves_while_a_token_is_asked_for_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        world.authority.delay = 2.0
        leaver = asyncio.create_task(world.chat(MODEL))
        await virtual.idle()
        leaver.cancel()
        await virtual.idle()
        assert leaver.cancelled()
        assert world.held() == 0
        assert (await world.chat(MODEL)).status == 200
        assert world.authority.granted == 1, "the renewal went on"

    in_world(Signed(tmp_path), story)


def test_CAC_04_the_wait_for_a_token_is_no_part_of_what_an_answer_takes(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        world.authority.delay = 8.0
        assert (await world.chat(MODEL)).status == 200
        (attempt,) = next(reversed(world.gateway.recent.values())).attempts
        assert attempt.ended is not None
        assert attempt.ended - attempt.started < 8.0

    in_world(Signed(tmp_path), story)


def test_OAU_02_many_calls_whose_token_is_refused_at_once_get_one_other(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        answers = await world.many(MODEL, 50)
        assert {answer.status for answer in answers} == {200}
        assert world.authority.granted == 2
        assert world.row()["state"] == "healthy"

    world = Signed(tmp_path)
    del world.tokens["access-1"]
    in_world(world, story)


def test_a_deadline_bounds_the_wait_for_a_token(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        world.authority.delay = 8.0
        before = world.clock.mono()
        answer = await world.chat(MODEL, timeout=2.0)
        assert (answer.status, answer.code) == (504, "deadline")
        assert world.clock.mono() - before == 2.0

    in_world(Signed(tmp_path), story)


def test_no_token_and_no_secret_of_an_account_is_ever_seen(tmp_path: Path) -> None:
    async def story(world: Signed) -> None:
        await world.chat(MODEL)
        assert isinstance(world.gateway.redactor, Redactor)
        assert world.gateway.redact("access-1 refresh-0 refresh-1") == "*** *** ***"
        assert "access-" not in str(world.gateway.keys())
        assert "access-" not in repr(world.gateway.config)

    in_world(Signed(tmp_path), story)


def _attempts(world: World) -> list[dict[str, Any]]:
    trail = next(reversed(world.gateway.recent.values()))
    return [attempt.brief() for attempt in trail.attempts]
