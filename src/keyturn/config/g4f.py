"""Reads where G4F is: a base URL for each of its endpoints, and whether plain http may lead there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.providers import ENDPOINTS, Provider, nearest

from .addresses import PlainHttp, base_url

if TYPE_CHECKING:
    from .filed import FiledProvider
    from .settings import Settings

G4F = "g4f"
BASES = {f"G4F_{name.upper()}_API_BASE": name for name in ENDPOINTS}
"""Variable -> the endpoint that it sets. They make no provider of their own."""
KEYS_OF_ONE = tuple(f"G4F_{name.upper()}_API_KEY" for name in ENDPOINTS)
"""How the keys of one endpoint would be written, if there were such."""
ALLOWED = "G4F_ALLOW_INSECURE_HTTP"


def plain_http(settings: Settings) -> PlainHttp:
    """Where plain http may lead: to this machine only, unless the owner allows more."""
    return "anywhere" if (settings.text(ALLOWED) or "").lower() in ("true", "1", "yes", "on") else "loopback"


def find_endpoints(settings: Settings, usual: str | None, entry: FiledProvider | None) -> tuple[dict[str, str], str]:
    """The endpoints that are set, name -> base URL in their order, and the variable that sets the first; empty when
    none is.

    *usual* is the variable `G4F_API_BASE` when it is set: another name of `main`, as is the base URL of *entry*. What
    is wrong goes into the report.
    """
    settings.switch(ALLOWED)
    found: dict[str, str] = {}
    origin = ""
    for variable, name in BASES.items():
        if not settings.is_set(variable):
            if name != "main" or usual is None:
                continue
            variable = usual
        elif name == "main" and usual is not None and settings.text(usual) != settings.text(variable):
            settings.report.note(usual, f"is another name of {variable}, which says something else and is used")
        url = _address(settings, variable)
        if url:
            found[name] = url
        origin = origin or variable
    if "main" not in found and entry is not None and entry.base_url:
        found = {"main": entry.base_url, **found}
    return found, origin


def at_endpoints(row: Provider, endpoints: dict[str, str]) -> Provider:
    """G4F's *row* of the catalog with the addresses that are set."""
    return replace(row, endpoints=endpoints, base_url=next(iter(endpoints.values()), ""))


def meant(variable: str) -> str | None:
    """The variable of an endpoint that was probably meant by one that begins like them and is none."""
    return nearest(variable, BASES) if variable.startswith("G4F_") else None


def _address(settings: Settings, variable: str) -> str:
    try:
        return base_url(settings.text(variable) or "", plain_http(settings))
    except ValueError as refusal:
        settings.report.problem(variable, str(refusal))
        return ""
