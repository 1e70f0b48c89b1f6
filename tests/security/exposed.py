"""A gateway with a hundred planted keys, and everything by which it shows itself, collected for the search."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from keyturn.config import Config, DataFolder, load
from keyturn.dispatch import Gateway, build
from keyturn.providers import CATALOG
from keyturn.server import Access, App, Pages
from keyturn.telemetry import Telemetry
from tests.support import asgi, virtual

from .planted import SECRETS, Collected, env_line

APP = "upstreams"
PROVIDERS = ("openai", "groq", "together", "openrouter", "gemini", "mistral", "deepseek")
CALLER_KEY = SECRETS[24]
"""300 characters; one of the hundred."""
Keys = Mapping[str, Sequence[str]]


def dealt(secrets: Sequence[str]) -> Keys:
    """*secrets* as keys of the providers, in turn."""
    return {name: secrets[number :: len(PROVIDERS)] for number, name in enumerate(PROVIDERS)}


KEYS: Keys = dealt([key for key in SECRETS if key != CALLER_KEY])
PAGES = (
    *("/", "/healthz", "/readyz", "/metrics", "/admin/keys", "/admin/status", "/admin/models"),
    *("/v1/models", "/v1/models/groq/small", "/v1/models/nothing", "/v1/providers", "/v1/responses", "/nothing/here"),
)


def configuration(folder: Path, keys: Keys = KEYS) -> Config:
    """Half of the keys in the environment, half in an env file; the caller key is one of the hundred."""
    named = {
        f"{name.upper()}_API_KEY_{number}": key for name, each in keys.items() for number, key in enumerate(each, 1)
    }
    filed = [name for number, name in enumerate(named) if number % 2]
    env_file = folder / ".env"
    env_file.write_text("".join(env_line(name, named[name]) for name in filed))
    environ = {name: key for name, key in named.items() if name not in filed} | {"PROXY_API_KEY": CALLER_KEY}
    config = load(environ, env_file=env_file, cwd=folder)
    assert {key.secret.reveal() for keys in config.credentials.values() for key in keys} == set(named.values())
    rows = {
        name: replace(CATALOG[name], local_app=APP, base_url=f"http://upstream/{name}/v1") for name in config.providers
    }
    return replace(config, providers=rows, data=folder / "data")


class Exposed:
    """The gateway over *upstream*, in virtual time. What it answers, logs and writes is in *collected*."""

    def __init__(self, folder: Path, upstream: asgi.App, keys: Keys = KEYS) -> None:
        self.collected = Collected()
        self.chapter = ""
        """What the story tells just now, for the message of a test that fails."""
        self.folder = DataFolder(folder / "data")
        self.folder.create()
        self.gateway: Gateway = build(configuration(folder, keys), clock=virtual.VirtualClock(), apps={APP: upstream})
        self.admin_key = self.folder.new_admin_key()
        self.folder.publish("http://127.0.0.1:8000")
        assert self.gateway.config.caller_key is not None
        self.gateway.redactor.add(self.gateway.config.caller_key, self.admin_key)
        self._logs = {"console log": io.StringIO(), "json log": io.StringIO()}
        recordings = self.folder.path / "requests"
        self._telemetry = [
            Telemetry(self.gateway, self._logs["console log"]),
            Telemetry(self.gateway, self._logs["json log"], as_json=True, recordings=recordings),
        ]
        access = Access(
            bound_host="127.0.0.1",
            allowed_hosts=(),
            caller_key=self.gateway.config.caller_key,
            admin_key=self.admin_key,
        )
        self.app = App(self.gateway, access, Pages(self.gateway, self._telemetry[0], self.folder))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gateway.close()
        for telemetry in self._telemetry:
            telemetry.close()
        for place, log in self._logs.items():
            for line in log.getvalue().splitlines():
                self.collected.add(place, line)
        for path in self.folder.path.rglob("*"):
            if path.is_file() and path != self.folder.admin_key_file:
                self.collected.add(path.name, path.read_bytes())

    async def ask(self, method: str, path: str, *, key: str = CALLER_KEY, **more: Any) -> asgi.Reply:
        """One request of a client; its answer is collected."""
        headers = [("host", "127.0.0.1:8000"), *more.pop("headers", ())]
        reply = await asgi.call(self.app, method, path, key=key, headers=headers, **more)
        what = f"{self.chapter}, {method} {path[:30]} {reply.status}"
        self.collected.add(f"body of {what}", reply.body)
        self.collected.add(f"headers of {what}", b"\n".join(name + b": " + value for name, value in reply.raw_headers))
        return reply

    async def chat(self, model: str, *, stream: bool = False, text: str = "Hello") -> asgi.Reply:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        return await self.ask("POST", "/v1/chat/completions", json=body)

    async def visit_pages(self) -> None:
        """Every page, for everybody who may and may not see it."""
        admin = [("x-keyturn-admin", self.admin_key.reveal())]
        for path in PAGES:
            await self.ask("GET", path, headers=admin)
            await self.ask("GET", path, key="")
            await self.ask("POST", path, body=b"{}")
        for action in ("disable", "enable", "reset"):
            assert (
                await self.ask("POST", f"/admin/keys/{action}", json={"key": "groq-1"}, headers=admin)
            ).status == 200


@contextmanager
def library_logs(gateway: Gateway) -> Iterator[io.StringIO]:
    """What is logged through `logging` meanwhile, as `serve` sends it to its log."""
    import logging

    from keyturn.telemetry import redact_libraries

    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    before = root.handlers[:], root.level, uvicorn.level
    log = io.StringIO()
    redact_libraries(gateway.redactor, log)
    try:
        yield log
    finally:
        root.handlers[:], root.level, uvicorn.level = before
