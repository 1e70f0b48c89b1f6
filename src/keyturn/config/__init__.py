"""Files and environment into one frozen Config, and the data folder: the only place that reads the environment."""

from .additions import Added, UnknownProvider, add_key
from .environment import environment
from .folder import DataFolder, Owner, write_private
from .load import load
from .model import Config, LimitSpec, LogFormat, Options, ServerSettings, Strategy, Timeouts
from .report import notes_of
from .variables import VARIABLES, Variable

__all__ = [
    "VARIABLES",
    "Added",
    "Config",
    "DataFolder",
    "LimitSpec",
    "LogFormat",
    "Options",
    "Owner",
    "ServerSettings",
    "Strategy",
    "Timeouts",
    "UnknownProvider",
    "Variable",
    "add_key",
    "environment",
    "load",
    "notes_of",
    "write_private",
]
