"""The gateway that owns the data folder: requests go to it over loopback, with the caller's key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from keyturn.core import Call, HttpRequest, Secret, UpstreamResponse
from keyturn.dispatch import PLACES, Door, Reply, SystemClock, read_call
from keyturn.errors import Draining, KeyturnError, TransportError, UpstreamInterrupted
from keyturn.transport import HttpTransport

from .doorway import NO_HEADERS
from .failures import failure
from .hooks import announce, upcoming
from .pool import Callback, Gone

PATHS = {(place.name, place.argument): place.path for place in PLACES}
LARGEST_ANSWER = 256 * 1024 * 1024
UNREACHED = frozenset({"refused", "unreachable", "dns", "connect_timeout"})
"""Faults after which certainly nothing was asked."""
ATTEMPTS = "keyturn_upstream_attempts_total{"
LABEL = re.compile(r'(provider|result)="([^"]*)"')
JSON = ("content-type", "application/json")
Auth = tuple[str, str, Secret]


class RemoteDoorway:
    """Asks the gateway of process *pid* at *url*. *admin* proves that the data folder is ours, *caller* who asks."""

    def __init__(self, url: str, pid: int, admin: Secret, caller: Secret | None) -> None:
        self.pid = pid
        self._url = url
        self._admin: Auth = ("x-keyturn-admin", "", admin)
        self._caller: Auth | None = None if caller is None else ("authorization", "Bearer ", caller)
        self._transport = HttpTransport(SystemClock())
        self._streams = 0
        self._left = False
        self._closing: asyncio.Task[None] | None = None

    async def ask(
        self,
        door: Door,
        body: bytes,
        headers: Mapping[str, str] = NO_HEADERS,
        argument: str = "",
        query: str = "",
        *,
        callback: Callback | None = None,
    ) -> Reply:
        """As `Doorway.ask`. *callback* is awaited once: which attempts there are, the gateway decides.

        Raises Gone when there is no gateway any more, KeyturnError when it broke off before it had answered.
        """
        if callback is not None:
            body = await _called_back(callback, door, body, headers, argument, query)
        path = PATHS.get((door, argument)) or PATHS.get((door, ""), "")
        if door == "gemini":
            model, _, method = argument.rpartition(":")
            path = f"/v1beta/models/{quote(model, safe='/')}:{method}"
        told = headers if "content-type" in headers else {**headers, "content-type": "application/json"}
        sent = HttpRequest(
            "POST", f"{self._url}{path}{'?' if query else ''}{query}", tuple(told.items()), body, self._caller
        )
        response = await self._send(sent)
        heard = [(name.encode(), value.encode("latin-1")) for name, value in response.headers.items()]
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return Reply(response.status, heard, stream=RemoteStream(response, self._begun()))
        answer = await self._whole(response)
        if response.status == 503 and failure(503, (), answer).code == Draining.code:
            raise Gone(f"the gateway (process {self.pid}) is shutting down; ask again in a moment", self.pid)
        return Reply(response.status, heard, answer)

    async def close(self) -> None:
        await self._transport.close()

    async def leave(self) -> None:
        self._left = True
        if not self._streams:
            await self.close()

    def _begun(self) -> Callable[[], None]:
        """A stream began; what it is to call at its end."""
        self._streams += 1
        return self._ended

    def _ended(self) -> None:
        self._streams -= 1
        if self._left and not self._streams:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def trail(self, call_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._page("/admin/trace", self._admin, {"call": call_id})
        return found

    async def models(self) -> list[tuple[str, str]]:
        rows = (await self._page("/v1/models", self._caller))["data"]
        return [(row["id"], row["owned_by"]) for row in rows]

    async def quota_stats(self, provider: str | None) -> dict[str, Any]:
        query = "" if provider is None else f"?provider={quote(provider)}"
        found: dict[str, Any] = await self._page(f"/v1/quota-stats{query}", self._caller)
        return found

    async def keys(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._page("/admin/keys", self._admin)
        return found

    async def reset(self, key: str | None) -> list[str]:
        found: list[str] = (await self._page("/admin/keys/reset", self._admin, {"key": key}))["keys"]
        return found

    async def providers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._page("/v1/providers", self._caller))["data"]
        return found

    async def tally(self) -> dict[str, tuple[int, int]]:
        """Of the gateway, since it was started: everybody's calls."""
        response = await self._send(HttpRequest("GET", f"{self._url}/metrics", ()))
        return counted((await self._whole(response)).decode())

    async def count_tokens(self, question: Mapping[str, Any]) -> int:
        return int((await self._page("/v1/token-count", self._caller, question))["token_count"])

    async def _page(self, path: str, auth: Auth | None, question: object = None) -> Any:
        """What the gateway answers at *path*, decoded. Raises what it says when it refuses."""
        body = b"" if question is None else msgspec.json.encode(question)
        response = await self._send(HttpRequest("POST" if body else "GET", self._url + path, (JSON,), body, auth))
        answer = await self._whole(response)
        if response.status == 401 and auth is self._admin:  # each start makes another key
            raise Gone(f"another gateway than process {self.pid} runs at {self._url}")
        if response.status != 200:
            raise failure(response.status, (), answer)
        return msgspec.json.decode(answer)

    async def _send(self, request: HttpRequest) -> UpstreamResponse:
        try:
            try:
                return await self._transport.send(request, _nothing)
            except TransportError as error:
                if error.kind != "stale":
                    raise
                return await self._transport.send(request, _nothing)
        except TransportError as error:
            if error.kind in UNREACHED:
                raise Gone(f"the gateway (process {self.pid}) does not answer at {self._url}", self.pid) from error
            raise self._broken() from error

    async def _whole(self, response: UpstreamResponse) -> bytes:
        try:
            return await response.read(LARGEST_ANSWER)
        except TransportError as error:
            raise self._broken() from error
        finally:
            response.close()

    def _broken(self) -> KeyturnError:
        return KeyturnError(
            f"the gateway (process {self.pid}) at {self._url} broke off before it had answered; the call may have been "
            "made all the same"
        )


class RemoteStream:
    """The bytes of a stream as the gateway sends them."""

    def __init__(self, response: UpstreamResponse, ended: Callable[[], None]) -> None:
        self._response = response
        self._chunks = response.chunks()
        self._ended: Callable[[], None] | None = ended

    def __aiter__(self) -> RemoteStream:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._chunks.__anext__()
        except TransportError as error:
            raise UpstreamInterrupted("the answer was interrupted: the gateway went away") from error

    def close(self) -> None:
        self._response.close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def _nothing() -> None:
    """Whether a request was written in full is not asked here: the transport's faults tell."""


async def _called_back(
    callback: Callback, door: Door, body: bytes, headers: Mapping[str, str], argument: str, query: str
) -> bytes:
    """The body after *callback* has seen the call."""
    try:
        call: Call = read_call(door, body, headers, argument, query)
    except KeyturnError:
        return body  # the gateway says what is wrong with it
    await announce(callback.hook, call, upcoming("", call, 1, None), abort=callback.abort)
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in call.members.items()})


def counted(page: str) -> dict[str, tuple[int, int]]:
    """Provider -> attempts answered well and others, of what `/metrics` says."""
    counts: dict[str, list[int]] = {}
    for line in page.splitlines():
        if line.startswith(ATTEMPTS):
            said = dict(LABEL.findall(line))
            if said["result"] != "cancelled":
                found = counts.setdefault(said["provider"], [0, 0])
                found[said["result"] != "ok"] += int(float(line.rpartition(" ")[2]))
    return {provider: (good, bad) for provider, (good, bad) in counts.items()}
