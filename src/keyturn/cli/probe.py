"""Asks a provider one cheap question with one key: its list of models, or one token where the list proves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from keyturn.errors import NoToken, TransportError

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Clock, Credential, HttpRequest, LocalRequest, Transport, UpstreamRequest
    from keyturn.login import Refresher
    from keyturn.providers import Provider

PATIENCE = 20.0
"""Seconds that all answers together may take."""
LARGEST_ANSWER = 16 * 1024 * 1024
AT_ONCE = 8


class Finding(NamedTuple):
    """What became of one question. *meaning* is as in `classify`; *status* is None when nothing answered."""

    credential: Credential
    meaning: str
    status: int | None
    message: str
    seconds: float
    endpoint: str = ""
    """Which of the provider's, where it has several. One that is not set has the meaning `not_set`."""


class Question(NamedTuple):
    """What is asked about: a key, at one endpoint where its provider has several."""

    credential: Credential
    endpoint: str = ""


def questions(config: Config, keys: Sequence[Credential]) -> list[Question]:
    """One per key and endpoint that is set."""
    return [Question(key, endpoint) for key in keys for endpoint in config.providers[key.provider].endpoints or ("",)]


def unset_endpoints(config: Config, keys: Sequence[Credential]) -> list[Finding]:
    """One finding for each endpoint that the providers of *keys* may have and have not."""
    from keyturn.providers import ENDPOINTS

    firsts = {key.provider: key for key in reversed(keys) if config.providers[key.provider].endpoints}
    return [
        Finding(key, "not_set", None, f"{key.provider.upper()}_{name.upper()}_API_BASE is not set", 0.0, name)
        for key in firsts.values()
        for name in ENDPOINTS
        if name not in config.providers[key.provider].endpoints
    ]


async def probe(config: Config, asked: Sequence[Question]) -> list[Finding]:
    """One finding per question, in their order."""
    from keyturn.dispatch import SystemClock
    from keyturn.transport import Transports

    clock = SystemClock()
    transport = Transports(clock, {})
    refresher, asked = _signed_in(config, asked, transport, clock)
    examiner = _Examiner(config, transport, clock)
    tasks = [asyncio.create_task(examiner.examine(each)) for each in asked]

    def give_up() -> None:
        for task in tasks:
            task.cancel()

    timer = clock.call_at(clock.mono() + PATIENCE, give_up)
    try:
        await asyncio.wait(tasks)
    finally:
        timer.cancel()
        if refresher is not None:
            await refresher.close()
        await transport.close()
    return [
        Finding(each.credential, "timeout", None, f"no answer within {PATIENCE:g} s", PATIENCE, each.endpoint)
        if task.cancelled()
        else task.result()._replace(endpoint=each.endpoint)
        for each, task in zip(asked, tasks, strict=True)
    ]


def _signed_in(
    config: Config, asked: Sequence[Question], transport: Transport, clock: Clock
) -> tuple[Refresher | None, Sequence[Question]]:
    """What gives accounts their tokens, where there are any, and *asked* with them."""
    if all(each.credential.account is None for each in asked):
        return None, asked
    from keyturn.config import token_folder
    from keyturn.login import Refresher

    def nothing(_: object) -> None:
        """What is said of a token is said in its finding."""

    refresher = Refresher(clock, transport, token_folder(config.data), nothing, nothing, nothing)
    found, _ = refresher.furnished({"": tuple(each.credential for each in asked)})
    return refresher, [each._replace(credential=key) for each, key in zip(asked, found[""], strict=True)]


class _Examiner:
    """Sends the questions, a few at once."""

    def __init__(self, config: Config, transport: Transport, clock: Clock) -> None:
        self._config = config
        self._transport = transport
        self._clock = clock
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def examine(self, asked: Question) -> Finding:
        """The list of models if it proves that the key is good, else one token."""
        from keyturn.providers import prepare_models

        key, provider = asked.credential, self._config.providers[asked.credential.provider]
        async with self._turn:
            if key.tokens is not None:
                try:
                    await key.tokens.obtain()
                except NoToken as error:
                    return Finding(key, "invalid_key" if error.final else "unknown", None, error.message, 0.0)
            if asked.endpoint:
                return await self._examine_endpoint(key, provider, asked.endpoint)
            if provider.models_path:
                request = prepare_models(provider, key)
                found = await self._ask(key, request)
                if found.meaning != "ok" or not key.keyed or not await self._is_open_to_all(key, request):
                    return found
            question = _one_token(self._config, key)
            if question is None:
                variable = f"{(provider.variables or (provider.name.upper(),))[0]}_CHAT_MODEL"
                said = f"its list of models proves nothing; set {variable} to ask that model for one token"
                return Finding(key, "unknown", None, said, 0.0)
            return await self._ask(key, question)

    async def _examine_endpoint(self, key: Credential, provider: Provider, endpoint: str) -> Finding:
        """Its list of models, then one token of a model that is asked there: a list is open to all, and says nothing of
        the way to the models."""
        from keyturn.providers import endpoint_of, prepare_models, read_models

        found, body = await self._answer(key, prepare_models(provider, key, endpoint))
        listed = read_models(provider, body, endpoint) if found.meaning == "ok" else []
        names = [*_known_models(self._config, provider), *listed]
        model = next((name for name in names if endpoint_of(provider.endpoints, name) == endpoint), None)
        if model is None:
            if found.meaning != "ok":
                return found
            said = f"it lists no models; set {provider.variables[0]}_CHAT_MODEL to ask that model for one token"
            return found._replace(meaning="unknown", message=said)
        answered = await self._ask(key, _one_token_of(provider, model, key))
        count = f"{len(listed)} models listed" if listed else f"no models listed ({found.message or found.meaning})"
        if answered.meaning == "ok":
            return answered._replace(message=f"{count}; {model} answers")
        return answered._replace(message=f"{count}; {model}: {answered.message}")

    async def _is_open_to_all(self, key: Credential, request: HttpRequest | LocalRequest) -> bool:
        """Whether the list is given to anyone, so that it tells nothing of the key."""
        from keyturn.core import LocalRequest

        if isinstance(request, LocalRequest):
            return False
        return (await self._ask(key, replace(request, auth=None))).meaning == "ok"

    async def _ask(self, key: Credential, request: UpstreamRequest) -> Finding:
        return (await self._answer(key, request))[0]

    async def _answer(self, key: Credential, request: UpstreamRequest) -> tuple[Finding, bytes]:
        """What became of *request*, and the body of its answer."""
        from keyturn.core import PAGE, Facts, Redactor, classify

        rules, clock = self._config.providers[key.provider].rules, self._clock
        started, response, trouble, body = clock.mono(), None, "", b""
        redactor = Redactor([key.secret] if key.tokens is None else [key.tokens.latest])
        try:
            response = await self._transport.send(request, lambda: None)
            body = await response.read(LARGEST_ANSWER)
            body = redactor.data(body)  # before its text is cut short
            facts = Facts(response.status, response.headers, body, clock.wall(), rules=rules)
        except TransportError as error:
            facts, trouble = Facts(None, {}, b"", clock.wall(), fault=error.kind, rules=rules), error.message
        finally:
            if response is not None:
                response.close()
        outcome = classify(facts)
        message = redactor.text(trouble or outcome.message)
        if outcome.code == PAGE:
            message = f"a web page came instead of an answer: {message}"
        return Finding(key, outcome.meaning, facts.status, message, clock.mono() - started), body


def _one_token(config: Config, key: Credential) -> UpstreamRequest | None:
    """The smallest chat; None when no model of the provider is known."""
    provider = config.providers[key.provider]
    model = next(iter(_known_models(config, provider)), None)
    return None if model is None else _one_token_of(provider, model, key)


def _known_models(config: Config, provider: Provider) -> list[str]:
    """The models of *provider* that the configuration names, the one to use first."""
    known = [config.chat_models.get(provider.name, ""), *config.static_models.get(provider.name, ()), *provider.models]
    return [name for name in known if name]


def _one_token_of(provider: Provider, model: str, key: Credential) -> UpstreamRequest:
    from keyturn.core import Candidate, Deployment
    from keyturn.dispatch import read_call
    from keyturn.providers import prepare

    question = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    call = read_call("chat", json.dumps(question).encode(), {})
    return prepare(provider, call, Candidate(Deployment(provider.name, model), key), [])
