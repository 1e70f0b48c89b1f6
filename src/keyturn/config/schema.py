"""The JSON Schema of each configuration file, for editors."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def shapes() -> dict[str, type[BaseModel]]:
    """The shape of each file, by the file's name without its ending."""
    from . import shape_callers, shape_limits, shape_models, shape_roles, shape_settings

    return {
        "models": shape_models.ModelsFile,
        "roles": shape_roles.RolesFile,
        "limits": shape_limits.LimitsFile,
        "callers": shape_callers.CallersFile,
        "settings": shape_settings.SettingsFile,
    }


def schema_of(file: str) -> dict[str, Any]:
    """The JSON Schema of `models`, `roles`, `limits`, `callers` or `settings`."""
    found: dict[str, Any] = shapes()[file].model_json_schema(by_alias=True)
    ending = "toml" if file == "settings" else "yaml"
    return {"$schema": DIALECT, **_plain(found), "title": f"Keyturn {file}.{ending}"}


@cache
def schema_text(file: str) -> str:
    """The same as the text of a schema file."""
    return json.dumps(schema_of(file), indent=2) + "\n"


def _plain(part: Any) -> Any:
    """*part* without the titles that repeat the names of members, and with each text on one line."""
    if isinstance(part, dict):
        titled = isinstance(part.get("title"), str)
        return {name: _plain(member) for name, member in part.items() if not (titled and name == "title")}
    if isinstance(part, list):
        return [_plain(member) for member in part]
    return " ".join(part.split()) if isinstance(part, str) and "\n" in part else part
