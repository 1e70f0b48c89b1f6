"""The request that a candidate is sent for a call: relayed in the call's own dialect, or translated into another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from keyturn import __version__
from keyturn.core import Call, Candidate, Credential, HttpRequest, LocalRequest, ProcessRequest, Request, Secret
from keyturn.errors import Untranslatable
from keyturn.wire import PASSED_ON, dialect, render, render_form

from .cli import prepare_tool
from .embedding import render_embeddings
from .g4f import address_of
from .native import chat_path, count_path, dialect_headers
from .quirks import fitted, quirks_of, target_of
from .registry import DIALECT_NAMES, Provider

Headers = tuple[tuple[str, str], ...]
Head = tuple[str, Headers, tuple[str, str, Secret] | None]
"""Of a request: its address, its headers, and header, prefix and secret of its credential."""
USER_AGENT = f"keyturn/{__version__}"

_write = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Asking(NamedTuple):
    """How one call is put to one candidate."""

    dialect: str
    """In what the upstream is spoken to."""
    relayed: bool
    """It is the call's own: bytes are passed on as they are, both ways."""
    anew: bool = False
    """The request is written anew all the same: it holds signatures that this upstream does not take, or the words of
    another model."""


JSON, SSE = "application/json", "text/event-stream"
_AS_IT_IS = {name: Asking(name, True) for name in DIALECT_NAMES}
_CHAT = _AS_IT_IS["openai_chat"]


def asking(provider: Provider, call: Call, model: str) -> Asking:
    """How *call* is put to *model* of *provider*."""
    plain = call.dialect == provider.dialect and call.kind == "chat"
    if plain and not provider.responses_only and provider.tool is None:
        return _AS_IT_IS[provider.dialect]
    spoken = _spoken(provider, call, model)
    return Asking(spoken, spoken == call.dialect)


def _spoken(provider: Provider, call: Call, model: str) -> str:
    if call.kind in PASSED_ON:
        return call.dialect
    if provider.tool is not None:
        return "openai_chat"
    if call.kind == "completions" and "completions" in provider.kinds:
        return call.dialect
    if call.dialect in provider.also:
        return call.dialect
    if provider.responses_only and call.kind == "chat" and _fits(provider.responses_only, model):
        return "openai_responses"
    if call.kind == "embeddings" and provider.dialect == "openai_responses":  # which has none: OpenAI's are beside it
        return "openai_chat"
    return provider.dialect


@lru_cache(maxsize=1024)
def _fits(patterns: tuple[str, ...], model: str) -> bool:
    return any(fnmatchcase(model.rpartition("/")[2].lower(), pattern) for pattern in patterns)


def prepare(
    provider: Provider,
    call: Call,
    candidate: Candidate,
    notes: list[str],
    how: Asking | None = None,
    request: Callable[[], Request] | None = None,
    heads: dict[bool, Head] | None = None,
) -> HttpRequest | LocalRequest | ProcessRequest:
    """The request that *candidate* is to be sent for *call*. What is dropped or renamed on the way goes into *notes*.

    *how* and *request*, which gives the whole call in neutral form when it has to be translated, are found out unless
    given. The secret goes into its header only. *heads*, of this candidate alone, keeps what its requests have in
    common.
    A provider with a tool is run instead. Raises Untranslatable and BadRequest.
    """
    how = how or asking(provider, call, candidate.deployment.model)
    if how is _CHAT:  # nearly all calls: what the others need is not looked at
        body = _relayed_chat(provider, call, candidate.deployment.model, notes)
        head = heads.get(call.stream) if heads is not None else None
        if head is None:
            headers = _headers(provider.headers, JSON, SSE if call.stream else JSON)
            head = _head(provider, candidate, how, provider.chat_path, headers)
            if heads is not None and candidate.credential.account is None:  # tokens change
                heads[call.stream] = head
    else:
        request = request or (lambda: dialect(call.dialect).read_request(call))
        if provider.tool is not None:
            told = call if how.relayed else _as_chat(call, request(), candidate, notes)
            return prepare_tool(provider, provider.tool, told, candidate, notes)
        path, body, kind = _rarer(provider, call, candidate, notes, how, request)
        headers = _headers(provider.headers, kind, _accept(call))
        if how.dialect == "anthropic":
            headers += dialect_headers(provider, call)
        head = _head(provider, candidate, how, path, headers)
    url, headers, auth = head
    return local_or_not(provider, HttpRequest("POST", url, headers, body, auth))


def _head(provider: Provider, candidate: Candidate, how: Asking, path: str, headers: Headers) -> Head:
    """Address, headers, and where the secret goes."""
    if candidate.credential.account is not None:
        headers += candidate.credential.account.headers
    auth = authorization(provider.auth_header, provider.auth_prefix, candidate.credential)
    base = address_of(provider, candidate.deployment.model) if provider.endpoints else provider.base_url
    if how.anew and provider.prefill_path == path:
        base = base.rstrip("/").removesuffix("/v1")
    return base.rstrip("/") + path, headers, auth


@lru_cache(maxsize=1024)
def _headers(own: Headers, content_type: str, accept: str) -> Headers:
    """What every request of this kind to one provider says; *own* are the provider's."""
    return (
        ("content-type", content_type),
        ("accept", accept),
        ("accept-encoding", "identity"),
        ("user-agent", USER_AGENT),
        *own,
    )


def _accept(call: Call) -> str:
    if call.stream:
        return SSE
    return "*/*" if call.kind == "audio" else JSON


def _rarer(
    provider: Provider, call: Call, candidate: Candidate, notes: list[str], how: Asking, request: Callable[[], Request]
) -> tuple[str, bytes, str]:
    """Path, body and content type of a request that is not OpenAI Chat relayed to a server that speaks it."""
    model = candidate.deployment.model
    if call.kind in PASSED_ON:
        if call.raw:
            return call.path, render_form(call, model), call.content_type
        return call.path, render(call, model, notes=notes), JSON
    if call.kind == "embeddings":
        return *render_embeddings(provider, call, model, how.dialect, notes), JSON
    named = None if how.dialect == "gemini" else model
    if call.kind == "count":
        return count_path(how.dialect, model), _count_body(call, how, model, notes), JSON
    path = chat_path(provider, how.dialect, model, stream=call.stream)
    if not how.relayed or how.anew:
        asked = request()
        path = provider.prefill_path if asked.begun and provider.prefill_path else path
        return path, _translated(provider, asked, candidate, how.dialect, notes), JSON
    if how.dialect == "openai_chat":
        return path, _relayed_chat(provider, call, model, notes), JSON
    return path, render(call, named, drop=provider.rejects, notes=notes), JSON


def _count_body(call: Call, how: Asking, model: str, notes: list[str]) -> bytes:
    """The body of a question for the number of tokens, of whoever counts in the client's dialect."""
    if not how.relayed:
        raise Untranslatable(f"{how.dialect} does not count what {call.dialect} says", param="model")
    inner = call.members.get("generateContentRequest")
    if inner is not None:  # it names the model once more
        request = {**_members(inner), "model": msgspec.Raw(_write(f"models/{model}"))}
        return _write(
            {**{name: msgspec.Raw(value) for name, value in call.members.items()}, "generateContentRequest": request}
        )
    return render(call, model if how.dialect == "anthropic" else None, notes=notes)


def _relayed_chat(provider: Provider, call: Call, model: str, notes: list[str]) -> bytes:
    """The client's own body, with the model's name replaced."""
    drop = provider.rejects
    if provider.usage_in_stream == "never":
        drop |= {"stream_options"}
    return render(
        call,
        model,
        drop=drop,
        rename=provider.renames,
        include_usage=call.stream and not call.wants_usage and provider.usage_in_stream == "option",
        notes=notes,
    )


def _translated(provider: Provider, request: Request, candidate: Candidate, into: str, notes: list[str]) -> bytes:
    """The body in another dialect, as the model takes it."""
    write = dialect(into).write_request
    if write is None:
        raise Untranslatable(f"{provider.name} cannot be asked in {into}", param="model")
    quirks = quirks_of(provider, candidate.deployment.model)
    members = write(fitted(request, quirks), target_of(candidate, quirks), notes)
    if into == "openai_chat":
        members = _fitting(provider, members, notes)
    return _write(members)


def _fitting(provider: Provider, members: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """*members* without those that *provider* rejects, and with its own names."""
    fit: dict[str, Any] = {}
    for name, value in members.items():
        if name in provider.rejects or (name == "stream_options" and provider.usage_in_stream != "option"):
            if name != "stream_options":
                notes.append(f"dropped {name}: {provider.name} rejects it")
            continue
        fit[provider.renames.get(name, name)] = value
    return fit


def _as_chat(call: Call, request: Request, candidate: Candidate, notes: list[str]) -> Call:
    """*call* as OpenAI Chat writes it: what command line tools are asked in."""
    write = dialect("openai_chat").write_request
    assert write is not None
    members = _members(_write(write(request, target_of(candidate, {}), notes)))
    return replace(call, dialect="openai_chat", members={name: bytes(value) for name, value in members.items()})


def _bearer(credential: Credential) -> tuple[str, str, Secret]:
    """The token of an account: in the usual place, wherever the provider wants its keys."""
    return ("authorization", "Bearer ", credential.secret if credential.tokens is None else credential.tokens.latest)


def authorization(header: str, prefix: str, credential: Credential) -> tuple[str, str, Any] | None:
    """Where the secret goes; None for a server without keys."""
    if credential.account is not None:
        return _bearer(credential)
    return (header, prefix, credential.secret) if credential.secret else None


def local_or_not(provider: Provider, request: HttpRequest) -> HttpRequest | LocalRequest:
    """*request* to the application in this process, where *provider* is one."""
    return LocalRequest(provider.local_app, request) if provider.local_app else request
