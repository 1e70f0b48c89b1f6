"""The command line: `keyturn …`. Each command loads what it uses, when it runs."""

from .entry import main

__all__ = ["main"]
