"""Asks a provider one cheap question with one key: its list of models, or one token where the list proves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from keyturn.errors import TransportError

if TYPE_CHECKING:
    from keyturn.config import Config
    from keyturn.core import Clock, Credential, HttpRequest, LocalRequest, Transport, UpstreamRequest

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


async def probe(config: Config, keys: Sequence[Credential]) -> list[Finding]:
    """One finding per key, in their order."""
    from keyturn.dispatch import SystemClock
    from keyturn.transport import Transports

    clock = SystemClock()
    transport = Transports(clock, {})
    examiner = _Examiner(config, transport, clock)
    tasks = [asyncio.create_task(examiner.examine(key)) for key in keys]

    def give_up() -> None:
        for task in tasks:
            task.cancel()

    timer = clock.call_at(clock.mono() + PATIENCE, give_up)
    try:
        await asyncio.wait(tasks)
    finally:
        timer.cancel()
        await transport.close()
    return [
        Finding(key, "timeout", None, f"no answer within {PATIENCE:g} s", PATIENCE)
        if task.cancelled()
        else task.result()
        for key, task in zip(keys, tasks, strict=True)
    ]


class _Examiner:
    """Sends the questions, a few at once."""

    def __init__(self, config: Config, transport: Transport, clock: Clock) -> None:
        self._config = config
        self._transport = transport
        self._clock = clock
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def examine(self, key: Credential) -> Finding:
        """The list of models if it proves that the key is good, else one token."""
        from keyturn.providers import prepare_models

        provider = self._config.providers[key.provider]
        async with self._turn:
            if provider.models_path:
                request = prepare_models(provider, key)
                found = await self._ask(key, request)
                if found.meaning != "ok" or not key.secret or not await self._is_open_to_all(key, request):
                    return found
            question = _one_token(self._config, key)
            if question is None:
                variable = f"{(provider.variables or (provider.name.upper(),))[0]}_CHAT_MODEL"
                said = f"its list of models proves nothing; set {variable} to ask that model for one token"
                return Finding(key, "unknown", None, said, 0.0)
            return await self._ask(key, question)

    async def _is_open_to_all(self, key: Credential, request: HttpRequest | LocalRequest) -> bool:
        """Whether the list is given to anyone, so that it tells nothing of the key."""
        from keyturn.core import LocalRequest

        if isinstance(request, LocalRequest):
            return False
        return (await self._ask(key, replace(request, auth=None))).meaning == "ok"

    async def _ask(self, key: Credential, request: UpstreamRequest) -> Finding:
        from keyturn.core import Facts, Redactor, classify

        rules, clock = self._config.providers[key.provider].rules, self._clock
        started, response, trouble = clock.mono(), None, ""
        try:
            response = await self._transport.send(request, lambda: None)
            body = await response.read(LARGEST_ANSWER)
            body = Redactor([key.secret]).data(body)  # before its text is cut short
            facts = Facts(response.status, response.headers, body, clock.wall(), rules=rules)
        except TransportError as error:
            facts, trouble = Facts(None, {}, b"", clock.wall(), fault=error.kind, rules=rules), error.message
        finally:
            if response is not None:
                response.close()
        outcome = classify(facts)
        message = Redactor([key.secret]).text(trouble or outcome.message)
        return Finding(key, outcome.meaning, facts.status, message, clock.mono() - started)


def _one_token(config: Config, key: Credential) -> UpstreamRequest | None:
    """The smallest chat; None when no model of the provider is known."""
    from keyturn.core import Candidate, Deployment
    from keyturn.dispatch import read_call
    from keyturn.providers import prepare

    provider = config.providers[key.provider]
    known = [config.chat_models.get(provider.name, ""), *config.static_models.get(provider.name, ()), *provider.models]
    model = next((name for name in known if name), None)
    if model is None:
        return None
    question = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    call = read_call("chat", json.dumps(question).encode(), {})
    return prepare(provider, call, Candidate(Deployment(provider.name, model), key), [])
