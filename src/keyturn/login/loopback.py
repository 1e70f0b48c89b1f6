"""Waits on 127.0.0.1 for the browser to bring one answer (RFC 8252), and for nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from types import TracebackType

from keyturn.core import Clock, Secret, TimerHandle
from keyturn.errors import KeyturnError
from keyturn.providers import CALLBACK, read_callback

HOST = "127.0.0.1"
USUAL_PORT = 3000
"""The one that OpenRouter is known to send browsers back to."""
LARGEST_HEAD = 16 * 1024
HEAD_WITHIN = 10.0
"""Seconds that a request line may take."""
DONE = "Done. You may close this page; the rest happens in the terminal."
NOT_ASKED_FOR = "This is not the answer that was waited for."


def new_nonce() -> str:
    """What nobody can guess, to know the answer by."""
    return secrets.token_urlsafe(24)


def new_verifier() -> str:
    """A PKCE verifier: 43 characters, for one attempt."""
    return secrets.token_urlsafe(32)


class Callback:
    """One answer to the question with *nonce*, brought by a browser or pasted by hand. Use as `async with`."""

    def __init__(self, clock: Clock, nonce: str, port: int | None) -> None:
        """*port* None: the usual one, else any; 0: any."""
        self._clock = clock
        self._nonce = nonce
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._found: asyncio.Future[Secret] | None = None

    async def __aenter__(self) -> Callback:
        self._found = asyncio.get_running_loop().create_future()
        for port in (USUAL_PORT, 0) if self._port is None else (self._port,):
            try:
                self._server = await asyncio.start_server(self._serve, HOST, port, limit=LARGEST_HEAD)
                break
            except OSError as error:
                if port == 0 or self._port is not None:
                    told = f"port {port} of {HOST} cannot be used: {error.strerror}; --port 0 takes a free one"
                    raise KeyturnError(told) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._found is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(set(self._connections))
        if self._found.done() and not self._found.cancelled():
            self._found.exception()  # looked at, whether or not anybody waited for it

    @property
    def url(self) -> str:
        """Where the browser is to be sent. `localhost`, not the address: some servers know that name only."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"http://localhost:{port}{CALLBACK}{self._nonce}"

    def take(self, target: str) -> bool:
        """Look at an address that the browser was sent to; False when it is not the answer."""
        assert self._found is not None
        if self._found.done():
            return False
        try:
            code = read_callback(target, self._nonce)
        except KeyturnError as error:
            self._found.set_exception(error)
            return True
        if code is None:
            return False
        self._found.set_result(code)
        return True

    async def code(self, seconds: float) -> Secret:
        """The code. Raises KeyturnError: it was refused, or nothing came within *seconds*."""
        found = self._found
        assert found is not None

        def give_up() -> None:
            if not found.done():
                told = f"nothing came back from the browser within {seconds:g} s; start again, or use --paste"
                found.set_exception(KeyturnError(told))

        timer: TimerHandle = self._clock.call_at(self._clock.mono() + seconds, give_up)
        try:
            return await found
        finally:
            timer.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        timer = self._clock.call_at(self._clock.mono() + HEAD_WITHIN, task.cancel)
        try:
            line = await reader.readline()
            words = line.decode("latin-1").split()
            while await reader.readline() not in (b"", b"\r\n", b"\n"):
                continue  # the other headers say nothing of use
            fits = len(words) == 3 and words[0] == "GET" and self.take(words[1])
            writer.write(_page("200 OK", DONE) if fits else _page("404 Not Found", NOT_ASKED_FOR))
            with contextlib.suppress(OSError):
                await writer.drain()
        except (ValueError, OSError, asyncio.CancelledError):
            pass  # a line that is too long, a browser that went away, or the end
        finally:
            timer.cancel()
            writer.close()
            self._connections.discard(task)


def _page(status: str, text: str) -> bytes:
    body = f"<!doctype html><title>Keyturn</title><p>{text}</p>".encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
