"""The tokens of one account in virtual time: got, renewed ahead, kept, given up; against an authorisation server."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Login, add_login
from keyturn.core import Account, Credential, Redactor, Secret
from keyturn.errors import NoToken
from keyturn.login import Kept, Refresher, TokenFolder, Tokens, forget
from keyturn.login.source import LOCK_PATIENCE, ONCE_IN, PATIENCE, REMEMBERED, Means
from tests.support import virtual
from tests.support.authorities import Authority, Routed

NAME = "huggingface-0123456789abcdef"
USER = Account(
    "refresh_token",
    "ada",
    "ada",
    "https://id.example/oauth/token",
    client_id="app",
    refresh_token=Secret("refresh-0"),
    rotates=True,
    remedy="keyturn login huggingface",
)


class Bench:
    """Sources of tokens as one or more processes have them, over one authorisation server and one folder."""

    def __init__(self, folder: Path, **authority: Any) -> None:
        self.clock = virtual.VirtualClock()
        self.authority = Authority(self.clock, **authority)
        self.folder = TokenFolder(folder)
        self.redactor = Redactor()
        self.told: list[str] = []
        self._sources: list[Tokens] = []

    def source(self, account: Account = USER) -> Tokens:
        means = Means(
            self.clock,
            Routed(self.authority),
            self.folder,
            self.redactor.add,
            self.redactor.forget,
            self.told.append,
        )
        self._sources.append(Tokens(NAME, "huggingface-1:012345", account, means))
        return self._sources[-1]

    async def at(self, seconds: float) -> None:
        """Let *seconds* pass."""
        await self.clock.sleep_until(self.clock.mono() + seconds)
        await virtual.idle()

    async def close(self) -> None:
        for source in self._sources:
            await source.close()


def on_bench(tmp_path: Path, story: Callable[[Bench], Any], **authority: Any) -> Bench:
    bench = Bench(tmp_path / "tokens", **authority)

    async def main() -> None:
        try:
            await story(bench)
        finally:
            await bench.close()

    virtual.run(main)
    return bench


def test_OAU_02_a_token_is_got_once_and_renewed_before_its_end(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        assert source.current() is None
        tokens = await asyncio.gather(*(source.obtain() for _ in range(20)))
        assert {each.reveal() for each in tokens} == {"access-1"}, "one request for all who wait"
        await bench.at(3600 - 361)
        assert source.current() == Secret("access-1")
        await bench.at(2)
        assert source.current() == Secret("access-2"), "renewed a tenth of its life before the end"
        await bench.at(7200)
        assert bench.authority.granted == 4

    bench = on_bench(tmp_path, story)
    assert [each["refresh_token"] for each in bench.authority.asked] == [f"refresh-{n}" for n in range(4)]


def test_CRD_12_a_new_refresh_token_is_on_the_disk_before_the_token_is_used(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        source, written = bench.source(), bench.folder.write
        before: list[Secret | None] = []

        def write(*args: Any) -> None:
            before.append(source.current())
            written(*args)

        bench.folder.write = write  # type: ignore[method-assign, assignment]
        await source.obtain()
        assert before == [None]

    on_bench(tmp_path, story)
    file = tmp_path / "tokens" / f"{NAME}.json"
    assert json.loads(file.read_bytes())["refresh_token"] == "refresh-1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_OAU_02_two_processes_that_renew_at_once_use_the_refresh_token_once(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.authority.delay = 2.0
        one, other = bench.source(), bench.source()
        tokens = await asyncio.gather(one.obtain(), other.obtain())
        assert {each.reveal() for each in tokens} == {"access-1"}
        await bench.at(3300)
        assert (one.current(), other.current()) == (Secret("access-2"), Secret("access-2"))
        assert bench.authority.granted == 2

    on_bench(tmp_path, story)


def test_OAU_02_a_restart_goes_on_with_what_is_kept(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.source().obtain()
        assert await bench.source().obtain() == Secret("access-1")
        assert bench.authority.granted == 1

    on_bench(tmp_path, story)


def test_OAU_06_another_refresh_token_in_the_variables_is_another_start(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.source().obtain()
        bench.authority.refresh_tokens.add("refresh-new")
        from dataclasses import replace

        again = bench.source(replace(USER, refresh_token=Secret("refresh-new")))
        assert await again.obtain() == Secret("access-2")

    bench = on_bench(tmp_path, story)
    assert bench.authority.asked[-1]["refresh_token"] == "refresh-new"


def test_OAU_06_a_token_that_the_variables_hold_is_used_while_it_is_good(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        from dataclasses import replace

        held = replace(USER, access_token=Secret("token-held"), expires=bench.clock.wall() + 1000)
        source = bench.source(held)
        assert await source.obtain() == Secret("token-held")
        assert bench.authority.granted == 0
        await bench.at(1001)
        assert source.current() == Secret("access-1")

    on_bench(tmp_path, story)


@pytest.mark.parametrize("trouble", ["unreachable", "500"])
def test_OAU_02_a_server_that_is_down_leaves_the_old_token_until_its_end(tmp_path: Path, trouble: str) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        await source.obtain()
        bench.authority.unreachable = trouble == "unreachable"
        bench.authority.denial = (500, {})
        await bench.at(3590)
        assert source.current() == Secret("access-1")
        assert not source.trouble
        await bench.at(20)
        assert source.current() is None
        with pytest.raises(NoToken) as refused:
            await source.obtain()
        assert not refused.value.final
        bench.authority.unreachable, bench.authority.denial = False, None
        await bench.at(61)
        assert (await source.obtain()).reveal() == "access-2"

    on_bench(tmp_path, story)


def test_OAU_03_invalid_grant_needs_its_owner(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        await source.obtain()
        bench.authority.refresh_tokens.clear()
        await bench.at(3300)
        assert source.current() is None, "it was revoked: the old token is not believed either"
        asked = len(bench.authority.asked)
        for _ in range(3):
            with pytest.raises(NoToken, match="keyturn login huggingface") as refused:
                await source.obtain()
            assert refused.value.final
        assert len(bench.authority.asked) == asked, "nobody is asked again and again"
        assert "invalid_grant" in source.trouble
        assert len(bench.told) == 1
        bench.authority.refresh_tokens.add("refresh-1")
        source.reset()
        assert (await source.obtain()).reveal() == "access-2"
        assert not source.trouble

    on_bench(tmp_path, story)


def test_a_token_that_is_refused_is_replaced_once(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        first = await source.obtain()
        assert source.rejected(first)
        second = await source.obtain()
        assert second.reveal() == "access-2"
        assert source.rejected(first), "who comes late gets the new one"
        assert await source.obtain() == second
        assert not source.rejected(second), "once is enough"
        await bench.at(ONCE_IN)
        assert source.rejected(second)

    on_bench(tmp_path, story)


def test_waiting_for_a_token_is_bounded_and_leaving_does_not_end_the_renewal(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.authority.delay = PATIENCE + 5
        source, started = bench.source(), bench.clock.mono()
        leaver = asyncio.create_task(source.obtain())
        await bench.at(1)
        leaver.cancel()
        with pytest.raises(NoToken, match="within 10 s"):
            await source.obtain()
        assert bench.clock.mono() - started == PATIENCE + 1
        await bench.at(5)
        assert source.current() == Secret("access-1")

    on_bench(tmp_path, story)


def test_a_lock_that_is_never_given_back_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        lock = bench.folder.lock(NAME)
        assert lock is not None
        source = bench.source()
        with pytest.raises(NoToken):
            await source.obtain()
        await bench.at(LOCK_PATIENCE - PATIENCE + 1)
        with pytest.raises(NoToken, match="another process"):
            await source.obtain()
        bench.folder.unlock(lock)

    on_bench(tmp_path, story)


def test_closing_lets_a_renewal_end_that_has_used_its_refresh_token_up(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.authority.delay = 3
        leaver = asyncio.create_task(bench.source().obtain())
        await bench.at(1)
        leaver.cancel()

    bench = on_bench(tmp_path, story)
    kept = bench.folder.read(NAME)
    assert kept is not None
    assert kept.refresh.reveal() == "refresh-1"


def test_every_token_is_known_to_the_redactor_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        for number in range(1, 4):
            await source.obtain()
            await bench.at(3300)
            assert bench.redactor.text(f"<access-{number}> <refresh-{number}>") == "<***> <***>"
        await bench.at(3600 * REMEMBERED)
        assert bench.redactor.text("<access-1>") == "<access-1>"
        assert len(bench.redactor._by_start) < 200

    on_bench(tmp_path, story)


@pytest.mark.parametrize("ahead", [0.0, 5.0, -5.0, 7200.0, -7200.0])
def test_a_service_account_signs_and_bears_a_clock_that_is_wrong(
    tmp_path: Path, rsa_key: Any, rsa_pem: str, ahead: float
) -> None:
    account = Account(
        "service_account",
        "robot@p.iam.gserviceaccount.com",
        "robot",
        "https://oauth2.googleapis.com/token",
        ("https://www.googleapis.com/auth/cloud-platform",),
        "robot@p.iam.gserviceaccount.com",
        private_key=Secret(rsa_pem),
        key_id="k1",
    )

    async def story(bench: Bench) -> None:
        bench.authority.public_key, bench.authority.ahead = rsa_key.public_key(), ahead
        source = bench.source(account)
        assert (await source.obtain()).reveal() == "access-1"
        await bench.at(3300)
        assert source.current() == Secret("access-2"), "how long it holds is counted from its answer"

    bench = on_bench(tmp_path, story)
    assert len(bench.authority.asked) == (2 if abs(ahead) < 10 else 3), "the difference is found out once"
    assert not (tmp_path / "tokens").exists(), "it can be had again any time: nothing is kept"


def test_a_key_that_is_none_says_what_to_do(tmp_path: Path) -> None:
    account = Account(
        "service_account", "robot", "robot", "https://oauth2.example/token", private_key=Secret("planted")
    )

    async def story(bench: Bench) -> None:
        with pytest.raises(NoToken, match="no RSA key in PEM") as refused:
            await bench.source(account).obtain()
        assert refused.value.final
        assert "planted" not in refused.value.message

    on_bench(tmp_path, story)


@pytest.mark.parametrize(
    ("account", "asked"),
    [
        (
            Account(
                "client_secret",
                "app of tenant",
                "app",
                "https://login.example/t/oauth2/v2.0/token",
                ("https://cognitiveservices.azure.com/.default",),
                "app",
                Secret("planted-client-secret"),
            ),
            {"grant_type": "client_credentials", "scope": "https://cognitiveservices.azure.com/.default"},
        ),
        (
            Account(
                "azure_metadata",
                "m",
                "m",
                "http://169.254.169.254/t",
                ("https://cognitiveservices.azure.com/.default",),
            ),
            {"resource": "https://cognitiveservices.azure.com/", "api-version": "2018-02-01"},
        ),
        (Account("google_metadata", "m", "m", "http://metadata.google.internal/t", ("a", "b")), {"scopes": "a,b"}),
    ],
    ids=["entra", "managed identity", "metadata server"],
)
def test_other_kinds_of_accounts(tmp_path: Path, account: Account, asked: dict[str, str]) -> None:
    async def story(bench: Bench) -> None:
        assert (await bench.source(account).obtain()).reveal() == "access-1"

    bench = on_bench(tmp_path, story)
    assert asked.items() <= bench.authority.asked[0].items()


def test_a_wrong_client_secret_is_told_without_it(tmp_path: Path) -> None:
    account = Account(
        "client_secret", "app of t", "app", "https://login.example/token", client_secret=Secret("planted-wrong"),
        remedy="check AZURE_CLIENT_SECRET: it may have expired",
    )  # fmt: skip

    async def story(bench: Bench) -> None:
        with pytest.raises(NoToken, match=r"AADSTS7000215.*check AZURE_CLIENT_SECRET") as refused:
            await bench.source(account).obtain()
        assert refused.value.final

    on_bench(tmp_path, story)


def test_OAU_03_a_refusal_that_is_none_of_oauth_costs_no_token(tmp_path: Path) -> None:
    """What stands between us and the server (a proxy, a guard) says 403 or 404 without any of its error codes."""

    async def story(bench: Bench) -> None:
        source = bench.source()
        await source.obtain()
        bench.authority.denial = (403, {"message": "Forbidden"})
        await bench.at(3300)
        assert source.current() == Secret("access-1")
        assert (source.trouble, bench.told) == ("", [])
        bench.authority.denial = None
        await bench.at(100)
        assert source.current() == Secret("access-2")

    on_bench(tmp_path, story)


def test_a_refresh_token_in_use_is_never_forgotten_by_the_redactor(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.source().obtain()
        for _ in range(2 * REMEMBERED + 2):
            assert bench.redactor.text("refresh-0") == "***"
            await bench.at(3300)

    on_bench(tmp_path, story, rotates=False)


def test_OAU_03_what_a_server_says_holds_no_token_and_no_control_characters(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        await source.obtain()
        for denial in (
            {"error": "invalid_grant", "error_description": "refresh-1 is\x1b[31m unknown"},
            {"error": "refresh-1\n\x1b[31mgone"},
        ):
            bench.authority.denial = (400, denial)
            source.reset()
            await bench.at(3600)
            with pytest.raises(NoToken):
                await source.obtain()
            assert "refresh-1" not in source.trouble
            assert source.trouble.isprintable()

    on_bench(tmp_path, story)


@pytest.mark.parametrize("lifetime", [0.001, 1.0])
def test_a_token_that_holds_for_a_moment_is_not_renewed_without_end(tmp_path: Path, lifetime: float) -> None:
    async def story(bench: Bench) -> None:
        source = bench.source()
        await source.obtain()
        await bench.at(60)
        assert len(bench.authority.asked) < 10
        assert (await source.obtain()).reveal() == f"access-{bench.authority.granted}"

    on_bench(tmp_path, story, lifetime=lifetime)


@pytest.mark.parametrize(
    "members",
    [
        {"access_token": 1},
        {"access_token": "a\r\nx: y"},
        {"access_token": "\ud800abcdefgh"},
        {"refresh_token": None},
        {"refresh_token": "\ud800abcdefgh"},
        {"expires_at": float("nan")},
        {"expires_at": float("inf")},
        {"obtained_at": float("-inf")},
        {"seed": ["x"]},
    ],
)
def test_kept_tokens_that_are_broken_are_none(tmp_path: Path, members: dict[str, Any]) -> None:
    folder = TokenFolder(tmp_path)
    whole = {"access_token": "a", "refresh_token": "r", "obtained_at": 1.0, "expires_at": 9e9, "seed": ""}
    folder.file(NAME).write_text(json.dumps(whole))
    assert folder.read(NAME) is not None
    folder.file(NAME).write_text(json.dumps(whole | members))
    assert folder.read(NAME) is None


def test_the_data_folder_is_made_as_private_as_what_is_in_it(tmp_path: Path) -> None:
    add_login(tmp_path / "1", Login("huggingface", "a", "b", "c", (), "d"))
    TokenFolder(tmp_path / "2" / "tokens").write(NAME, Kept(Secret("a"), Secret("r"), 1.0, 2.0))
    for data in (tmp_path / "1", tmp_path / "2"):
        assert [stat.S_IMODE(each.stat().st_mode) for each in (data, data / "tokens")] == [0o700, 0o700]
        assert {stat.S_IMODE(each.stat().st_mode) for each in (data / "tokens").iterdir()} == {0o600}


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", '"x"', "9" * 5000, "{"])
def test_a_file_of_tokens_that_holds_something_else_is_none(tmp_path: Path, text: str) -> None:
    folder = TokenFolder(tmp_path)
    folder.file(NAME).write_text(text)
    assert folder.read(NAME) is None


def test_a_clock_that_was_set_back_makes_no_kept_token_last_longer(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        now = bench.clock.wall() + 30 * 86_400
        bench.folder.write(NAME, Kept(Secret("access-0"), Secret("refresh-0"), now, now + 3600))
        source = bench.source(replace(USER, refresh_token=Secret("")))
        assert (await source.obtain()).reveal() == "access-0"
        await bench.at(3600)
        assert source.current() == Secret("access-1")

    on_bench(tmp_path, story)


def test_closing_waits_for_all_accounts_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.authority.delay = 1000
        refresher = Refresher(
            bench.clock, Routed(bench.authority), tmp_path, bench.redactor.add, bench.redactor.forget, bench.told.append
        )
        keys = tuple(
            Credential("huggingface", Secret(""), number, f"{number}", f"{number}", account=account)
            for number, account in enumerate(replace(USER, identity=str(each), rotates=False) for each in range(5))
        )
        found, _ = refresher.furnished({"huggingface": keys})
        waiting = [asyncio.create_task(each.tokens.obtain()) for each in found["huggingface"] if each.tokens]
        await virtual.idle()
        for each in waiting:
            each.cancel()
        began = bench.clock.mono()
        await refresher.close()
        assert bench.clock.mono() - began <= PATIENCE

    virtual.run(main)


def test_CRD_11_a_renewal_under_way_does_not_bring_forgotten_tokens_back(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.authority.delay = 3
        waiting = asyncio.create_task(bench.source().obtain())
        await bench.at(1)
        await forget(bench.folder, bench.clock, NAME)
        assert (await waiting).reveal() == "access-1"
        await bench.at(1)

    bench = on_bench(tmp_path, story)
    assert not bench.folder.file(NAME).exists()
