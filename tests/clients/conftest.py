"""The official `openai` SDK in its two kinds, and one gateway over a pool in which most keys fail on purpose.

What takes `EACH_WAY` is run a second time with the pool in this process, behind `transport_for_openai()`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import openai
import pytest

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import KeyRule, Simulator
from tests.support.serving import Served, Upstreams, serve, simulate

from .in_process import InProcess

DEAD, LIMITED, BROKEN, SLOW = "sk-dead-1111", "sk-limited-2222", "sk-broken-3333", "sk-slow-4444"
"""The keys of openai in the order in which they are tried; only the last one ever answers."""

KEYS = {
    "openai": {
        DEAD: KeyRule(state="invalid_key"),
        LIMITED: KeyRule(state="rate_limited"),
        BROKEN: KeyRule(),
        SLOW: KeyRule(),
    },
    "deepseek": {},
}
MODELS = {"groq": ["llama-3.1-8b-instant", "openai/gpt-oss-20b"]}
FAULTS: tuple[dict[str, Any], ...] = ({"key": BROKEN, "status": 500}, {"key": SLOW, "latency": 0.03})
"""What makes a key broken and a key slow; a test that writes a script of its own puts its faults in front of these."""


QUICKLY = 0.25
"""Seconds within which the provider notices that a client has left."""
TRIES = 8
MOST_GENERATORS = 10
"""How many generators may be behind a stream of the asynchronous SDK."""

T = TypeVar("T")


EACH_WAY = pytest.mark.parametrize("way", ["http", "in_process"], indirect=True)


@pytest.fixture(scope="package")
def simulated() -> Iterator[Upstreams]:
    with simulate(Simulator(SystemClock(), draw, keys=KEYS, models=MODELS, keep_bodies=True)) as upstreams:
        yield upstreams


@pytest.fixture(scope="package")
def environment(simulated: Upstreams) -> dict[str, str]:
    """What the pool is configured with."""
    environ = {f"OPENAI_API_KEY_{number}": key for number, key in enumerate(KEYS["openai"], 1)}
    environ |= {
        f"{name.upper()}_API_BASE": f"{simulated.url}/{name}/v1" for name in ("openai", "groq", "deepseek", "mistral")
    }
    return environ | {
        "LEARNING_ENABLED": "false",  # what one test has a key refuse is no limit of the next
        "GROQ_API_KEY": "gsk_good",
        "DEEPSEEK_API_KEY_1": "sk-revoked-1",
        "DEEPSEEK_API_KEY_2": "sk-revoked-2",
        "DEEPSEEK_MODELS": "deepseek-chat",
        "MISTRAL_API_KEY": "mistral-good",
        "LIMITS_MISTRAL": "rpm=2",
    }


@pytest.fixture(scope="package")
def running(
    tmp_path_factory: pytest.TempPathFactory, simulated: Upstreams, environment: dict[str, str]
) -> Iterator[tuple[Served, Upstreams]]:
    with serve(tmp_path_factory.mktemp("gateway"), environment) as gateway:
        yield gateway, simulated


@pytest.fixture(scope="package")
def in_process(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[InProcess]:
    pool = InProcess(tmp_path_factory.mktemp("pool"), environment)
    yield pool
    pool.close()


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How the pool is reached: over `http` unless a test is run each way."""
    found: str = getattr(request, "param", "http")
    return found


@pytest.fixture
def gateway(way: str, request: pytest.FixtureRequest) -> Served | InProcess:
    """The gateway, or the pool in this process, with every cooldown of earlier tests cleared."""
    found: Served | InProcess
    found = request.getfixturevalue("in_process") if way == "in_process" else request.getfixturevalue("running")[0]
    found.reset()
    return found


@pytest.fixture
def upstreams(simulated: Upstreams) -> Upstreams:
    """The providers, with an empty log and no faults but the usual ones."""
    simulated.settled()
    simulated.script(*FAULTS)
    simulated.forget()
    return simulated


class Sdk(ABC):
    """A client of one kind. What it has sent is in *sent*; it tries once unless *max_retries* says otherwise.

    *ask* is given the client and calls one of its methods; of an asynchronous client the result is awaited.
    """

    def __init__(self, base_url: str, api_key: str, pool: InProcess | None = None) -> None:
        self.sent: list[Any] = []
        self.options: dict[str, Any] = {"base_url": base_url, "api_key": api_key, "max_retries": 0}
        self.pool = pool

    @abstractmethod
    def call(self, ask: Callable[[Any], Any]) -> Any:
        """What *ask* returns."""

    @abstractmethod
    def chunks(self, ask: Callable[[Any], Any]) -> list[Any]:
        """Everything that the stream which *ask* returns brings. An error on the way is raised, with what came before
        it in its `chunks`."""

    @abstractmethod
    def events(self, ask: Callable[[Any], Any]) -> tuple[list[Any], Any]:
        """The events of the streaming helper that *ask* returns, and the completion that it has put together."""

    def chat(self, model: str, text: str = "Hello", **members: Any) -> Any:
        return self.call(lambda client: client.chat.completions.create(model=model, messages=say(text), **members))

    def stream(self, model: str, text: str = "Hello", **members: Any) -> list[Any]:
        members |= {"model": model, "messages": say(text), "stream": True}
        return self.chunks(lambda client: client.chat.completions.create(**members))


class Sync(Sdk):
    def call(self, ask: Callable[[Any], Any]) -> Any:
        with self._client() as client:
            return ask(client)

    def chunks(self, ask: Callable[[Any], Any]) -> list[Any]:
        found: list[Any] = []
        with self._client() as client:
            try:
                found.extend(ask(client))  # extends by each chunk as it comes, so that an error leaves the others
            except openai.APIError as error:
                error.chunks = found  # type: ignore[attr-defined]
                raise
        return found

    def events(self, ask: Callable[[Any], Any]) -> tuple[list[Any], Any]:
        with self._client() as client, ask(client) as stream:
            return list(stream), stream.get_final_completion()

    def _client(self) -> openai.OpenAI:
        if self.pool is not None:
            http_client = self.pool.transport("openai", asynchronous=False)
            http_client.event_hooks = {"request": [self.sent.append]}
        else:
            http_client = openai.DefaultHttpxClient(event_hooks={"request": [self.sent.append]})
        return openai.OpenAI(http_client=http_client, **self.options)


class Async(Sdk):
    def call(self, ask: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            async with self._client() as client:
                return await ask(client)

        return run(main)

    def chunks(self, ask: Callable[[Any], Any]) -> list[Any]:
        found: list[Any] = []

        async def main() -> list[Any]:
            async with self._client() as client:
                try:
                    async for chunk in await ask(client):
                        found.append(chunk)
                except openai.APIError as error:
                    error.chunks = found  # type: ignore[attr-defined]
                    raise
            return found

        return run(main)

    def events(self, ask: Callable[[Any], Any]) -> tuple[list[Any], Any]:
        async def main() -> tuple[list[Any], Any]:
            async with self._client() as client, ask(client) as stream:
                return [event async for event in stream], await stream.get_final_completion()

        return run(main)

    def _client(self) -> openai.AsyncOpenAI:
        async def note(request: Any) -> None:
            self.sent.append(request)

        if self.pool is not None:
            http_client = self.pool.transport("openai", asynchronous=True)
            http_client.event_hooks = {"request": [note]}
        else:
            http_client = openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
        return openai.AsyncOpenAI(http_client=http_client, **self.options)


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[Sdk]:
    found: type[Sdk] = request.param
    return found


@pytest.fixture
def sdk(kind: type[Sdk], gateway: Served | InProcess, upstreams: Upstreams) -> Sdk:
    """A client of the gateway: tests that take it run once with each kind."""
    pool = gateway if isinstance(gateway, InProcess) else None
    return kind(gateway.base_url, gateway.caller_key, pool)


def options_of(gateway: Served | InProcess, sdk: str = "openai", *, asynchronous: bool = False) -> dict[str, Any]:
    """What a client of *sdk* is made with to reach the gateway, or the pool in this process."""
    url = gateway.base_url if sdk == "openai" else gateway.url
    found: dict[str, Any] = {"base_url": url, "api_key": gateway.caller_key, "max_retries": 0}
    if isinstance(gateway, InProcess):
        found["http_client"] = gateway.transport(sdk, asynchronous=asynchronous)
    return found


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`asyncio.run`, but that tasks which the SDK leaves to the loop may end first: at `[DONE]` it drops the generators
    behind a stream, and the loop closes each in a task of its own, one after the other, from the outermost to the
    innermost."""

    async def whole() -> T:
        try:
            return await main()
        finally:
            for _ in range(MOST_GENERATORS):
                await asyncio.sleep(0)
                if others := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait(others, timeout=5)

    return asyncio.run(whole())


def assert_let_go(upstreams: Upstreams, leave: Callable[[], float]) -> None:
    """The one upstream request of *leave* ends within `QUICKLY` of the moment (monotonic seconds) that it returns.

    It has a few tries: whoever runs at the same time may keep the processors for longer than that.
    """
    late: list[float] = []
    while not late or late[-1] >= QUICKLY:
        assert len(late) < TRIES, f"it took {late} s"
        upstreams.forget()
        left = leave()
        [exchange] = upstreams.seen()
        assert exchange.result == "cancelled"
        assert exchange.ended is not None
        late.append(exchange.ended - left)


def say(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def text_of(chunks: list[Any]) -> str:
    """The content of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
