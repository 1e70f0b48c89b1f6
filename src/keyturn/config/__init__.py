"""Files and environment into one frozen Config, and the data folder: the only place that reads the environment."""

from .additions import Added, UnknownProvider, add_key
from .backups import back_up, sole_writer, write_whole
from .callerfile import AddedCaller, CallerFile, CallerRow
from .environment import environment
from .envmerge import EnvMerge, merge_env
from .folder import DataFolder, Owner, write_private
from .initial import Written, env_template, shipped, write_initial
from .load import load
from .model import (
    Config,
    FileStamp,
    LimitRule,
    LimitSpec,
    LogFormat,
    Options,
    Rotation,
    ServerSettings,
    Strategy,
    Timeouts,
)
from .modelsmerge import ModelsMerge, merge_models
from .report import notes_of
from .schema import schema_of, schema_text, shapes
from .variables import VARIABLES, Variable

__all__ = [
    "VARIABLES",
    "Added",
    "AddedCaller",
    "CallerFile",
    "CallerRow",
    "Config",
    "DataFolder",
    "EnvMerge",
    "FileStamp",
    "LimitRule",
    "LimitSpec",
    "LogFormat",
    "ModelsMerge",
    "Options",
    "Owner",
    "Rotation",
    "ServerSettings",
    "Strategy",
    "Timeouts",
    "UnknownProvider",
    "Variable",
    "Written",
    "add_key",
    "back_up",
    "env_template",
    "environment",
    "load",
    "merge_env",
    "merge_models",
    "notes_of",
    "schema_of",
    "schema_text",
    "shapes",
    "shipped",
    "sole_writer",
    "write_initial",
    "write_private",
    "write_whole",
]
