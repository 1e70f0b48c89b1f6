"""Which Redis is refused at boot, in which words, and which is used with a warning."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn.core import Secret
from keyturn.errors import StoreError
from keyturn.stores.redis_boot import read_facts, timeout_for, unfit, worries
from keyturn.stores.redis_link import RedisLink
from tests.support.redis_process import RedisProcess
from tests.support.redis_stand_in import ECHO, HandClock, StandIn, passing, turns

PASSWORD = "pl4nted:pa%ss"
ACL = "resetkeys resetchannels +@connection +@read +@write +@scripting +@pubsub +time +info ~{t}:* &t:news"
"""What docs/replicas.md says that a user of its own needs."""


async def ignore(lost: bool) -> None:
    return None


async def opened(url: str, clock: HandClock) -> float:
    """Open a link to *url* and close it; seconds that opening took. Raises what opening raises."""
    real = url.startswith(("unix", "rediss")) and "nowhere" not in url
    rest = 5_000 if real else 60  # a real Redis and TLS take time that the clock does not know of
    rest = 1_000 if "invalid" in url else rest  # and so do names
    link = RedisLink(Secret(url), "t", clock, lambda: 0.5, scripts=ECHO)
    opening = asyncio.create_task(link.open(ignore, lambda news: None))
    took = await passing(clock, opening.done, step=0.25, rest=rest)
    try:
        await opening
        assert link.reachable
        assert await link.ask("echo", [], ["x"]) == b"x"
    finally:
        closing = asyncio.create_task(link.close())
        await passing(clock, closing.done, step=0.25, rest=rest)
        await turns()
        assert clock.set_timers == 0
    return took


def refusal(url: str) -> tuple[str, float]:
    """Why *url* is refused, and after how many seconds."""

    async def main() -> tuple[str, float]:
        clock = HandClock()
        began = clock.mono()
        with pytest.raises(StoreError) as caught:
            await opened(url, clock)
        return str(caught.value), clock.mono() - began

    text, took = asyncio.run(main())
    assert PASSWORD not in text
    assert "pl4nted" not in text
    return text, took


async def stood_in(clock: HandClock, facts: dict[str, str]) -> str:
    async with StandIn(clock, facts) as server:
        try:
            await opened(server.url, clock)
        except StoreError as error:
            return str(error).replace(str(server.port), "PORT")
        return ""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis"), "--databases", "4") as server:
        yield server


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"redis_version": "6.0.16"}, "is version 6.0.16: Redis 6.2 or newer is needed, or any Valkey"),
        ({"redis_version": "5.0"}, "is version 5.0: Redis 6.2 or newer is needed, or any Valkey"),
        (
            {"redis_mode": "cluster"},
            "runs in cluster mode, which is not supported: use one primary, with replicas if you like",
        ),
        (
            {"redis_mode": "sentinel"},
            "is a Sentinel, which keeps no data: point REDIS_URL at the primary that it watches",
        ),
        (
            {"role": "slave"},
            "is a replica, which takes no writes: point REDIS_URL at the primary, or at a name that follows it",
        ),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "may throw away any key when its memory is full (allkeys-lru), and with a key a limit is forgotten: "
            "CONFIG SET maxmemory-policy noeviction (and in redis.conf), or use another Redis than the cache's",
        ),
        ({"redis_version": "6.2.0"}, ""),
        ({"redis_version": "10.0.1"}, ""),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.0"}, ""),
    ],
)
def test_a_server_that_must_not_be_used_is_refused_at_once(facts: dict[str, str], said: str) -> None:
    async def main() -> tuple[str, float]:
        clock = HandClock()
        return await stood_in(clock, facts), clock.mono()

    text, now = asyncio.run(main())
    assert text == (f"Redis at 127.0.0.1:PORT {said}" if said else "")
    assert now < 1001.0


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"PING": b"-NOAUTH Authentication required.\r\n"}, "asks for a password: write it into REDIS_URL, as in"),
        ({"PING": b"-DENIED Redis is running in protected mode\r\n"}, "does not answer as a Redis does"),
        ({"PING": b"HTTP/1.1 400 Bad Request\r\n"}, "does not answer as a Redis does: is this the right port"),
        ({"EVALSHA": b"-READONLY You can't write against a read only replica.\r\n"}, "is a replica"),
        ({"EVALSHA": b"*1\r\n$1\r\nx\r\n"}, "does not answer as a Redis does"),
        ({"SCRIPT": b"-NOPERM this user has no permissions to run the 'script' command\r\n"}, "see the ACL line"),
        ({"INFO": b"-NOAUTH Authentication required.\r\n"}, "asks for a password"),
    ],
)
def test_what_the_greeting_is_answered_is_told_in_words(answers: dict[str, bytes], said: str) -> None:
    async def main() -> str:
        clock = HandClock()
        async with StandIn(clock) as server:
            server.answers = answers
            with pytest.raises(StoreError) as caught:
                await opened(server.url, clock)
            return str(caught.value)

    assert said in asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"PING": b"-LOADING Redis is loading the dataset in memory\r\n"}, "it comes back by itself"),
        ({"PING": b""}, "accepts connections, but does not answer"),
        ({"EVALSHA": b"-BUSY Redis is busy running a script.\r\n"}, "SCRIPT KILL"),
        ({"EVALSHA": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"}, "raise its maxmemory"),
    ],
)
def test_what_may_pass_is_waited_for_ten_seconds(answers: dict[str, bytes], said: str) -> None:
    async def main() -> tuple[str, float]:
        clock = HandClock()
        async with StandIn(clock) as server:
            server.answers = answers
            with pytest.raises(StoreError) as caught:
                await opened(server.url, clock)
            return str(caught.value), clock.mono() - 1000.0

    text, took = asyncio.run(main())
    assert said in text
    assert 10.0 <= took <= 13.0


def test_a_redis_that_comes_up_meanwhile_is_used(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        clock = HandClock()
        async with StandIn(clock) as server:
            server.answers = {"PING": b"-LOADING Redis is loading the dataset in memory\r\n"}
            link = server.link()
            opening = asyncio.create_task(link.open(ignore, lambda news: None))
            await passing(clock, lambda: clock.mono() > 1005.0, step=0.25)
            assert not opening.done()
            server.answers = {}
            await passing(clock, opening.done, step=0.25)
            await opening
            assert link.reachable
            await link.close()

    with caplog.at_level(logging.WARNING, "keyturn"):
        asyncio.run(main())
    assert [record.getMessage()[-20:] for record in caplog.records] == ["; waiting up to 10 s"]


@pytest.mark.parametrize(
    ("url", "said", "seconds"),
    [
        (f"redis://:{PASSWORD}@127.0.0.1:1/0", "Redis at 127.0.0.1:1 cannot be reached (connection refused): see", 10),
        ("redis://nowhere.invalid/3", "Redis at nowhere.invalid:6379/3 cannot be reached (no such host name): see", 10),
        ("unix:///nowhere/redis.sock", "Redis at /nowhere/redis.sock cannot be reached (no such socket file): see", 10),
        ("http://127.0.0.1:1/", "REDIS_URL is not an address such as redis://:password@host:6379/0", 0),
        ("redis://127.0.0.1:1/first", "REDIS_URL ends in something that is no number of a database: /0 to /15", 0),
    ],
)
def test_an_address_where_no_redis_is(url: str, said: str, seconds: float) -> None:
    text, took = refusal(url)
    assert text.startswith(said)
    assert seconds <= took <= seconds + 3


def test_the_password_and_the_database_are_checked_by_a_real_redis(redis: RedisProcess) -> None:
    at = redis.url
    redis.command("CONFIG", "SET", "requirepass", "right")
    try:
        assert refusal(at)[0] == (
            f"Redis at {redis.socket} asks for a password: write it into REDIS_URL, as in redis://:password@host:6379/0"
        )
        wrong = "does not accept the user and the password of REDIS_URL"
        coded = PASSWORD.replace("%", "%25").replace(":", "%3A")
        assert refusal(at.replace("unix://", f"unix://:{coded}@"))[0] == f"Redis at {redis.socket} {wrong}"
        assert refusal(at.replace("unix://", f"unix://ada:{coded}@"))[0] == f"Redis at {redis.socket} {wrong}"
        asyncio.run(opened(at.replace("unix://", "unix://:right@"), HandClock()))
    finally:
        redis.command("AUTH", "right")
        _as_default(redis, "right", "CONFIG", "SET", "requirepass", "")
    assert refusal(f"{at}?db=4")[0] == (
        f"Redis at {redis.socket}/4 has no such database: the number at the end of REDIS_URL is 0 to 15 by default"
    )
    asyncio.run(opened(f"{at}?db=3", HandClock()))


def _as_default(redis: RedisProcess, password: str, *command: str) -> None:
    redis.command("AUTH", password, then=command)


def test_an_eviction_policy_is_checked_on_a_real_redis(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    assert "CONFIG SET maxmemory-policy noeviction" in refusal(redis.url)[0]
    redis.command("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    with caplog.at_level(logging.WARNING, "keyturn"):
        asyncio.run(opened(redis.url, HandClock()))
    redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    said = [record.getMessage() for record in caplog.records]
    assert "may throw away counters when its memory is full (volatile-ttl)" in said[0]
    assert "CONFIG SET appendonly yes" in said[1]


def test_a_user_with_the_documented_rights_is_enough_and_one_without_is_told(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    redis.command("ACL", "SETUSER", "keyturn", "on", ">word", *ACL.split())
    redis.command("ACL", "SETUSER", "blind", "on", ">word", *ACL.replace("+info ", "").split())
    redis.command("ACL", "SETUSER", "barred", "on", ">word", *ACL.split(), "-@scripting")
    redis.command("ACL", "SETUSER", "deaf", "on", ">word", *ACL.replace("&t:news", "").split())
    at = redis.url.replace("unix://", "unix://{}:word@")
    asyncio.run(opened(at.format("keyturn"), HandClock()))
    with caplog.at_level(logging.WARNING, "keyturn"):
        caplog.clear()
        asyncio.run(opened(at.format("blind"), HandClock()))
    assert "its version and settings are unknown" in caplog.records[0].getMessage()
    assert "forbids this user a command that is needed" in refusal(at.format("barred"))[0]
    assert "does not let this gateway hear the channel t:news: forbids" in refusal(at.format("deaf"))[0]


def test_tls_is_verified(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def main() -> list[str]:
        clock, found = HandClock(), []
        async with StandIn(clock, tls=context) as server:
            await opened(f"{server.url}?ssl_ca_certs={certificate}", clock)
            for url in (server.url, f"rediss://localhost:{server.port}?ssl_ca_certs={certificate}"):
                with pytest.raises(StoreError) as caught:
                    await opened(url, clock)
                found.append(str(caught.value))
        return found

    unknown, other = asyncio.run(main())
    assert "the TLS connection failed (self" in unknown
    assert "?ssl_ca_certs=/path/to/ca.pem" in unknown
    assert "the TLS connection failed (Hostname mismatch" in other


@pytest.mark.parametrize(("scheme", "told"), [("redis", False), ("rediss", True)])
def test_a_port_that_says_nothing_may_be_one_without_tls(scheme: str, told: bool) -> None:
    async def main() -> str:
        held: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreError) as caught:
            await opened(
                f"{scheme}://:{PASSWORD}@127.0.0.1:{port}/0" if told else f"{scheme}://127.0.0.1:{port}/0", HandClock()
            )
        for writer in held:
            writer.close()
        server.close()
        return str(caught.value)

    text = asyncio.run(main())
    assert ("does not answer" in text) is True
    assert ("does this port speak TLS (if not, write redis:// in REDIS_URL)" in text) is told
    assert PASSWORD not in text


def test_without_redis_py_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    assert refusal("redis://127.0.0.1:1/0")[0] == 'REDIS_URL needs redis-py: pip install "keyturn[redis]"'


def test_the_time_of_an_operation_follows_the_round_trip_within_bounds() -> None:
    assert timeout_for(0.0002) == 0.050
    assert timeout_for(0.012) == pytest.approx(0.120)
    assert timeout_for(0.080) == 0.250


def test_facts_are_read_from_info() -> None:
    facts = read_facts(b"# Server\r\nredis_version:7.2.4\r\nos:Linux 5.4 x86:64\r\n\r\nrole:master\r\n")
    assert facts == {"redis_version": "7.2.4", "os": "Linux 5.4 x86:64", "role": "master"}
    assert unfit({}) == ""
    assert worries({}) == []
