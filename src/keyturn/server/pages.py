"""The answers that are not calls: models, providers, health, and what our own commands ask of a running gateway."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import parse_qs

import msgspec

from keyturn import __version__
from keyturn.config import DataFolder
from keyturn.core import Call, Caller, Credential, Usage, call_of_size, nearest_models
from keyturn.dispatch import Gateway, Reloader, cost, first_asked, matching, readiness
from keyturn.errors import BadRequest, KeyturnError, ModelNotFound, UnknownPath
from keyturn.providers import known
from keyturn.wire import model_page, models_page

from .ledger_pages import LedgerPages
from .together import Together

if TYPE_CHECKING:
    from .siblings import Siblings

JSON = (b"content-type", b"application/json")
OWNER = Caller()
PROMETHEUS = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class Observer(Protocol):
    """What the server needs of telemetry."""

    def metrics_page(self) -> bytes | None: ...
    def say(self, text: str) -> None: ...


class Page:
    """One answer: JSON with status 200, unless said otherwise."""

    __slots__ = ("body", "content_type", "status")

    def __init__(self, content: object, status: int = 200, content_type: tuple[bytes, bytes] = JSON) -> None:
        self.body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.status = status
        self.content_type = content_type


class AdminRequest(msgspec.Struct):
    """The body of `POST /admin/…`."""

    key: str | None = None
    """A label (`groq-2`), a shown form, a fingerprint or a provider."""
    call: str | None = None
    """A call's id."""
    route: str | None = None
    """The name to explain; *needs* says what the call would need, of `vision`, `tools`, `json`, `audio`."""
    caller: str | None = None
    needs: list[str] = []
    stream: bool = False
    tokens: int | None = None
    """Of its prompt and, *output*, the most of its answer: what it would be charged, and cost."""
    output: int | None = None


class Asked(NamedTuple):
    """What a request says beside the name of its page."""

    caller: Caller
    argument: str = ""
    """The part of the path that varies."""
    query: bytes = b""
    body: bytes = b""
    dialect: str = "openai_chat"
    """Of who asks."""
    method: str = "GET"


class Question(msgspec.Struct):
    """The body of `POST /v1/token-count` and `/v1/cost-estimate`; what is missing counts as nothing."""

    model: str
    text: str = ""
    messages: msgspec.Raw | None = None
    tools: msgspec.Raw | None = None
    input: msgspec.Raw | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0


class Pages:
    """Reads the gateway and, for the owner, changes it."""

    def __init__(
        self,
        gateway: Gateway,
        observer: Observer,
        folder: DataFolder,
        reloader: Reloader | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        self._gateway = gateway
        self._folder = folder
        self._reloader = reloader
        self._together = Together(gateway, observer.metrics_page, self._status, reloader, siblings)
        self._ledger = LedgerPages(gateway, self._together.recorded, self._together.story)

    async def page(self, name: str, asked: Asked) -> Page:
        """The page called *name* in paths.py. Raises RequestError."""
        match name:
            case "models":
                rows = await self._gateway.models(asked.caller)
                return Page(models_page(asked.dialect, ((row.id, row.provider, row.created) for row in rows)))
            case "model":
                return await self._model(asked)
            case "response" | "input_items":
                return Page(await self._kept_response(name, asked))
            case "token_count":
                return await self._token_count(_question(asked.body), asked.caller)
            case "cost_estimate":
                asked_for = _question(asked.body)
                used = Usage(asked_for.prompt_tokens, asked_for.completion_tokens, asked_for.cache_read_tokens)
                return Page(await cost(self._gateway, asked.caller, asked_for.model, used))
            case "quota_stats":
                await self._gateway.refresh()
                return Page(self._gateway.quota_stats(asked.caller, _provider(asked.query)))
            case "headroom":
                return Page(await self._headroom(asked.caller, asked.query))
            case "call":
                from .call_pages import call_told

                return Page(await call_told(self._gateway, asked.caller, asked.argument, self._together.story))
            case "admin_headroom":
                return Page(await self._watched(asked.query))
            case "providers":
                return Page({"object": "list", "data": self._gateway.providers(asked.caller)})
            case "home":
                return Page({"status": "ok", "name": "keyturn", "version": __version__})
            case "healthz":
                return Page({"status": "ok"})
            case "readyz":
                told = readiness(self._gateway)._asdict()
                reason = told.pop("reason")
                return Page({"status": reason or "ready", **told}, 200 if reason is None else 503)
            case "metrics":
                return _metrics(await self._together.metrics())
            case _:
                return await self._admin_page(name, asked.body)

    async def _headroom(self, caller: Caller, query: bytes) -> dict[str, Any]:
        """What each route can take, for calls of the size that *query* says."""
        said = parse_qs(query.decode("latin-1"))
        route = said.get("route", [None])[-1]
        return await self._gateway.headroom(caller, route, _amount(said, "tokens"), _amount(said, "output"))

    async def _watched(self, query: bytes) -> dict[str, Any]:
        """What `keyturn top` shows."""
        told = await self._headroom(OWNER, query)
        minute = await self._together.minute()
        calls = {route: {"calls": counts[0], "errors": counts[1]} for route, counts in minute.items()}
        status = await self._together.status()
        names = ("version", "pid", "ready", "draining", "inflight", "waiting")
        return {**told, "minute": calls, "status": {name: status[name] for name in names}}

    async def _kept_response(self, name: str, asked: Asked) -> bytes:
        from .response_pages import ResponsePages

        pages = ResponsePages(self._gateway)
        if name == "input_items":
            return await pages.input_items(asked.caller, asked.argument, asked.query)
        return await pages.response(asked.caller, asked.argument, asked.query, delete=asked.method == "DELETE")

    async def _token_count(self, question: Question, caller: Caller) -> Page:
        """Our estimate of the tokens of a prompt, for the deployment that would be asked first."""
        parts = (question.messages, question.tools, question.input)
        size = len(question.text.encode()) + sum(len(bytes(part)) for part in parts if part is not None)
        call = Call("openai_chat", "chat", question.model, {}, size, text_bytes=size)
        first = await first_asked(self._gateway, call, caller)
        return Page({"token_count": self._gateway.estimator.estimate(call, str(first)).likely, "estimated": True})

    async def _model(self, asked: Asked) -> Page:
        name, caller = asked.argument, asked.caller
        head, _, rest = name.partition("/")
        provider = self._gateway.lists.catalog.provider(head)
        rows = await self._gateway.models(caller)
        for row in rows:
            if row.id == name or (rest and row.id == f"{provider}/{rest}") or row.id.partition("/")[2] == name:
                return Page(model_page(asked.dialect, (name, row.provider, row.created)))
        near = nearest_models(name[:200], self._gateway.lists.catalog) if not caller.routes else []
        hint = f"nearest: {', '.join(near)}" if near else "GET /v1/models lists what is"
        raise ModelNotFound(f"model {name[:200]!r} is not offered by any configured provider; {hint}", param="model")

    async def _admin_page(self, name: str, body: bytes) -> Page:
        gateway = self._gateway
        match name:
            case "admin_keys":
                await gateway.refresh()
                return Page(gateway.keys())
            case "admin_limits" | "admin_limits_pin" | "admin_limits_clear":
                from .limit_pages import LimitPages

                return Page(await LimitPages(gateway, self._folder, self._together).page(name, body))
            case "admin_models":
                return Page([{"id": row.id, "provider": row.provider} for row in await gateway.models(OWNER)])
            case "admin_explain":
                return Page(await self._explain(_read(body)))
            case "admin_reload":
                return Page(await self._reload())
            case "admin_status":
                await gateway.refresh()
                return Page(await self._together.status())
            case "admin_trace":
                return Page(await self._together.trace(_read(body).call or ""))
            case "admin_usage":
                return Page(await self._ledger.usage(body))
            case "admin_story":
                return Page(await self._ledger.story(body))
            case "admin_stores":
                return Page(await self._ledger.stores(body))
            case "admin_reset":
                shown = gateway.reset(_key_of(body))
                await self._together.reset(_key_of(body))
                return Page({"keys": shown})
            case "admin_disable":
                return Page({"keys": await self._switch(_key_of(body), off=True)})
            case "admin_enable":
                return Page({"keys": await self._switch(_key_of(body), off=False)})
            case "admin_groups":
                return Page(gateway.adapting.groups())
            case "admin_ungroup":
                return Page({"keys": await self._ungroup(_key_of(body))})
        raise AssertionError(f"paths.py serves {name}, but nothing answers it")

    def _status(self) -> dict[str, object]:
        gateway = self._gateway
        return {
            "version": __version__,
            "pid": os.getpid(),
            "ready": gateway.ready(),
            "draining": gateway.draining,
            "inflight": gateway.inflight,
            "waiting": gateway.room.waiting,
            "open": gateway.live.standing().open,
            "tasks": len(asyncio.all_tasks()),
            "providers": gateway.providers(),
            "config": self._reloader.told() if self._reloader is not None else None,
        }

    async def _explain(self, asked: AdminRequest) -> dict[str, object]:
        """Who would be asked for a name by a caller, as `routes explain` prints it."""
        config = self._gateway.config
        names = {each.name: each for each in (*config.callers.values(), config.default_caller)}
        caller = config.default_caller if asked.caller is None else names.get(asked.caller)
        if caller is None:
            raise BadRequest(f"no caller is called {asked.caller!r}; there are {', '.join(sorted(names))}")
        call = call_of_size(asked.route or "", asked.tokens or 0, asked.output)
        call.stream, call.needs = asked.stream, frozenset(asked.needs)
        return await self._gateway.explain(call, caller)

    async def _reload(self) -> dict[str, object]:
        """Have the files read again, changed or not; the log and `admin_status` tell what came of it."""
        if self._reloader is None:
            raise BadRequest("this gateway does not watch its configuration")
        await self._together.reload()
        return {"reading": True}

    async def _ungroup(self, key: str | None) -> list[str]:
        """Undoes quota groups that were found out, in all workers; the keys that were in them, as they are shown."""
        named = [each.fingerprint for each in self._named(key)]
        freed = set(self._gateway.adapting.ungroup(named))
        await self._together.ungrouped(named)
        return [each.shown for each in matching(self._gateway, None) if each.fingerprint in freed]

    def _named(self, key: str | None) -> list[Credential]:
        """The keys that *key* names. Raises BadRequest when there is none."""
        if key is None:
            raise BadRequest('name the key: {"key": "groq-2"}', param="key")
        found = matching(self._gateway, key)
        if not found:
            raise BadRequest("no key is named so: give a label, a fingerprint or a provider", param="key")
        return found

    async def _switch(self, key: str | None, *, off: bool) -> list[str]:
        """Takes keys out of use or back into it, in all workers and for the next start."""
        found = self._named(key)
        assert key is not None, "it names something"
        disabled = self._folder.disabled()
        for credential in found:
            disabled.pop(credential.fingerprint, None)
            if off:
                disabled[credential.fingerprint] = credential.shown
        try:
            await asyncio.to_thread(self._folder.write_disabled, disabled)
        except OSError as error:
            raise KeyturnError(f"this could not be written down, so nothing was changed: {error.strerror}") from error
        shown = self._gateway.disable(key) if off else self._gateway.enable(key)
        await self._together.switched([each.fingerprint for each in found], off=off)
        return shown


def _metrics(figures: bytes | None) -> Page:
    """The page of *figures*. Raises UnknownPath when there are none."""
    if figures is None:
        raise UnknownPath("nothing is served at /metrics: METRICS_ENABLED is false")
    return Page(figures, content_type=PROMETHEUS)


def _provider(query: bytes) -> str | None:
    """The provider that `?provider=` names, itself or by an alias."""
    found = parse_qs(query.decode("latin-1")).get("provider")
    if not found:
        return None
    row = known(found[0])
    return row.name if row is not None else found[0]


def _amount(said: dict[str, list[str]], name: str) -> int | None:
    """The number of tokens that `?name=` says, None when it says nothing. Raises BadRequest."""
    text = said.get(name, [""])[-1]
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9 or not text.isascii() or not int(text):
        raise BadRequest(f"`{name}` must be a whole number of tokens, 1 or more", param=name)
    return int(text)


def _question(body: bytes) -> Question:
    try:
        return msgspec.json.decode(body, type=Question)
    except msgspec.DecodeError as error:
        raise BadRequest(f'the body must be like {{"model": "…", "messages": […]}}: {error}') from error


def _key_of(body: bytes) -> str | None:
    return _read(body).key if body.strip() else None


def _read(body: bytes) -> AdminRequest:
    try:
        return msgspec.json.decode(body, type=AdminRequest)
    except msgspec.DecodeError as error:
        raise BadRequest(f'the body must be like {{"key": "groq-2"}} or {{"call": "…"}}: {error}') from error
