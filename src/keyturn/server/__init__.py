"""HTTP in: the endpoints of one gateway on raw ASGI, who may use them, and the process that listens."""

from importlib import import_module
from typing import TYPE_CHECKING

from .access import Access
from .app import App
from .loop_end import is_held_up
from .pages import Observer, Pages
from .paths import ENDPOINTS, Endpoint
from .serve import Server, bind, run, url_of

if TYPE_CHECKING:
    from .siblings import Seat
    from .workerlog import WorkerLog
    from .workers import UNOPENED, Job, Supervisor

__all__ = [
    "ENDPOINTS",
    "UNOPENED",
    "Access",
    "App",
    "Endpoint",
    "Job",
    "Observer",
    "Pages",
    "Seat",
    "Server",
    "Supervisor",
    "WorkerLog",
    "bind",
    "is_held_up",
    "run",
    "url_of",
]

_LATER = {
    "Seat": "siblings",
    "WorkerLog": "workerlog",
    "UNOPENED": "workers",
    "Job": "workers",
    "Supervisor": "workers",
}
"""What only several workers need, and the module that has it."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
