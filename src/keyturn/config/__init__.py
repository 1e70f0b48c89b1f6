"""Files and environment into one frozen Config, and the data folder: the only place that reads the environment."""

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
    Timeouts,
    WithoutRedis,
)
from .modelsmerge import ModelsMerge, merge_models
from .modes import ModelList, Modes
from .report import notes_of
from .schema import schema_of, schema_text, shapes
from .variables import VARIABLES, Variable
from .workerfolder import WorkerFolder

__all__ = [
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
    "RedisSettings",
    "ResponsesSettings",
    "Rest",
    "Rotation",
    "ServerSettings",
    "SharingScope",
    "Strategy",
    "Timeouts",
    "UnknownProvider",
    "Variable",
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
    "remove_login",
    "schema_of",
    "schema_text",
    "shapes",
    "shipped",
    "sole_writer",
    "token_folder",
    "value_of",
    "what_to_set",
    "write_initial",
    "write_private",
    "write_whole",
]
