"""`from config.settings import SETTINGS` as the smart-client toolkit had it: Keyturn's settings."""

from keyturn.settings import SETTINGS

__all__ = ["SETTINGS"]
