"""The documents tell the truth: what exists is documented, and what is documented exists."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import keyturn
from keyturn.cli import main
from keyturn.config import VARIABLES, Options, load
from keyturn.core import PROFILES, selection
from keyturn.dispatch import signatures
from keyturn.errors import KeyturnError, PoolError, RequestError
from keyturn.server.paths import ENDPOINTS
from keyturn.telemetry import METRICS
from keyturn.wire import SHORTEST_CACHED

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "config" / "READ_ME_KEY_ROTATION.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [*(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")), GUIDE]
READERS = {"text", "words", "switch", "seconds", "is_set", "per_provider", "max_concurrent", "get", "_switch"}
"""How the configuration asks for a variable; the name, or a part of a family's, is the first word of it."""
OLD_NAMES = {
    "TIMEOUT_READ_STREAMING",
    "TIMEOUT_READ_NON_STREAMING",
    "TIMEOUT_WRITE",
    "TIMEOUT_POOL",
    "ROTATION_TOLERANCE",
}
"""Names of earlier systems that are understood; none of them is ours."""


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


def below(base: type[KeyturnError]) -> list[type[KeyturnError]]:
    """An error of ours and everything below it in the tree of errors.py."""
    ours = [error for error in base.__subclasses__() if error.__module__ == "keyturn.errors"]
    return [base, *(each for error in ours for each in below(error))]


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
    return re.escape(variable).replace("<P>", "[A-Z0-9_]+").replace("<NAME>", "[A-Z0-9_]+").replace("<n>", r"\d+")


def section(text: str, heading: str) -> str:
    """What stands under *heading*, up to the next heading of its rank or above."""
    level, lines, inside, code = len(heading) - len(heading.lstrip("#")), [], False, False
    for line in text.splitlines():
        code = code != line.lstrip().startswith("```")
        if inside and not code and re.match(rf"#{{1,{level}}} ", line):
            break
        if inside:
            lines.append(line)
        inside = inside or line == heading
    assert inside, f"there is no {heading!r}"
    return "\n".join(lines)


def rows(text: str) -> list[tuple[str, ...]]:
    """The cells of every row of the tables in *text*, heads left out."""
    found: list[tuple[str, ...]] = []
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r" *\|", line) and not re.match(r"[ |-]+$", line) and not re.match(r" *\|[ |-]+$", following):
            found.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
    return found


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks that are marked as one of *languages*; "" is no mark."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def files_shown(text: str) -> Iterator[tuple[str, str]]:
    """Name and content of each configuration file that a YAML block shows under its name."""
    for block in blocks(text, "yaml"):
        for part in re.split(r"^(?=# config/)", block, flags=re.MULTILINE):
            if named := re.match(r"# config/([a-z]+\.yaml)", part):
                yield named[1], part


def variables_read() -> set[str]:
    """Every variable that the configuration asks for by a name in its code, families left out."""
    found: set[str] = set()
    for file in (ROOT / "src" / "keyturn" / "config").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            word = node.args[0].value
            if name in READERS and isinstance(word, str) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", word):
                found.add(word)
    return found


def test_DOC_01_readme_lists_every_environment_variable() -> None:
    table = rows(section((ROOT / "README.md").read_text(), "## Environment variables"))
    known = [(f"`{each.name}`", each.default.removeprefix("-"), each.meaning) for each in VARIABLES]
    assert [row for row in known if row not in table] == []
    assert [row for row in table if row not in known] == []


def test_DOC_01_every_variable_that_is_read_is_listed() -> None:
    read = variables_read()
    assert {"USE_PAID_MODELS", "PROXY_API_KEY", "TIMEOUT_TOTAL", "ORCHESTRATOR_ROLES"} <= read
    patterns = [pattern(variable.name) for variable in VARIABLES]
    assert sorted(name for name in read - OLD_NAMES if not any(re.fullmatch(each, name) for each in patterns)) == []


def test_DOC_01_readme_explains_rotation_and_limits() -> None:
    text = (ROOT / "README.md").read_text()
    rotation = section(text, "## How key rotation works")
    assert missing({"GOOGLE_API_KEY_1", "429", "cooldown_seconds", ".cache/google_ai_studio.keyidx"}, rotation) == []
    limits = section(text, "## Per-model rate limits")
    words = {"rpm", "tpm", "rpd", "tpd", "plan", "scope", "quota_group", "default_limits", "unavailable", "LIMITS_<P>"}
    assert missing(words, limits) == []
    assert missing({"keyturn limits list", "keyturn keys list", "/v1/quota-stats"}, limits) == []


def test_DOC_02_rotation_guide_is_linked_from_the_readme() -> None:
    readme = ROOT / "README.md"
    assert "](config/READ_ME_KEY_ROTATION.md)" in section(readme.read_text(), "## How key rotation works")
    assert "round_robin" in GUIDE.read_text()
    tracked = [each for each in ROOT.glob("**/READ_ME_KEY_ROTATION.md") if ".venv" not in each.parts]
    assert tracked == [GUIDE], "moved, not copied"


def test_DOC_03_devlog_is_dated_and_shows_a_real_run() -> None:
    text = (ROOT / "docs" / "DEVLOG.md").read_text()
    assert section(text, "## Summary").strip()
    dates = re.findall(r"^## (\d{4}-\d\d-\d\d) · \S", text, re.MULTILINE)
    assert len(dates) >= 2
    assert dates == sorted(dates, reverse=True), "the newest entry stands first"
    log = section(text, "## 2026-11-28 · Configured the way its users already configure")
    moves = re.findall(r"^\d\d:\d\d:\d\d gemini: key (\d) of 3 is in use now$", log, re.MULTILINE)
    assert moves == ["2", "3", "1"], "the rotation wraps"
    calls = re.findall(r"^\d\d:\d\d:\d\d \S+ senior_dev 200 .* → ok → \d+ ms$", log, re.MULTILINE)
    assert len(calls) == 9
    assert any("gemini" in line and "groq-2" in line for line in calls), "one goes on to the next provider"


@pytest.mark.parametrize("trouble", ["No keys", "Keys are not loaded", "Rate limits", "Provider specifics"])
def test_DOC_07_troubleshooting(trouble: str) -> None:
    text = section((ROOT / "README.md").read_text(), "## Troubleshooting")
    _, found, rest = text.partition(f"**{trouble}**\n")
    assert found
    assert len(rows(rest.partition("\n**")[0])) >= 3


def test_DOC_08_the_template_of_a_pull_request() -> None:
    text = (ROOT / ".github" / "pull_request_template.md").read_text()
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert headings == ["Summary", "Changes", "How to test", "Rollback"]
    rollback = section(text, "### Rollback")
    assert "config/models.yaml.bak.<ts>" in rollback
    assert ".env.bak.<ts>" in rollback


def test_DOC_08_the_rollback_note() -> None:
    text = section((ROOT / "docs" / "changing.md").read_text(), "### Going back")
    for command in ("cp .env.bak.<ts> .env", "cp config/models.yaml.bak.<ts> config/models.yaml"):
        assert f"`{command}`" in " ".join(text.split())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_TUI_08_make_targets() -> None:
    targets = ["setup", "run", "bot", "watch", "lint", "test"]
    assert set(targets) <= make_targets()
    told = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    for command in ("keyturn serve", "keyturn bot", "keyturn watch", "ruff check", "mypy", "-m pytest"):
        assert command in told.stdout


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


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_commands_that_can_be_pasted_are_right(page: Path) -> None:
    """Every command line of a code block: its command exists, and so does every option in it."""
    for block in blocks(page.read_text(), "sh", ""):
        for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?keyturn (.*)$", block, re.MULTILINE):
            words, command = shlex.split(line, comments=True), main
            while words and isinstance(command, click.Group):
                found = command.get_command(click.Context(command), words.pop(0))
                assert found is not None, line
                command = found  # type: ignore[assignment]
            options = {option for parameter in command.params for option in parameter.opts}
            assert [word for word in words if word.startswith("-") and word not in options] == [], line


def test_every_error_code_is_documented_with_its_status() -> None:
    table = section((ROOT / "docs" / "http.md").read_text(), "## Errors")
    listed = {(status, code.strip("`")) for status, code, *_ in rows(table)}
    errors: list[type[KeyturnError]] = [*below(RequestError), *below(PoolError), KeyturnError]
    expected = {(str(error.status), error.code) for error in errors if error.code != "upstream_interrupted"}
    assert listed == expected | {("event", "upstream_interrupted")}


def test_every_endpoint_is_documented() -> None:
    text = section((ROOT / "docs" / "http.md").read_text(), "## Endpoints")
    served = {f"`{each.method} {each.path}`" for each in ENDPOINTS if each.need != "admin"}
    assert [each for each in served if each not in text] == []
    listed = set(re.findall(r"`((?:GET|POST) /[^`]*)`", text))
    assert listed <= {f"{each.method} {each.path}" for each in ENDPOINTS}


def test_what_is_remembered_for_conversations_is_documented_with_its_bounds() -> None:
    page = (ROOT / "docs" / "wire-formats.md").read_text()
    kept = " ".join(section(page, "## Signatures across a failover").split())
    assert f"{signatures.MOST:,} signatures" in kept
    assert f"the latest {signatures.MOST:,} signed calls" in kept
    caches = " ".join(section(page, "## Prompt caches").split())
    assert f"from {SHORTEST_CACHED:,} bytes" in caches
    assert f"less than {selection.FAR_FULLER:.0%} of its limits".replace("%", " %") in caches
    assert f"{selection.MOST_HOLDERS:,} conversations" in caches


def test_every_metric_is_documented_with_its_help() -> None:
    table = rows(section((ROOT / "docs" / "watching.md").read_text(), "## Metrics"))
    assert sorted(table) == sorted((f"`{name}`", text) for name, text in METRICS.items())


def test_cooldown_profiles_are_documented(pages: str) -> None:
    assert missing({f"`{name}`" for name in PROFILES}, pages) == []


@pytest.mark.parametrize("page", [page for page in [*PAGES, *OTHER_PAGES] if list(files_shown(page.read_text()))])
def test_configuration_files_that_are_shown_load(page: Path, tmp_path: Path) -> None:
    """Each YAML block that names its file, over the files as shipped."""
    for number, block in enumerate(blocks(page.read_text(), "yaml")):
        folder = tmp_path / str(number)
        shown = list(files_shown(f"```yaml\n{block}```\n"))
        if not shown:
            continue
        folder.mkdir()
        for name, text in shown:
            (folder / name).write_text(text)
        environ = {"TEAM_A_KEY": "caller-key", "GOOGLE_API_KEY_1": "a", "GROQ_API_KEY": "b", "OPENROUTER_API_KEY": "c"}
        config = load(environ, cwd=tmp_path, options=Options(config=folder))
        assert [note for note in config.notes if "limits.yaml" not in note] == []


def test_the_project_structure_of_the_readme_exists() -> None:
    (block,) = blocks(section((ROOT / "README.md").read_text(), "## Project structure"), "")
    named = re.findall(r"^(\S+)  ", block, re.MULTILINE)
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).is_dir()] == []


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
