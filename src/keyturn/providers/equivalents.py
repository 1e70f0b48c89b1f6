"""The shipped groups of deployments that serve the same model, from equivalents.toml, read at the first look."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from keyturn.core import Deployment


@cache
def shipped_equivalents() -> tuple[tuple[Deployment, ...], ...]:
    """The groups in the order of the file. *provider* is a name of the catalog, *model* its own id."""
    families = tomllib.loads(files(__package__).joinpath("equivalents.toml").read_text("utf-8"))
    return tuple(
        tuple(Deployment(*each.split("/", 1)) for each in group)
        for family in families.values()
        for group in family["groups"]
    )
