"""What the environment and `.env` say of each provider's keys, as attributes: `SETTINGS.groq_api_keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyturn.config import Config, environment, load
from keyturn.providers import CATALOG, known, nearest

KEYS, KEY, MODEL = "_api_keys", "_api_key", "_chat_model"


class Settings:
    """The settings of this process, read from the environment, `.env` and `config/` when one is first asked for.

    `<provider>_api_keys` is the list of its keys in their order, blanks and duplicates left out; `<provider>_api_key`
    the first of them, or None; `<provider>_chat_model` what `<PROVIDER>_CHAT_MODEL` names, or None. A provider may be
    written by any of its names. Raises AttributeError for any other name, with the nearest one, and ConfigError for a
    configuration with mistakes.
    """

    def __init__(self, overrides: dict[str, Any] | None = None) -> None:
        self._overrides = dict(overrides or {})
        self._config: Config | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._overrides:
            return self._overrides[name]
        kind = next((each for each in (KEYS, KEY, MODEL) if name.endswith(each)), None)
        config = self._read()
        provider = None if kind is None else _provider(name.removesuffix(kind), config)
        if provider is None:
            raise AttributeError(_unknown(name, config))
        if kind == MODEL:
            return config.chat_models.get(provider)
        keys = [each.secret.reveal() for each in config.credentials.get(provider, ()) if each.secret]
        if kind == KEYS:
            return keys
        return keys[0] if keys else None

    def update_from_kwargs(self, **overrides: Any) -> Settings:
        """The same settings with *overrides* in place of what was read; this object stays as it is."""
        for name in overrides:
            getattr(self, name)
        changed = Settings(self._overrides | overrides)
        changed._config = self._config
        return changed

    def __dir__(self) -> list[str]:
        return [f"{name}{kind}" for name in _names(self._read()) for kind in (KEYS, KEY, MODEL)]

    def __repr__(self) -> str:
        config = self._config
        if config is None:
            return "<Settings, not read yet>"
        counts = ((name, sum(bool(each.secret) for each in keys)) for name, keys in config.credentials.items())
        told = ", ".join(f"{name} {count} key{'s' * (count != 1)}" for name, count in counts if count)
        return f"<Settings: {told or 'no keys'}>"

    def _read(self) -> Config:
        if self._config is None:
            self._config = load(environment(), cwd=Path.cwd())
        return self._config


def _names(config: Config) -> list[str]:
    return list(dict.fromkeys((*CATALOG, *config.providers)))


def _provider(name: str, config: Config) -> str | None:
    """The canonical name of the provider that is written *name*."""
    row = known(name)
    if row is not None:
        return row.name
    return name if name in config.providers else None


def _unknown(name: str, config: Config) -> str:
    valid = [f"{provider}{kind}" for provider in _names(config) for kind in (KEYS, KEY, MODEL)]
    near = nearest(name, valid)
    hint = (
        f"did you mean {near}?" if near else "there are <provider>_api_keys, <provider>_api_key, <provider>_chat_model"
    )
    return f"there is no setting {name[:80]!r}; {hint}"


SETTINGS = Settings()
