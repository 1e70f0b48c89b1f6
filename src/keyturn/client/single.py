"""One provider asked with one key, for programs that choose both themselves."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Any

from keyturn.errors import ProviderExhaustedError
from keyturn.providers import CATALOG, known, nearest, plain_name

from .failures import EXHAUSTED
from .synchronous import Client


class SingleClient:
    """A client of one provider, with one key. Made by `get_client`; to be closed, or used in a `with` block."""

    def __init__(self, provider: str, key: str | None, *, model: str | None = None, **arguments: Any) -> None:
        if not isinstance(provider, str):
            raise TypeError(f"provider must be a name such as 'groq', not of type {type(provider).__name__}")
        row = known(provider)
        if row is None and not key:
            raise ValueError(_unknown(provider))
        self.name = row.name if row is not None else plain_name(provider)
        """The provider's own name: `gemini`, also when it was asked for as `google_ai_studio`."""
        self._client = Client(api_keys={provider: [key] if key else []}, share=False, **arguments)
        self._model = model
        given = self._client._inner._given
        config = given.config
        self._config = given.config = replace(  # nobody else is asked, whoever needs no key or serves the same model
            config,
            providers={name: row for name, row in config.providers.items() if name == self.name},
            credentials={name: keys for name, keys in config.credentials.items() if name == self.name},
        )

    def chat(self, messages: Any, model: str | None = None, **more: Any) -> str:
        """The text of the answer to *messages* (OpenAI's shape); *more* are `temperature`, `max_tokens` and so on.

        *model* is the provider's own id, by default what `<PROVIDER>_CHAT_MODEL` says. Raises ValueError when there is
        no default, ProviderExhaustedError (a RuntimeError) when the key cannot answer, RequestError for a mistake.
        """
        text: str = self._client.chat(messages, self._asked(model or self._model, "chat"), **more)
        return text

    def complete(self, prompt: str, model: str | None = None, **more: Any) -> str:
        """The same for one prompt."""
        return self.chat([{"role": "user", "content": prompt}], model, **more)

    def embed(self, texts: Any, model: str | None = None, **more: Any) -> list[list[float]]:
        """The vector of each of *texts*; *model* is by default what `<PROVIDER>_EMBEDDING_MODEL` says."""
        return self._client.embed(texts, self._asked(model, "embedding"), **more)

    def is_available(self) -> bool:
        """Whether the key can answer now: there is one, and nothing stands against it."""
        row = self._client.get_status_summary().get(self.name)
        return bool(row and row["available"])

    def close(self) -> None:
        """Let go of the pool. May be called twice."""
        self._client.close()

    def __enter__(self) -> SingleClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _asked(self, model: str | None, kind: str) -> str:
        """The name that *model*, or the provider's default, has in a pool."""
        if not self._config.credentials.get(self.name):
            raise ProviderExhaustedError(
                f"{EXHAUSTED}: no key of {self.name} was given; {self._prefix()}_API_KEY may hold one"
            )
        if model is None:
            config = self._config
            row = CATALOG.get(self.name)
            if kind == "chat":
                model = config.chat_models.get(self.name) or (row.chat_model if row is not None else "")
            else:
                model = config.embedding_models.get(self.name) or (row.embedding_model if row is not None else "")
        if not model:
            variable = f"{self._prefix()}_{kind.upper()}_MODEL"
            raise ValueError(f"{self.name} has no {kind} model of its own: give model=, or set {variable}")
        return f"{self.name}/{model}"

    def _prefix(self) -> str:
        """How the variables of the provider begin."""
        return CATALOG[self.name].variables[0] if self.name in CATALOG else self.name.upper()


def get_client(provider: str, key: str | None = None, *, model: str | None = None, **arguments: Any) -> SingleClient:
    """A client of *provider* alone, asked with *key* alone: for failover over keys and providers take
    `get_smart_client()`.

    *provider* is any name of a known provider, or that of a `<NAME>_API_BASE`. Without a key (None, or blank) the
    client is made all the same: `is_available()` is False then, and calls raise RuntimeError. *model* is asked for by
    default. *arguments* are those of `Client`. Raises ValueError for an unknown provider, naming the nearest.
    """
    return SingleClient(provider, key, model=model, **arguments)


def _unknown(provider: str) -> str:
    near = nearest(provider, [row.name for row in CATALOG.values() if not row.local_app])
    meant = f"did you mean {near!r}?" if near else f"set {provider.upper()}_API_BASE if it is a server of your own"
    return f"no provider is called {provider!r}; {meant}"
