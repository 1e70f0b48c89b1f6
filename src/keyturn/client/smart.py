"""The smart client: chats and embeds with whatever key can answer, no model named; one for the whole process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

from keyturn.errors import BadRequest, KeyturnError, ModelNotFound, ProviderExhaustedError
from keyturn.providers import CATALOG

from .crossing import in_child
from .failures import EVERYWHERE, EXHAUSTED
from .synchronous import Client, SyncStream

NONE_SEES = "All vision-capable API keys exhausted"
BLIND = "has no vision"
"""What routing says of who is left out because a call holds images."""
COUNTS = ("total", "available", "rate_limited", "total_success_calls", "total_error_calls")
IMAGES = ("image_url", "image", "input_image")
"""Types of content parts that hold one."""


class SmartClient(Client):
    """A `Client` whose calls need no model: without one, each provider is asked for its default, openrouter, groq and
    gemini in this order unless more have one. Made by `get_smart_client`.

    `chat` raises ProviderExhaustedError, a RuntimeError, when no key can answer: its text begins with "All API keys
    exhausted", and with "All vision-capable API keys exhausted" when the messages hold images, which only models that
    see are asked about.
    """

    @overload
    def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: Literal[False] = False, **more: Any
    ) -> str: ...
    @overload
    def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: Literal[True], **more: Any
    ) -> SyncStream[str]: ...
    def chat(
        self, messages: str | Sequence[Any], model: str | None = None, *, stream: bool = False, **more: Any
    ) -> str | SyncStream[str]:
        """The text of the answer to *messages* (OpenAI's shape, or a string); with *stream*, piece by piece. *more*:
        `temperature`, `max_tokens` and so on."""
        try:
            if stream:
                return super().chat(messages, model, stream=True, **more)
            text: str = super().chat(messages, model, **more)
            return text
        except ProviderExhaustedError as error:
            if not holds_images(messages):
                raise
            why = error.message.removeprefix(EXHAUSTED).removeprefix(EVERYWHERE).removeprefix(": ")
            raise _none_sees(why, error) from error
        except ModelNotFound as error:
            if model is not None:
                raise
            said = f"{EXHAUSTED}{EVERYWHERE}: {error.message}"  # no default model is there any more
            told = ProviderExhaustedError(said, code=error.code, status=error.status)
            told.trail = error.trail
            raise told from error
        except BadRequest as error:
            if BLIND not in error.message or not holds_images(messages):
                raise
            raise _none_sees(error.message, error) from error

    def get_status_summary(self) -> dict[str, Any]:
        """As `Client.get_status_summary`; the providers with a default model of their own are there without a key
        too, with zeros."""
        told = super().get_status_summary()
        usual = sorted((row.place, name) for name, row in CATALOG.items() if row.chat_model and not row.local_app)
        return {name: dict.fromkeys(COUNTS, 0) for _, name in usual} | told

    def close(self) -> None:
        """Let go of the pool; the next `get_smart_client()` makes another client. May be called twice."""
        with _guard:
            for place in [place for place, client in _shared.items() if client is self]:
                del _shared[place]
        super().close()


_guard = threading.RLock()
_shared: dict[tuple[int, str], SmartClient] = {}
"""The client of this process, by working directory: keys are read there. A process that was forked makes its own."""


def _renew() -> None:
    """In a process that was forked, maybe while another thread held the guard."""
    global _guard
    _guard = threading.RLock()


in_child(_renew)


def get_smart_client(**arguments: Any) -> SmartClient:
    """The smart client of this process: keys from the environment, from `.env` and from `config/`, read at the first
    call; later calls cost nothing and return the same object. It is usable from any thread.

    With *arguments* (those of `Client`) a client of its own is made, which shares the pool when keys and settings are
    the same. Raises ConfigError for a configuration with mistakes. That there is no key at all is told by `chat` and
    `embed`, as RuntimeError with the variables to set; `get_status_summary()` tells how many keys there are.
    """
    if arguments:
        return SmartClient(**arguments)
    place = os.getpid(), os.getcwd()
    with _guard:
        found = _shared.get(place)
        if found is None:
            found = _shared[place] = SmartClient()
        return found


def holds_images(messages: Any) -> bool:
    """Whether *messages* hold an image."""
    for message in messages if isinstance(messages, Iterable) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list | tuple) else ():
            if isinstance(part, Mapping) and part.get("type") in IMAGES:
                return True
    return False


def _none_sees(why: str, cause: KeyturnError) -> ProviderExhaustedError:
    error = ProviderExhaustedError(
        f"{NONE_SEES}: {why}", code=cause.code, status=cause.status, retry_after=cause.retry_after
    )
    error.trail = cause.trail
    return error
