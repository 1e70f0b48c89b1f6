"""What is made from the shapes of the configuration files is current, and tells of everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import shapes
from keyturn.config.tomltext import TomlDocument
from keyturn.config.yamltext import YamlDocument
from tools import configdoc

ROOT = Path(__file__).parents[1]
AGAIN = "run `python -m tools.configdoc`"


def test_the_page_is_current() -> None:
    assert configdoc.PAGE.read_text() == configdoc.page(), AGAIN


@pytest.mark.parametrize("path", configdoc.schemas(), ids=lambda path: path.name)
def test_the_schemas_are_current(path: Path) -> None:
    assert path.read_text() == configdoc.schemas()[path], AGAIN


def test_every_member_has_a_meaning_and_an_example() -> None:
    missing: list[str] = []

    def look(name: str, schema: Any) -> None:
        for member, described in schema.get("properties", {}).items():
            if "$ref" in described:  # a section: described where it is defined
                continue
            if not described.get("description"):
                missing.append(f"{name}.{member}: no meaning")
            elif not described.get("examples"):
                missing.append(f"{name}.{member}: no example")

    for name, shape in shapes().items():
        schema = shape.model_json_schema(by_alias=True)
        for inner, described in {name: schema, **schema.get("$defs", {})}.items():
            look(inner, described)
    assert missing == []


@pytest.mark.parametrize("name", shapes())
def test_examples_are_valid(name: str) -> None:
    """The example of every member that stands at the top of a file."""
    shape = shapes()[name]
    for member, field in shape.model_fields.items():
        if field.examples:
            shape.model_validate({field.alias or member: field.examples[0]})


@pytest.mark.parametrize("name", shapes())
def test_the_shipped_files_name_their_schema(name: str) -> None:
    path = ROOT / "config" / (f"{name}.toml" if name == "settings" else f"{name}.yaml")
    first = path.read_text().partition("\n")[0]
    start = "#:schema " if name == "settings" else "# yaml-language-server: $schema="
    assert first == f"{start}schema/{name}.schema.json"
    assert (path.parent / "schema" / f"{name}.schema.json").is_file()


@pytest.mark.parametrize("name", shapes())
def test_the_schema_knows_what_the_shipped_files_say(name: str) -> None:
    """No validator is among our dependencies; the names of members are what editors help with."""
    schema = json.loads((ROOT / "config" / "schema" / f"{name}.schema.json").read_text())
    path = ROOT / "config" / (f"{name}.toml" if name == "settings" else f"{name}.yaml")
    kind = TomlDocument if name == "settings" else YamlDocument
    data = kind(path.name, path.read_text(), {}).data
    assert set(data) <= set(schema.get("properties", data))
