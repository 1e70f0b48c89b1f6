"""The documents tell the truth: what exists is documented, and what is documented exists."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import keyturn
from keyturn.cli import main
from keyturn.config import VARIABLES
from keyturn.errors import KeyturnError, PoolError, RequestError
from keyturn.telemetry import METRICS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


@pytest.fixture(scope="module")
def pages() -> str:
    """README.md and docs/ as one text."""
    return "\n".join(page.read_text() for page in PAGES)


def commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, `keyturn keys add`."""
    yield path, group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from commands(command, f"{path} {name}")


def codes(base: type[KeyturnError]) -> set[str]:
    """The codes of an error and of everything below it."""
    return {base.code}.union(*(codes(error) for error in base.__subclasses__()))


def missing(names: set[str], text: str) -> list[str]:
    """Those of *names* that do not stand in *text* as whole words."""
    return sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere: a missing file, or a heading that its page does not have."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        headings = [line for line in there.read_text().splitlines() if line.startswith("#")] if there.is_file() else []
        if not there.exists() or (anchor and anchor not in map(slug, headings)):
            broken.append(target)
    return broken


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def make_targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    return set(phony[1].split())


def pattern(variable: str) -> str:
    """A regular expression for the names that a variable of the registry stands for."""
    return re.escape(variable).replace("<P>", "[A-Z0-9_]+").replace("<n>", r"\d+")


def test_every_variable_is_documented(pages: str) -> None:
    assert missing({variable.name for variable in VARIABLES}, pages) == []


def test_env_example_lists_every_variable_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    listed = set(re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    patterns = [pattern(variable.name) for variable in VARIABLES]
    assert [each for each in patterns if not any(re.fullmatch(each, name) for name in listed)] == []
    assert [name for name in listed if not any(re.fullmatch(each, name) for each in patterns)] == []


def test_every_command_and_option_is_documented(pages: str) -> None:
    names, options = set(), set()
    for path, command in commands(main, "keyturn"):
        names.add(path)
        found = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        options |= {option for option in found if option != "--help"}
    assert missing(names, pages) == []
    assert missing(options, pages) == []


def test_every_documented_command_exists() -> None:
    existing = {path for path, _ in commands(main, "keyturn")}
    for page in [*PAGES, *OTHER_PAGES]:
        for line in re.findall(r"(?:^|`)(?:\.venv/bin/)?(keyturn [a-z][a-z-]+)", page.read_text(), re.MULTILINE):
            assert line in existing, f"{page.name} names `{line}`"


def test_every_error_code_is_documented(pages: str) -> None:
    assert missing(codes(RequestError) | codes(PoolError) | {KeyturnError.code}, pages) == []


def test_every_metric_is_documented(pages: str) -> None:
    assert missing(set(METRICS), pages) == []


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


def test_a_broken_link_is_found() -> None:
    readme = ROOT / "README.md"
    assert broken_links(readme, "[a](nowhere.md) [b](#no-such-heading) [c](Makefile)") == [
        "nowhere.md",
        "#no-such-heading",
    ]


def test_make_commands_of_the_documents_exist_and_are_all_documented() -> None:
    text = "\n".join(page.read_text() for page in [*PAGES, *OTHER_PAGES])
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named <= make_targets()
    assert make_targets() - {"help"} <= named


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == keyturn.__version__
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
