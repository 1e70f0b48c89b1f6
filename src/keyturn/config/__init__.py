"""Files and environment into one frozen Config, and the data folder: the only place that reads the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .additions import Added, UnknownProvider, add_key, quoted
from .addresses import base_url
from .backups import back_up, sole_writer, write_whole
from .callerfile import AddedCaller, CallerFile, CallerRow
from .caps import Cap, Rest
from .defaults import blind_defaults, default_models, model_variable, what_to_set
from .environment import environment, value_of
from .envmerge import EnvMerge, merge_env
from .folder import DataFolder, Owner, write_private
from .handed import load_with_keys
from .initial import Written, env_template, shipped, write_initial
from .load import load
from .logins import Login, add_login, read_logins, remove_login, token_folder
from .model import (
    CacheSettings,
    CoalesceSettings,
    Config,
    Durability,
    FileStamp,
    HedgingSettings,
    LearningSettings,
    LedgerSettings,
    LimitRule,
    LimitSpec,
    LogFormat,
    OpenTelemetrySettings,
    Options,
    RedisSettings,
    ResponsesSettings,
    Rotation,
    ServerSettings,
    SharingScope,
    Strategy,
    StreamSettings,
    Timeouts,
    WaitingSettings,
    WithoutRedis,
)
from .modelsmerge import ModelsMerge, merge_models
from .modes import ModelList, Modes
from .pins import PIN_METRICS, PIN_WINDOWS, Pin, with_pin
from .report import notes_of
from .schema import schema_of, schema_text, shapes
from .variables import VARIABLES, Variable
from .workerfolder import WorkerFolder

if TYPE_CHECKING:
    from .reading import read_shape

__all__ = [
    "PIN_METRICS",
    "PIN_WINDOWS",
    "VARIABLES",
    "Added",
    "AddedCaller",
    "CacheSettings",
    "CallerFile",
    "CallerRow",
    "Cap",
    "CoalesceSettings",
    "Config",
    "DataFolder",
    "Durability",
    "EnvMerge",
    "FileStamp",
    "HedgingSettings",
    "LearningSettings",
    "LedgerSettings",
    "LimitRule",
    "LimitSpec",
    "LogFormat",
    "Login",
    "ModelList",
    "ModelsMerge",
    "Modes",
    "OpenTelemetrySettings",
    "Options",
    "Owner",
    "Pin",
    "RedisSettings",
    "ResponsesSettings",
    "Rest",
    "Rotation",
    "ServerSettings",
    "SharingScope",
    "Strategy",
    "StreamSettings",
    "Timeouts",
    "UnknownProvider",
    "Variable",
    "WaitingSettings",
    "WithoutRedis",
    "WorkerFolder",
    "Written",
    "add_key",
    "add_login",
    "back_up",
    "base_url",
    "blind_defaults",
    "default_models",
    "env_template",
    "environment",
    "load",
    "load_with_keys",
    "merge_env",
    "merge_models",
    "model_variable",
    "notes_of",
    "quoted",
    "read_logins",
    "read_shape",
    "remove_login",
    "schema_of",
    "schema_text",
    "shapes",
    "shipped",
    "sole_writer",
    "token_folder",
    "value_of",
    "what_to_set",
    "with_pin",
    "write_initial",
    "write_private",
    "write_whole",
]


def __getattr__(name: str) -> object:
    if name == "read_shape":
        from .reading import read_shape

        return read_shape
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
