"""Keyturn: one endpoint that never runs out of keys."""

__version__ = "0.1.0"
__all__ = ["__version__"]
