"""One real Redis for all tests of a process, a prefix for each test, and a link to it that needs no event loop to wait.

def test_something(redis_hub):
    link = redis_hub.link(lambda: now)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cache
from itertools import count
from math import inf
from typing import Any

import pytest

from keyturn.stores.redis_port import Argument, Away
from keyturn.stores.redis_scripts import SCRIPTS, base_of, channel_of, script

from .redis_process import RedisProcess

GIVEN = "local given = tonumber(table.remove(ARGV))\nlocal function clock() return given end"
"""A clock for scripts that shows what the test says."""
_prefixes = count(1)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """The Redis of this test process, on a Unix socket. Tests keep apart by their prefixes."""
    with RedisProcess(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_hub(redis_server: RedisProcess) -> Iterator[Hub]:
    """A prefix of its own on the Redis of this process."""
    hub = Hub(redis_server)
    yield hub
    hub.close()


@cache
def sources() -> dict[str, str]:
    """The scripts, with the clock of the test."""
    return {name: script(name, GIVEN) for name in SCRIPTS}


class Hub:
    """All links of one test. News reaches them as soon as the script that made it has run."""

    def __init__(self, server: RedisProcess) -> None:
        redis = pytest.importorskip("redis", reason="redis-py is not installed")
        self.prefix = f"test{next(_prefixes)}"
        self.base = base_of(self.prefix)
        self.client = redis.Redis(unix_socket_path=str(server.socket))
        self.links: list[SyncLink] = []
        self._shas = {name: self.client.script_load(text) for name, text in sources().items()}
        self._pubsub = self.client.pubsub()
        self._pubsub.subscribe(channel_of(self.prefix))
        self._hear()
        self.client.set(f"{{{self.prefix}}}:epoch", "first")

    def link(self, now: Callable[[], float], replicas: int = 1) -> SyncLink:
        """Another gateway's link; *now* is its monotonic clock."""
        link = SyncLink(self, now, replicas)
        self.links.append(link)
        return link

    def run(self, name: str, arguments: Sequence[Argument], now: float) -> Any:
        """The reply of a script at *now*, Redis's time."""
        reply = self.client.evalsha(self._shas[name], 0, *arguments, repr(now))
        for message in self._hear():
            for link in self.links:
                link.hear(message)
        return reply

    def keys(self, kind: str = "") -> list[str]:
        """The names of what is kept, without the prefix."""
        found = self.client.keys(f"{self.base}{kind}*")
        return sorted(key.decode().removeprefix(self.base) for key in found)

    def forget(self) -> None:
        """Redis loses everything of this test."""
        for key in self.client.keys(f"{{{self.prefix}}}:*"):
            self.client.delete(key)
        self.client.set(f"{{{self.prefix}}}:epoch", "second")

    def snapshot(self) -> Callable[[], None]:
        """Makes Redis again what it is now, when it is called."""
        kept = {key: self.client.dump(key) for key in self.client.keys(f"{{{self.prefix}}}:*")}

        def put_back() -> None:
            for key in self.client.keys(f"{{{self.prefix}}}:*"):
                self.client.delete(key)
            for key, value in kept.items():
                self.client.restore(key, 0, value)

        return put_back

    def close(self) -> None:
        for key in self.client.keys(f"{{{self.prefix}}}:*"):
            self.client.delete(key)
        self._pubsub.close()
        self.client.close()

    def _hear(self) -> list[bytes]:
        """The news so far: a ping on the channel's own connection comes back after it."""
        found: list[bytes] = []
        self._pubsub.ping()
        while True:
            message = self._pubsub.get_message(timeout=10.0)
            if message is not None and message["type"] == "message":
                found.append(message["data"])
            elif message is not None and message["type"] == "pong":
                return found


class SyncLink:
    """A link that has its answer before it returns, so that it works in virtual time. It fails as the test says."""

    def __init__(self, hub: Hub, now: Callable[[], float], replicas: int) -> None:
        self.trouble = ""
        self.replicas = replicas
        self.shift = 0.0
        self.rewound = inf
        self.queued = 0
        self.sent: Counter[str] = Counter()
        """Scripts that were run, by name."""
        self.silent = False
        """Scripts run, but their answers do not come in time."""
        self.deaf = False
        """News does not arrive."""
        self.late: list[tuple[asyncio.Future[Any], Any]] | None = None
        """A list: answers wait in it until `deliver`."""
        self._hub = hub
        self._now = now
        self._away = True
        self._open = False

    @property
    def reachable(self) -> bool:
        return not self._away

    async def open(self, recover: Callable[[bool], Awaitable[None]], news: Callable[[bytes], None]) -> None:
        self._recover, self._news = recover, news
        self._away, self._open = False, True

    def leave(self) -> None:
        """Redis is away from now on."""
        self._away = self._gone = True

    async def come_back(self, lost: bool = False) -> None:
        """Redis is there again."""
        self._gone = False
        await self._recover(lost)
        self._away = False

    _gone = False

    def ask(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        if self._gone:
            future.set_exception(Away("gone"))
            return future
        reply = self._run(script, arguments)
        if self.silent:
            future.set_exception(Away("too slow"))
        elif self.late is not None:
            self.late.append((future, reply))
        else:
            future.set_result(reply)
        return future

    def deliver(self) -> None:
        """The answers that are late come now."""
        late, self.late = self.late or [], []
        for future, reply in late:
            if not future.done():
                future.set_result(reply)

    def tell(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> bool:
        if self._away:
            return False
        self._run(script, arguments)
        return True

    def hear(self, message: bytes) -> None:
        """One message of the channel."""
        if self._open and not self.deaf and not self._gone:
            try:
                asyncio.get_running_loop().call_soon(self._news, message)
            except RuntimeError:
                self._news(message)

    async def close(self) -> None:
        self._away = self._gone = True
        self._open = False

    def _run(self, script: str, arguments: Sequence[Argument]) -> Any:
        self.sent[script] += 1
        return self._hub.run(script, arguments, self._now() + self.shift)
