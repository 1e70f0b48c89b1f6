"""Names of tools: those of a namespace made flat for dialects without namespaces, and found again in the request."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class ToolName(NamedTuple):
    """What the client itself calls a tool."""

    name: str
    namespace: str = ""
    free: bool = False
    """It takes plain text, not an object."""


class _Given(msgspec.Struct, gc=False):
    type: str | None = None
    name: str | None = None
    tools: list[_Given] | None = None


_read = msgspec.json.Decoder(list[_Given]).decode


def flat_name(name: str, namespace: str) -> str:
    """The tool's name for a dialect that knows no namespaces."""
    return f"{namespace}__{name}" if namespace else name


def names_of(tools: bytes) -> dict[str, ToolName]:
    """The tools in the Responses member `tools` (JSON text) by their flat names; none for what is no list of tools."""
    try:
        given = _read(tools)
    except (ValueError, RecursionError):
        return {}
    found = {}
    for tool in given:
        inner = (tool.tools or []) if tool.type == "namespace" else [tool]
        namespace = tool.name or "" if tool.type == "namespace" else ""
        for each in inner:
            if each.name and each.type in ("function", "custom"):
                found[flat_name(each.name, namespace)] = ToolName(each.name, namespace, each.type == "custom")
    return found
