"""A gateway that answers what a test tells it to, and an ASGI client to ask the application in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from keyturn.config import DataFolder, ResponsesSettings, ServerSettings
from keyturn.core import Call, Caller, Clock, Credential, Offer, Redactor, RouteCatalog, Secret
from keyturn.dispatch import CallEnded, Event, Events, Gateway, ModelRow, Reply, Strain
from keyturn.dispatch.keeping import KeptResponses
from keyturn.server import Access, App, Pages
from keyturn.stores import LiveStanding, NullLedger
from tests.support import virtual

KEY = "kt-the-callers-key-0123456789"
ADMIN_KEY = "the-admin-key-0123456789"
LOCAL = ("127.0.0.1", 50000)
REMOTE = ("203.0.113.7", 50000)
JSON = (b"content-type", b"application/json")
CHAT = b'{"model": "groq/x", "messages": [{"role": "user", "content": "Hi"}]}'

Handle = Callable[[Call], Awaitable[Reply]]


class Pieces:
    """A stream of prepared pieces; an exception among them is raised, a future is waited for."""

    def __init__(self, *pieces: bytes | BaseException | asyncio.Future[bytes]) -> None:
        self._pieces = list(pieces)
        self.closed = 0

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece if isinstance(piece, bytes) else await piece

    def close(self) -> None:
        self.closed += 1


async def hello(call: Call) -> Reply:
    return Reply(200, [JSON, (b"x-keyturn-key", b"groq-1:abcdef")], b'{"hello": true}')


class FakeGateway:
    """What the server uses of a gateway. *handle_call* answers calls."""

    def keep_time(self) -> None:
        """Nothing here resets at midnight."""

    def __init__(self, handle_call: Handle = hello, clock: Clock | None = None, **settings: Any) -> None:
        self.handle_call = handle_call
        self.clock: Clock = clock or virtual.VirtualClock()
        self.credential = Credential.of("groq", "gsk_planted_secret_of_groq_1", 1)
        self.config = SimpleNamespace(
            server=ServerSettings(**settings),
            credentials={"groq": (self.credential,)},
            caller_key=Secret(KEY),
            callers={},
            default_caller=Caller(),
            names={},
            redis=None,
            responses=ResponsesSettings(),
        )
        self.events = Events()
        self.seen: list[Event] = []
        self.events.subscribe(self.seen.append)
        self.redactor = Redactor([self.credential.secret])
        offer = Offer(1, True, frozenset({"llama-3.1-8b-instant"}), "GROQ_API_KEY")
        self.lists = SimpleNamespace(catalog=RouteCatalog({"groq": offer}, {}, {}))
        self.room = SimpleNamespace(waiting=0)
        self.live = SimpleNamespace(standing=lambda: LiveStanding("memory", True, 1, 0))
        self.ledger = NullLedger()
        self.responses = KeptResponses(cast(Gateway, self))
        self.inflight = 0
        self.strain = Strain()
        self.leaving = False
        self.draining = False
        self.opened = False
        self.cancelled = 0
        self.calls: list[tuple[Call, Caller, str]] = []
        self.changes: list[tuple[str, str | None]] = []
        self.closed = False
        self.keep_answer = 0
        self.tracer = None
        self.idle = asyncio.Event()

    async def handle(self, call: Call, caller: Caller, call_id: str) -> Reply:
        self.calls.append((call, caller, call_id))
        self.inflight += 1
        try:
            return await self.handle_call(call)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inflight -= 1
            if not self.inflight:
                self.idle.set()

    async def models(self, caller: Caller) -> list[ModelRow]:
        return [
            ModelRow("groq/llama-3.1-8b-instant", "groq", 0),
            ModelRow("openrouter/deepseek/r1:free", "openrouter", 7),
        ]

    def providers(self) -> list[dict[str, object]]:
        return [{"name": "groq", "state": "ready"}]

    def keys(self, provider: str | None = None) -> list[dict[str, object]]:
        return [{"provider": "groq", "key": self.credential.shown, "state": "healthy"}]

    def reset(self, key: str | None) -> list[str]:
        self.changes.append(("reset", key))
        return [self.credential.shown]

    def disable(self, key: str) -> list[str]:
        self.changes.append(("disable", key))
        return [self.credential.shown]

    def enable(self, key: str) -> list[str]:
        self.changes.append(("enable", key))
        return [self.credential.shown]

    def ready(self) -> str | None:
        return "shutting down" if self.draining or self.leaving else None

    async def open(self) -> None:
        self.opened = True

    async def refresh(self) -> None:
        """Every limit stands as it is known."""

    def drain(self) -> None:
        self.draining = True

    async def drained(self, seconds: float) -> bool:
        if self.inflight:
            timer = self.clock.call_at(self.clock.mono() + seconds, self.idle.set)
            self.idle.clear()
            await self.idle.wait()
            timer.cancel()
        return not self.inflight

    async def close(self) -> None:
        self.closed = True

    @property
    def ended(self) -> list[CallEnded]:
        return [event for event in self.seen if isinstance(event, CallEnded)]


class FakeObserver:
    def __init__(self) -> None:
        self.said: list[str] = []

    def metrics_page(self) -> bytes:
        return b"keyturn_requests_total 1\n"

    def say(self, text: str) -> None:
        self.said.append(text)


def make_app(gateway: FakeGateway, folder: Path | None = None, **access: Any) -> App:
    """The application over *gateway*; *access* overrides what Access is made with."""
    real = cast(Gateway, gateway)
    settings = gateway.config.server
    options: dict[str, Any] = {
        "bound_host": settings.host,
        "allowed_hosts": settings.allowed_hosts,
        "caller_key": Secret(KEY),
        "admin_key": Secret(ADMIN_KEY),
        "trust_local": settings.trust_local,
        **access,
    }
    return App(real, Access(**options), Pages(real, FakeObserver(), DataFolder(folder or Path("/nonexistent"))))


class Answer:
    """What came back."""

    def __init__(self, messages: Sequence[dict[str, Any]]) -> None:
        self.messages = messages
        self.status: int = messages[0]["status"]
        self.pairs = [(name.decode(), value.decode()) for name, value in messages[0]["headers"]]
        self.headers = dict(self.pairs)
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        self.complete = not messages[-1].get("more_body", False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Client:
    """One request to *app*: `start` it, let the client `leave`, or just `ask`."""

    def __init__(
        self,
        app: App,
        path: str | bytes = "/v1/chat/completions",
        method: str = "POST",
        *,
        body: bytes | Sequence[bytes] = CHAT,
        headers: dict[str, str] | Sequence[tuple[bytes, bytes]] = (),
        key: str | None = KEY,
        host: str | None = "127.0.0.1:8000",
        peer: tuple[str, int] | None = LOCAL,
        query: bytes = b"",
    ) -> None:
        given = headers.items() if isinstance(headers, dict) else ()
        raw = [(name.encode(), value.encode()) for name, value in given]
        raw += [] if isinstance(headers, dict) else list(headers)
        if host is not None:
            raw.append((b"host", host.encode()))
        if key is not None:
            raw.append((b"authorization", f"Bearer {key}".encode()))
        self.scope = {
            "type": "http",
            "method": method,
            "raw_path": path if isinstance(path, bytes) else path.encode(),
            "headers": raw,
            "client": peer,
            "query_string": query,
        }
        self._app = app
        pieces = [body] if isinstance(body, bytes) else list(body)
        self._incoming = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
            for number, piece in enumerate(pieces, 1)
        ]
        self.sent: list[dict[str, Any]] = []
        self.received = 0
        self._left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.received += 1
        if self._incoming:
            return self._incoming.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._app(self.scope, self.receive, self.send))

    def leave(self) -> None:
        self._left.set()

    @property
    def answer(self) -> Answer:
        return Answer(self.sent)


async def ask(app: App, path: str | bytes = "/v1/chat/completions", method: str = "POST", **more: Any) -> Answer:
    """The whole answer to one request."""
    client = Client(app, path, method, **more)
    await client.start()
    return client.answer
