"""What a client is constructed with: read into a configuration, so that there is one way to configure Keyturn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict

from keyturn.config import Config, Options, environment, load, load_with_keys
from keyturn.core import Caller, Secret
from keyturn.providers import CATALOG, known, nearest

from .hooks import Hook
from .pool import Callback

Keys = Mapping[str, str | Sequence[str]]
Models = Mapping[str, str | Sequence[str]]
BATCH_WINDOW = 0.005
"""Seconds that an embedding waits for others to join it."""

REPLACED = {
    "oauth_credentials": "log in with `keyturn login PROVIDER`; what it keeps is used like any other key",
    "max_retries": "a call goes on until a key answers or its deadline passes; bound it with global_timeout",
    "usage_file_path": "what must last is kept in the data folder; choose it with data_dir",
    "litellm_provider_params": "no litellm is used; give parameters with the call, an address as <PROVIDER>_API_BASE",
    "litellm_logger_fn": "no litellm is used; take the records of logging.getLogger('keyturn')",
    "rotation_tolerance": "choose how keys take turns with ROTATION_MODE_<PROVIDER>, or `rotation:` in models.yaml",
    "provider_rotation_modes": "set ROTATION_MODE_<PROVIDER>, or `rotation:` in models.yaml",
    "priority_multipliers": "set MAX_CONCURRENT_REQUESTS_PER_KEY_<PROVIDER>, or `max_concurrent:` in models.yaml",
    "session_persistence_enabled": "nothing is kept of conversations; which key holds one is found out again",
    "session_persistence_path": "nothing is kept of conversations; which key holds one is found out again",
    "base_url": "set <PROVIDER>_API_BASE; a gateway that runs is found by its data folder (data_dir)",
    "api_key": "name the provider: api_keys={'groq': '…'}",
    "timeout": "it is global_timeout, in seconds; or give `timeout` with a call",
}
"""Arguments of other clients -> what to do instead."""


@dataclass(slots=True, eq=False)
class Given:
    """The arguments of a client, checked."""

    config: Config
    caller: Caller
    callback: Callback | None
    abort: bool
    """What a callback raises ends its call."""
    log_events: bool
    log_calls: bool
    batch_window: float
    caller_name: str | None = None
    caller_key: Secret | None = None
    keyed: bool = False
    """The keys were handed in: a gateway is asked only if it holds them."""
    share: bool = True
    signature: tuple[object, ...] = ()
    """What clients must have in common to share a pool."""


class Arguments(TypedDict, total=False):
    """What clients are constructed with; all of it may be left out."""

    api_keys: Keys
    """Provider -> its key or keys. Then only these keys are used; all other settings hold as they are configured."""
    config: str | Path
    """The folder of configuration files (`config`)."""
    env_file: str | Path
    """The env file, instead of `.env` or `PROXY_ENV`."""
    data_dir: str | Path
    """The data folder (`KEYTURN_DATA`, else `.cache`)."""
    share: bool
    """False: a pool apart from whoever owns the data folder."""
    caller: str
    """Ask as this caller of callers.yaml; for a pool in this process."""
    caller_key: str
    """Ask as the caller who presents this key."""
    global_timeout: float
    """Seconds that a call may take to its first content, over all attempts."""
    max_concurrent_requests_per_key: int | Mapping[str, int]
    """Calls in flight per key: of every provider, or by provider."""
    ignore_models: Models
    """Provider -> models, or shell wildcards, that are not offered."""
    whitelist_models: Models
    """Provider -> models, or shell wildcards, that are offered whatever *ignore_models* says."""
    session_stickiness_ttl_seconds: float
    """Seconds that a conversation prefers the key that answered it; 0: off."""
    pre_request_callback: Hook
    """Called (and awaited) as `callback(request, parameters)` before each attempt."""
    abort_on_callback_error: bool
    """False: what the callback raises is logged, and the attempt is made (True)."""
    enable_request_logging: bool
    """A line per call in the log `keyturn.client` (False)."""
    configure_logging: bool
    """Cooldowns, rotations and alarms go to the log `keyturn.client` (True)."""
    embedding_batch_window: float
    """Seconds that an embedding waits for others to join it (0.005); 0: none is joined."""


KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "api_keys": ((Mapping,), "a dict of providers and their keys, such as {'groq': ['gsk_1', 'gsk_2']}"),
    "ignore_models": ((Mapping,), "a dict of providers and models, such as {'groq': ['llama-*']}"),
    "whitelist_models": ((Mapping,), "a dict of providers and models, such as {'groq': ['llama-*']}"),
    "caller": ((str,), "the name of a caller, a string"),
    "caller_key": ((str,), "the key of a caller, a string"),
    **dict.fromkeys(("config", "env_file", "data_dir"), ((str, PathLike), "a path")),
    **dict.fromkeys(
        ("global_timeout", "session_stickiness_ttl_seconds", "embedding_batch_window"),
        ((int, float), "a number of seconds"),
    ),
    **dict.fromkeys(
        ("share", "abort_on_callback_error", "enable_request_logging", "configure_logging"), ((bool,), "True or False")
    ),
    "pre_request_callback": ((Callable,), "a function of two arguments"),  # type: ignore[dict-item]
}
"""What arguments must be."""
LONGEST_NAME = 40
"""Characters of a provider's name; what is longer may be a key in the wrong place, and is not told."""


def read(*, environ: Mapping[str, str] | None = None, **arguments: Any) -> Given:
    """The arguments of `AsyncClient`, as it documents them; None counts as not given. *environ* stands for the
    environment. Raises TypeError for one that is not known or of a wrong type, ValueError for a value that makes no
    sense, ConfigError for mistakes in files and environment."""
    given = {name: value for name, value in arguments.items() if value is not None}
    _refuse({name: value for name, value in arguments.items() if name not in ARGUMENTS})
    for name, value in given.items():
        kinds, meant = KINDS.get(name, ((object,), ""))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and name in KINDS):
            raise TypeError(f"{name} must be {meant}, not of type {type(value).__name__}")
    return _read(environ=environ, **given)


def _read(
    *,
    api_keys: Keys | None = None,
    config: str | Path | None = None,
    env_file: str | Path | None = None,
    data_dir: str | Path | None = None,
    share: bool = True,
    caller: str | None = None,
    caller_key: str | None = None,
    global_timeout: float | None = None,
    max_concurrent_requests_per_key: int | Mapping[str, int] | None = None,
    ignore_models: Models | None = None,
    whitelist_models: Models | None = None,
    session_stickiness_ttl_seconds: float | None = None,
    pre_request_callback: Hook | None = None,
    abort_on_callback_error: bool = True,
    enable_request_logging: bool = False,
    configure_logging: bool = True,
    embedding_batch_window: float = BATCH_WINDOW,
    environ: Mapping[str, str] | None,
) -> Given:
    keys = None if api_keys is None else {name: _texts("api_keys", name, each) for name, each in api_keys.items()}
    values = dict(environment() if environ is None else environ)
    said = _models("IGNORE_MODELS", ignore_models) | _models("WHITELIST_MODELS", whitelist_models)
    said |= _seconds("GLOBAL_TIMEOUT", "global_timeout", global_timeout)
    said |= _seconds("SESSION_STICKINESS_TTL", "session_stickiness_ttl_seconds", session_stickiness_ttl_seconds, 0)
    where = Options(config=_path(config), data=_path(data_dir))

    def loaded(more: Mapping[str, str]) -> Config:
        place: dict[str, Any] = {"env_file": _path(env_file), "cwd": Path.cwd(), "options": where}
        if keys is not None:
            return load_with_keys({**values, **more}, keys, **place)
        return load({**values, **more}, **place)

    found = loaded(said)
    if max_concurrent_requests_per_key is not None:
        bounds = _bounds(max_concurrent_requests_per_key, found)
        found = loaded(said | {f"MAX_CONCURRENT_REQUESTS_PER_KEY_{_spelled(name)}": n for name, n in bounds.items()})
    found = without_demo(found)
    return replace(
        _behaviour(
            found,
            pre_request_callback,
            abort_on_callback_error,
            configure_logging,
            enable_request_logging,
            embedding_batch_window,
        ),
        caller=_caller(found, caller, caller_key),
        caller_name=caller,
        caller_key=None if caller_key is None else Secret(caller_key),
        keyed=keys is not None,
        share=share,
        signature=(tuple(sorted(said.items())), repr(max_concurrent_requests_per_key), where, env_file, _marks(found)),
    )


def over(
    config: Config,
    *,
    pre_request_callback: Hook | None = None,
    abort_on_callback_error: bool = True,
    configure_logging: bool = True,
    enable_request_logging: bool = False,
    embedding_batch_window: float = BATCH_WINDOW,
) -> Given:
    """The same for a pool that is there already: how the client itself behaves."""
    return _behaviour(
        config,
        pre_request_callback,
        abort_on_callback_error,
        configure_logging,
        enable_request_logging,
        embedding_batch_window,
    )


def _behaviour(
    config: Config, hook: Hook | None, abort: bool, log_events: bool, log_calls: bool, batch_window: float
) -> Given:
    if not batch_window >= 0:
        raise ValueError("embedding_batch_window is seconds; 0 turns joining off")
    callback = None if hook is None else Callback(hook, abort)
    return Given(config, config.default_caller, callback, abort, log_events, log_calls, batch_window)


def without_demo(config: Config) -> Config:
    """*config* without the rehearsed provider, which a library never answers from."""
    if not config.demo:
        return config
    demo = {name for name, row in config.providers.items() if row.local_app and name in CATALOG}
    return replace(
        config,
        providers={name: row for name, row in config.providers.items() if name not in demo},
        credentials={name: keys for name, keys in config.credentials.items() if name not in demo},
        demo=False,
    )


def _marks(config: Config) -> tuple[str, ...]:
    return tuple(sorted(each.fingerprint for keys in config.credentials.values() for each in keys))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _spelled(provider: str) -> str:
    row = known(provider)
    return (row.name if row is not None else provider).upper().replace("-", "_").replace(".", "_")


def _texts(argument: str, name: Any, given: Any) -> list[str]:
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise TypeError(f"{argument} is a dict whose names are providers, such as 'groq'; one of them is none")
    plain = isinstance(given, Iterable) and not isinstance(given, Mapping | bytes)
    texts = [given] if isinstance(given, str) else list(given) if plain else []
    if not plain or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{argument}[{name!r}] must be a string or a list of strings")
    return [text.strip() for text in texts if text.strip()]


def _models(family: str, given: Models | None) -> dict[str, str]:
    """The variables of one family that say the same as *given*."""
    named = (given or {}).items()
    return {f"{family}_{_spelled(name)}": ",".join(_texts(family.lower(), name, texts)) for name, texts in named}


def _seconds(variable: str, argument: str, given: float | None, least: float | None = None) -> dict[str, str]:
    """The variable that says the same as *given*, which is above 0 or at least *least*."""
    if given is None:
        return {}
    if not (given > 0 if least is None else given >= least):
        raise ValueError(f"{argument} must be a {'positive ' if least is None else ''}number of seconds")
    return {variable: repr(float(given))}


def _bounds(given: int | Mapping[str, int], config: Config) -> dict[str, str]:
    """Provider -> how many calls each of its keys may have under way."""
    named = given if isinstance(given, Mapping) else dict.fromkeys(config.providers, given)
    for name, bound in named.items():
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise TypeError("max_concurrent_requests_per_key is a whole number, or one for each provider")
        row = known(name)
        if (row.name if row is not None else name) not in config.providers:
            near = nearest(name, list(config.providers))
            raise ValueError(f"max_concurrent_requests_per_key: {name!r} has no key" + (f"; {near}?" if near else ""))
    return {name: str(bound) for name, bound in named.items()}


def _caller(config: Config, name: str | None, key: str | None) -> Caller:
    """Who asks: the named caller of callers.yaml, or the one who presents *key*; by default who may do everything."""
    if name is not None and key is not None:
        raise TypeError("give caller or caller_key, not both")
    if key is not None:
        return config.callers.get(hashlib.sha256(key.encode()).hexdigest()) or config.default_caller
    if name is None:
        return config.default_caller
    names = {each.name: each for each in (*config.callers.values(), config.default_caller)}
    if name not in names:
        raise ValueError(f"no caller is called {name!r}; callers.yaml has {', '.join(sorted(names))}")
    return names[name]


def _refuse(others: Mapping[str, Any]) -> None:
    """Raises TypeError for the first of *others*."""
    for name in others:
        if name in REPLACED:
            raise TypeError(f"{name} is no argument here: {REPLACED[name]}")
        near = nearest(name, ARGUMENTS)
        raise TypeError(f"{name!r} is no argument of a client" + (f"; did you mean {near}?" if near else ""))


ARGUMENTS = tuple(Arguments.__annotations__)
"""All that a client takes."""
