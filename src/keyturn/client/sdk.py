"""The official SDKs on the pool of this process: HTTP clients for them whose requests never leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    from .asynchronous import AsyncClient
    from .sdk_http import AsyncPoolClient, PoolClient
    from .synchronous import Client

MISSING = (
    "the official SDKs bring the package httpx2, and it is not installed: `pip install openai` (or `pip install "
    "anthropic`) in a version that is built on it, or `pip install httpx2`"
)


@overload
def transport_for_openai(pool: Client | None = None, *, asynchronous: Literal[False] = False) -> PoolClient: ...
@overload
def transport_for_openai(pool: AsyncClient) -> AsyncPoolClient: ...
@overload
def transport_for_openai(pool: AsyncClient | None = None, *, asynchronous: Literal[True]) -> AsyncPoolClient: ...
def transport_for_openai(pool: Any = None, *, asynchronous: bool = False) -> Any:
    """What `OpenAI(http_client=…)` takes; with `asynchronous=True`, or an AsyncClient, what `AsyncOpenAI` takes.

    Every request of the SDK is then answered by *pool* in this process, as the gateway answers it over HTTP: streams,
    errors, headers, lists of models. The SDK's `api_key` is not read (give any), its `base_url` only for its path.
    Without *pool* the one is used that `get_smart_client()` shares, or an AsyncClient made for it, which closing the
    SDK's client closes too; a *pool* that is given stays open. The result is a transport too:
    `httpx2.Client(transport=…)`.

    Raises ImportError when httpx2, which the SDKs are built on, is not installed.
    """
    return _client(pool, asynchronous, "openai_chat")


@overload
def transport_for_anthropic(pool: Client | None = None, *, asynchronous: Literal[False] = False) -> PoolClient: ...
@overload
def transport_for_anthropic(pool: AsyncClient) -> AsyncPoolClient: ...
@overload
def transport_for_anthropic(pool: AsyncClient | None = None, *, asynchronous: Literal[True]) -> AsyncPoolClient: ...
def transport_for_anthropic(pool: Any = None, *, asynchronous: bool = False) -> Any:
    """The same for `Anthropic(http_client=…)` and `AsyncAnthropic(http_client=…)`."""
    return _client(pool, asynchronous, "anthropic")


def _client(pool: Any, asynchronous: bool, spoken: str) -> Any:
    from .asynchronous import AsyncClient
    from .synchronous import Client

    try:
        from .sdk_http import AsyncPoolClient, PoolClient
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        raise ImportError(MISSING, name="httpx2") from error
    if isinstance(pool, AsyncClient) or (asynchronous and pool is None):
        return AsyncPoolClient(pool or AsyncClient(), spoken, owned=pool is None)
    if asynchronous:
        raise TypeError(f"an asynchronous SDK needs a keyturn.AsyncClient as its pool, not a {type(pool).__name__}")
    if pool is None:
        from .smart import get_smart_client

        pool = get_smart_client()
    if not isinstance(pool, Client):
        raise TypeError(f"pool must be a keyturn.Client or AsyncClient, not of type {type(pool).__name__}")
    return PoolClient(pool, spoken)
