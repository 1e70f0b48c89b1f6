"""What `import keyturn` gives: few names, each there, loaded when it is used and not before."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import keyturn

HEAVY = {"aiohttp", "uvicorn", "starlette", "asyncio", "pydantic", "yaml", "openai", "httpx2", "keyturn.client"}


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has loaded once *code* has run."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return modules_after("")


def test_LIB_01_importing_keyturn_loads_a_quarter_of_what_openai_does_at_most(bare: set[str]) -> None:
    ours, theirs = modules_after("import keyturn") - bare, modules_after("import openai") - bare
    assert len(ours) <= len(theirs) / 4
    assert ours & HEAVY == set()


def test_LIB_01_a_client_loads_no_server_and_before_its_first_call_no_http_client(bare: set[str]) -> None:
    loaded = modules_after("from keyturn import AsyncClient, Client, get_smart_client; Client(env_file='/dev/null')")
    assert loaded & {"aiohttp", "uvicorn", "starlette", "click", "rich", "keyturn.server", "keyturn.simulator"} == set()


def test_LIB_01_public_names_are_sorted_and_there() -> None:
    assert keyturn.__all__ == sorted(keyturn.__all__)
    assert all(getattr(keyturn, name) is not None for name in keyturn.__all__)
    assert set(keyturn.__all__) <= set(dir(keyturn))
    with pytest.raises(AttributeError, match="module 'keyturn' has no attribute 'Clinet'; it has AsyncClient, Client"):
        _ = keyturn.Clinet


def test_LIB_01_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(keyturn.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(keyturn.__all__) - {"__version__"}
    assert seen == set(keyturn._ROOMS)
