"""The library: the pool inside a program, without a server."""

from .doorway import Doorway

__all__ = ["Doorway"]
