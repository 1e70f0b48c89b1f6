"""A hundred planted keys are found in nothing that a gateway answers, logs, records or writes, whatever happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keyturn.simulator import PERSONAS, Fault, KeyRule, Simulator
from tests.support import asgi, virtual

from .exposed import CALLER_KEY, KEYS, PROVIDERS, Exposed, library_logs
from .planted import ECHOES, SECRETS
from .talkative import Talkative, Words, content, error, every_form, page, plain

Story = Callable[[Exposed], Awaitable[None]]
ANY_KEY_GETS_THIS = (
    "bad_request invalid_key insufficient_credit forbidden not_found timeout too_large rate_limited overloaded "
    "server_error daily_quota context_length content_filter"
).split()


def play(story: Story, folder: Path, upstream: Callable[[], asgi.App]) -> Exposed:
    """The story on a gateway over *upstream*, then every page; nothing that was shown may hold a secret."""

    async def main() -> Exposed:
        async with Exposed(folder, upstream()) as exposed:
            await story(exposed)
            exposed.chapter = "afterwards"
            await exposed.visit_pages()
        return exposed

    exposed = virtual.run(main)
    exposed.collected.assert_clean()
    return exposed


def provoke(folder: Path, *said: Words, all_keys: bool = False) -> None:
    """Have an upstream say each of these words to a call for each provider, or until it has said them to every key.

    Plain calls and streamed ones take turns.
    """
    upstream = Talkative()
    turn = count()

    async def story(exposed: Exposed) -> None:
        for words in said:
            upstream.say(words)
            exposed.chapter = f"{words.when or words.status} {words.media}"
            for provider in PROVIDERS:
                for _ in range(2 * len(KEYS[provider]) if all_keys else 1):
                    exposed.gateway.reset(None)
                    await exposed.chat(f"{provider}/small", stream=bool(words.when or next(turn) % 2))
                    if all_keys and upstream.heard >= set(KEYS[provider]):
                        break
            assert not all_keys or upstream.heard == {key for keys in KEYS.values() for key in keys}

    play(story, folder, lambda: upstream)


def test_pages_and_calls_that_succeed(tmp_path: Path) -> None:
    async def story(exposed: Exposed) -> None:
        for provider in PROVIDERS:
            for _ in KEYS[provider]:
                assert (await exposed.chat(f"{provider}/small")).status == 200

    play(story, tmp_path, Talkative)


def test_keys_that_a_client_mistakes_for_the_callers(tmp_path: Path) -> None:
    async def story(exposed: Exposed) -> None:
        for key in SECRETS:
            if key != CALLER_KEY:
                for name, prefix in (("authorization", "Bearer "), ("x-api-key", ""), ("x-goog-api-key", "")):
                    reply = await exposed.ask("GET", "/v1/models", key="", headers=[(name, prefix + key)])
                    assert reply.status == 401
                    assert b"invalid_api_key" in reply.body.lower(), "each dialect says it in its own place"

    play(story, tmp_path, Talkative)


def test_keys_that_a_client_puts_where_something_else_belongs(tmp_path: Path) -> None:
    """Into the name of a model, a path, or a query as clients of Gemini do: no error quotes them, no log keeps them."""

    async def story(exposed: Exposed) -> None:
        whole = [key for key in SECRETS if len(key) < 200]  # of longer ones a client gets its own first letters back
        for key in whole:
            quoted = quote(key, safe="")
            assert (await exposed.chat(key)).status in (400, 404)
            for path in (f"/v1/models/{quoted}", f"/{quoted}", f"/v1beta/models/{quoted}"):
                assert (await exposed.ask("GET", path)).status == 404
            path, body = f"/v1beta/models/{quoted}:generateContent", b'{"contents":[{"parts":[{"text":"Hi"}]}]}'
            assert (await exposed.ask("POST", path, body=body)).status in (400, 404)
            assert (await exposed.ask("GET", f"/v1/models?key={quoted}")).status == 200
            assert (await exposed.ask("POST", f"/v1/chat/completions?key={quoted}", body=b"{}")).status == 400
            headers = [("x-keyturn-admin", exposed.admin_key.reveal())]
            assert (await exposed.ask("POST", "/admin/keys/disable", json={"key": key}, headers=headers)).status == 400

    play(story, tmp_path, Talkative)


@pytest.mark.parametrize("words", [Words(status=400), Words(when="late event")], ids=["relayed", "mid-stream"])
def test_upstream_errors_that_clients_get_to_see(words: Words, tmp_path: Path) -> None:
    provoke(tmp_path, words, all_keys=True)


def test_upstream_errors_of_every_kind(tmp_path: Path) -> None:
    provoke(
        tmp_path,
        *(Words(status=status) for status in (302, 401, 402, 403, 404, 408, 413, 422, 425, 429, 500, 503, 529)),
        *(Words(status=status, media="text/html", body=page) for status in (200, 400, 502)),
        *(Words(status=status, media="text/plain", body=plain) for status in (200, 400, 429)),
        Words(status=200),
        Words(status=200, body=lambda key: every_form(key)[:-9]),
        Words(status=200, media="text/event-stream", body=lambda key: f": {plain(key)}\n\n"),
        Words(status=400, body=lambda key: f'[{{"error": {{"code": "{content("JSON", key)}", "status": "x"}}}}]'),
        Words(status=429, body=lambda key: f'{{"error": {{"code": "{content("JSON", key)}", "type": "x"}}}}'),
        Words(status=500, body=lambda key: f'{{"error": {{"metadata": {{"raw": "{content("JSON", key)}"}}}}}}'),
    )


def test_streams_that_fail(tmp_path: Path) -> None:
    provoke(
        tmp_path,
        Words(when="first event"),
        Words(when="first event", body=plain),
        Words(when="late event", body=plain),
        Words(when="late text"),
        Words(when="late text", body=lambda key: every_form(key) + "\n\n"),
        Words(when="late text", body=lambda key: page(key) + "\n\n"),
        Words(when="late text", body=lambda key: f'data: {{"error": "{content("JSON", key)}"}}\n\n'),
    )


@pytest.mark.parametrize("when", ["", "late event"])
def test_every_form_by_itself(when: Any, tmp_path: Path) -> None:
    bodies = [lambda key, form=form: error(f"Bad key {content(form, key)}") for form in ECHOES]
    provoke(tmp_path, *(Words(status=401, body=body, when=when) for body in bodies))


@pytest.mark.parametrize("words", [Words(status=401), Words(when="late event")], ids=["status", "event"])
def test_a_key_where_long_texts_are_cut(words: Words, tmp_path: Path) -> None:
    """Logs and clients get 300 characters of an upstream's words; no half of a key may be left at their end."""
    bodies = [lambda key, room=room: error("x" * room + f" {content('JSON', key)}") for room in (0, 180, 275, 285)]
    provoke(tmp_path, *(Words(status=words.status, when=words.when, body=body) for body in bodies))


def test_keys_in_the_headers_of_an_answer(tmp_path: Path) -> None:
    names = ("content-type", "retry-after", "x-request-id", "location", "www-authenticate", "set-cookie", "date")
    headers = tuple((name, lambda key: f"text/plain; k={key}") for name in names)
    provoke(
        tmp_path,
        *(Words(status=status, body=lambda _: error("no"), headers=headers) for status in (200, 302, 400, 401)),
    )


@pytest.mark.parametrize("at_chunk", [None, 3], ids=["instead of an answer", "mid-stream"])
def test_every_error_in_the_words_of_each_provider(at_chunk: int | None, tmp_path: Path) -> None:
    rules = {name: {key: KeyRule() for key in KEYS[name]} for name in PROVIDERS}
    simulators: list[Simulator] = []

    def upstream() -> Simulator:
        simulators.append(Simulator(virtual.VirtualClock(), virtual.seeded(), keys=rules))
        return simulators[0]

    async def story(exposed: Exposed) -> None:
        for case in ANY_KEY_GETS_THIS:
            exposed.chapter = case
            simulators[0].script.clear()
            simulators[0].script.add(Fault(kind="chat", error=case, quirks=frozenset({"echo_key"}), at_chunk=at_chunk))
            for provider in PROVIDERS:
                exposed.gateway.reset(None)
                reply = await exposed.chat(f"{provider}/{PERSONAS[provider].models[0]}", stream=at_chunk is not None)
                assert reply.status >= 400 or b"upstream_interrupted" in reply.body

    play(story, tmp_path, upstream)
    assert {each.case for each in simulators[0].log} >= set(ANY_KEY_GETS_THIS)


def test_failures_of_the_gateway_itself(tmp_path: Path) -> None:
    async def story(exposed: Exposed) -> None:
        with library_logs(exposed.gateway) as log:
            for key in SECRETS:
                exposed.gateway.handle = broken(key)  # type: ignore[method-assign]
                assert (await exposed.chat("groq/small")).status == 500
                logging.getLogger("aiohttp.client").error("%s %r", key, {"authorization": f"Bearer {key}".encode()})
        assert log.getvalue().count("Traceback") == 2 * len(SECRETS)
        exposed.collected.add("log of libraries", log.getvalue())

    def broken(key: str) -> Any:
        async def handle(*_: object) -> Any:
            try:
                raise ValueError(key, key.encode())
            except ValueError as error:
                raise RuntimeError(f"{key} {[key]} {error!r}") from error

        return handle

    play(story, tmp_path, Talkative)


def test_keys_in_a_conversation_are_neither_logged_nor_recorded(tmp_path: Path) -> None:
    """An agent that has read somebody's .env file: its words go upstream as they are, but stay nowhere."""

    async def story(exposed: Exposed) -> None:
        for key in SECRETS:
            arguments = json.dumps({"content": f"GROQ_API_KEY={key}"})
            call = {"id": "t", "type": "function", "function": {"name": "write", "arguments": arguments}}
            messages = [{"role": "user", "content": key}, {"role": "assistant", "tool_calls": [call]}]
            body = {"model": "groq/small", "messages": messages, "user": key, key: 1}
            assert (await exposed.ask("POST", "/v1/chat/completions", json=body)).status == 200

    exposed = play(story, tmp_path, Talkative)
    assert len(list((exposed.folder.path / "requests").iterdir())) == len(SECRETS)
