"""What is shipped: few dependencies, locks with hashes and no address, data files in the wheel, light imports."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def imported_by(code: str) -> set[str]:
    """The modules that are loaded once *code* has run in a fresh interpreter."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_at_most_fourteen_direct_dependencies_each_with_its_reason() -> None:
    assert len(PROJECT["dependencies"]) <= 14
    block = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [\n")[2].partition("\n]")[0]
    assert [line for line in block.splitlines() if "# " not in line] == []


def test_what_is_imported_is_declared() -> None:
    extras = [each for extra in PROJECT["optional-dependencies"].values() for each in extra]
    declared = {re.split(r"[>=;\[ ]", each)[0].lower() for each in (*PROJECT["dependencies"], *extras)}
    declared |= {
        "yaml",
        "dotenv",
        "prometheus_client",
    }  # imported under names that are not the distribution's
    declared |= {"multidict", "yarl", "aiohappyeyeballs"}  # part of aiohttp's interface
    declared |= {"pydantic_core"}  # part of pydantic's
    declared |= {"discord"}  # what discord.py is imported as
    declared |= {"opentelemetry"}  # what opentelemetry-sdk and its exporter are imported as
    declared |= {"httpx2"}  # what the official SDKs are built on: only who has one has a use for it
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"keyturn"} <= declared


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_by_hash_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"://|--(?!hash=)", text)
    for requirement in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        assert re.match(r"[a-z0-9.-]+(\[[a-z0-9,-]+\])?==\S+ ", requirement)
        assert "--hash=sha256:" in requirement


def test_locks_agree_and_cover_the_dependencies() -> None:
    base, dev = (
        dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("base.txt", "dev.txt")
    )
    direct = {re.split(r"[>=;\[ ]", each)[0].lower().replace(".", "-") for each in PROJECT["dependencies"]}
    assert direct <= base.keys()
    assert base.items() <= dev.items()


def test_the_wheel_carries_code_and_data(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("keyturn-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "keyturn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"keyturn/py.typed", "keyturn/providers/catalog.toml"} <= package <= names
    assert {name.partition("/")[0] for name in names - package} == {f"keyturn-{PROJECT['version']}.dist-info"}


def test_importing_keyturn_loads_no_server_and_no_client() -> None:
    heavy = {"aiohttp", "starlette", "uvicorn", "pydantic", "click", "rich", "ruamel.yaml", "asyncio"}
    assert imported_by("import keyturn") & heavy == set()


def test_a_configuration_of_variables_alone_loads_no_parser_of_files() -> None:
    load = "from pathlib import Path; from keyturn.config import load; load({}, cwd=Path('/nonexistent'))"
    assert imported_by(load) & {"yaml", "pydantic", "ruamel.yaml"} == set()


def test_help_loads_no_server() -> None:
    loaded = imported_by(
        "sys.argv = ['keyturn', '--help']\ntry:\n    from keyturn.cli import main; main()\nexcept SystemExit: pass"
    )
    assert loaded & {"aiohttp", "starlette", "uvicorn", "pydantic", "rich", "ruamel.yaml", "yaml", "asyncio"} == set()
    assert "keyturn.dispatch" not in loaded


def test_serve_loads_what_it_uses_and_ends_on_a_signal(tmp_path: Path) -> None:
    """Start-up is counted in modules, not in seconds. Raise the figure only for something that every start needs."""
    command = [sys.executable, "-X", "importtime", "-c", "from keyturn.cli import main; main()", "serve", "--port", "0"]
    environ = {"GROQ_API_KEY": "planted-but-never-used", "HOME": str(tmp_path)}
    said = []
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "listens on" in line:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    loaded = set(re.findall(r"^import time:.*\|\s+(\S+)$", "".join(said), re.MULTILINE))
    assert {"uvicorn.config", "keyturn.server.app"} <= loaded
    assert loaded & {"rich", "ruamel.yaml", "pydantic", "keyturn.simulator", "fastapi", "httpx"} == set()
    assert len(loaded) < 530
