"""What the project owes whoever clones it: make targets, documents, supported Pythons, and tests that really run."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SEED_TESTS = ("test_rotation_google.py", "test_rate_limit.py", "test_router_paid_flag.py")
VARIABLES = [
    "OPENROUTER_API_KEY",
    "GROQ_API_KEY",
    "TOGETHER_API_KEY",
    "DEEPSEEK_API_KEY",
    *(f"GOOGLE_API_KEY_{number}" for number in range(1, 6)),
    "DISCORD_BOT_TOKEN",
    "USE_PAID_MODELS",
]


def headings(page: Path) -> list[str]:
    return [line.lstrip("# ").strip() for line in page.read_text().splitlines() if line.startswith("#")]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
@pytest.mark.parametrize("target", ["setup", "run", "bot", "watch", "lint", "test"])
def test_TUI_08_the_make_targets_are_there(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recipe = {"run": "keyturn serve", "bot": "keyturn bot", "watch": "keyturn watch", "lint": "ruff", "test": "pytest"}
    assert recipe.get(target, "") in done.stdout


def test_DEP_09_python_3_11_and_newer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in project["classifiers"]
    assert sys.version_info >= (3, 11)


@pytest.mark.parametrize("name", VARIABLES)
def test_DOC_01_the_readme_lists_every_variable_of_the_seed(name: str) -> None:
    assert re.search(rf"(?<![\w-]){name}(?![\w-])", README.read_text())


@pytest.mark.parametrize(
    "section", ["How key rotation works", "Per-model rate limits", "Troubleshooting", "Project structure"]
)
def test_DOC_01_the_readme_has_its_sections(section: str) -> None:
    assert section in headings(README)


def test_DOC_02_the_guide_to_rotation_is_linked_from_the_readme() -> None:
    guide = "config/READ_ME_KEY_ROTATION.md"
    assert f"]({guide})" in README.read_text()
    text = (ROOT / guide).read_text()
    for said in ("google_ai_studio.keyidx", "round_robin", "cooldown_seconds", "GOOGLE_API_KEY_1"):
        assert said in text


def test_DOC_03_the_log_of_development_is_dated_and_has_a_summary_and_a_real_run() -> None:
    page = ROOT / "docs" / "DEVLOG.md"
    text = page.read_text()
    assert any(re.search(r"\d{4}-\d{2}-\d{2}", heading) for heading in headings(page))
    assert any("summary" in heading.lower() for heading in headings(page))
    assert re.search(r"→ .+ → ", text), "a line of routing"
    assert re.search(r"key \d of \d is in use now", text), "a line of rotation"


def test_DOC_08_the_template_of_pull_requests_asks_for_what_the_seed_asks() -> None:
    found = [heading.lower() for heading in headings(ROOT / ".github" / "pull_request_template.md")]
    assert found == ["summary", "changes", "how to test", "rollback"]
    assert ".bak" in (ROOT / ".github" / "pull_request_template.md").read_text()


@pytest.mark.parametrize("name", SEED_TESTS)
def test_TST_04_the_tests_of_the_seed_are_many_asynchronous_and_none_is_skipped(name: str) -> None:
    """The seed claimed success at 94 %; here a test that fails, is skipped or expected to fail is no success."""
    tree = ast.parse((ROOT / "tests" / name).read_text())
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    stories = [test for test in tests if any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(test))]
    assert len(stories) >= 10
    marks = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not marks & {"skip", "skipif", "xfail", "importorskip"}


def test_TST_05_continuous_integration_runs_setup_lint_and_test() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make setup\b", script, re.MULTILINE)
    assert re.search(r"^for step in lint test; do$", script, re.MULTILINE)
    assert 'make "$step"' in script
    assert re.search(r'^exit "\$status"$', script, re.MULTILINE), "a failure fails it"


@pytest.mark.parametrize("name", ["roadmap", "library", "deployment", "migration", "http", "routing", "DEVLOG"])
def test_DOC_05_the_documents_for_whoever_takes_over_are_there_and_can_be_found(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text()
    assert text.startswith("# ")
    assert f"docs/{name}.md" in (ROOT / "README.md").read_text()


def test_DOC_05_the_roadmap_tells_how_everything_stands() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ", (ROOT / "docs" / "roadmap.md").read_text(), re.MULTILINE)[2:]
    states = {state.strip().partition(":")[0] for _, state in rows}
    assert states == {"done", "next", "after that", "later"}


def test_TST_09_style_types_and_coverage_have_their_commands() -> None:
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    for command in ("ruff check .", "ruff format --check .", "/mypy", "--cov"):
        assert command in makefile
    assert "line-length = 120" in project
    assert "strict = true" in project
