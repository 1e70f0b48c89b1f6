"""The house rules, read from the source with `ast`: who may import whom, who may touch what, how large things are.

Each check takes one source file and returns what is wrong with it; `test_a_check_can_fail` feeds each a bad one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "src" / "keyturn"

RANKS = {
    "errors": 0,
    "core": 1,
    "wire": 2,
    "providers": 3,
    "config": 4,
    "transport": 4,
    "stores": 4,
    "login": 5,
    "dispatch": 6,
    "telemetry": 7,
    "server": 7,
    "client": 7,
    "settings": 7,
    "simulator": 7,
    "simulation": 8,
    "cli": 9,
}
"""A room imports rooms of a lower rank only."""

PURE = {"errors", "core", "wire", "providers"}
PURE_IMPORTS = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "codecs", "collections", "collections.abc",
    "contextlib", "copy", "dataclasses", "datetime", "decimal", "difflib", "email.utils", "enum", "fnmatch",
    "fractions", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "msgspec",
    "msgspec.json", "msgspec.structs", "operator", "re", "string", "struct", "textwrap", "types", "typing",
    "unicodedata", "urllib.parse", "zlib", "zoneinfo",
}  # fmt: skip
CATALOG_IMPORTS = {"tomllib", "importlib.resources"}
"""What these need on top, to load data that is part of the package."""
DATA_READERS = {"providers/registry.py", "providers/prices.py", "providers/equivalents.py"}

CLOCKS = {"dispatch/clock.py", "simulation/virtual.py"}
"""Who makes time and chance: the real ones, and those of a simulation."""
TIMED_CALLS = {"asyncio.sleep", "asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for", "os.urandom", "uuid.uuid4"}
TIMED_CALLS |= {
    f"{name}.{now}" for name in ("datetime", "datetime.datetime", "date") for now in ("now", "utcnow", "today")
}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv", "dotenv.load_dotenv", "os.path.expandvars"}

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
VAGUE = {"manager", "handler", "helper", "helpers", "util", "utils", "info", "do"}

BROAD_EXCEPTS: dict[str, str] = {
    "client/hooks.py::announce": "around hooks: a program may say that its callback's mistakes do not end a call",
    "dispatch/waiting.py::_offer": "a background loop: one call that goes wrong must not keep all others waiting",
    "dispatch/events.py::emit": "around hooks: a subscriber's mistake must not cost a client its answer",
    "stores/one_thread.py::_work": "a background loop: what a job raises is handed to whoever waits for it",
    "stores/journaled.py::_round": "a background loop: whatever a database does, rows wait and are tried again",
    "stores/redis_state.py::_beat": "a background loop: without it what is held here would end after 50 s",
    "server/app.py::__call__": "the ASGI edge: every request gets an answer in our shape",
    "telemetry/batches.py::_work": "a background loop: one bad row must not stop the writer",
}
"""file::function -> why it may catch everything and go on: the ASGI edge, a background loop, or around a hook."""


class Source(NamedTuple):
    """One file of the package. *path* is relative to src/keyturn."""

    path: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...] = ()
    """All of the tree's, in the order of `ast.walk`."""

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        tree = ast.parse(text)
        return cls(path, text, tree, tuple(ast.walk(tree)))

    @property
    def room(self) -> str:
        return self.path.partition("/")[0].removesuffix(".py")


@cache
def sources() -> list[Source]:
    """All of the package, read once."""
    return [Source.of(str(path.relative_to(HOUSE)), path.read_text()) for path in sorted(HOUSE.rglob("*.py"))]


class Import(NamedTuple):
    module: str
    names: tuple[str, ...]
    level: int
    line: int


def imports(source: Source) -> Iterator[Import]:
    """Every import statement, at the top or inside a function."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, (), 0, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", tuple(alias.name for alias in node.names), node.level, node.lineno)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in source.nodes if isinstance(node, ast.Call))


def uses(source: Source, banned: set[str]) -> Iterator[str]:
    """Where a dotted name of *banned* is used or imported."""
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and (name := dotted(node)) in banned:
            yield f"{source.path}:{node.lineno} uses {name}"
    for item in imports(source):
        for name in {f"{item.module}.{name}" for name in item.names} & banned:
            yield f"{source.path}:{item.line} imports {name}"


# --- the checks -----------------------------------------------------------------------------------------------------


def import_order(source: Source) -> Iterator[str]:
    """Rooms import lower rooms, by the names of their `__init__`; siblings import each other relatively."""
    if source.room not in RANKS:
        return
    depth = source.path.count("/")
    for item in imports(source):
        where = f"{source.path}:{item.line}"
        if item.level > max(depth, 1) or (item.level and not depth):
            yield f"{where} leaves its room with a relative import: write `from keyturn.<room> import …`"
        if item.level or item.module.partition(".")[0] != "keyturn":
            continue
        parts = item.module.split(".")[1:]
        if not parts:
            if item.names != ("__version__",):
                yield f"{where} imports the root package; only `from keyturn import __version__` is fine"
        elif parts[0] == source.room:
            yield f"{where} imports its own room by its full name: write `from .module import …`"
        elif len(parts) > 1 or not item.names:
            yield f"{where} reaches into {item.module}: use the names of `keyturn.{parts[0]}`"
        elif parts[0] not in RANKS or RANKS[parts[0]] >= RANKS[source.room]:
            yield f"{where}: {source.room} may not import {parts[0]}"


def purity(source: Source) -> Iterator[str]:
    """`core`, `wire` and `providers` import the pure part of the standard library and msgspec, nothing else."""
    if source.room not in PURE:
        return
    allowed = PURE_IMPORTS | CATALOG_IMPORTS if source.path in DATA_READERS else PURE_IMPORTS
    for item in imports(source):
        spelled = {item.module, *(f"{item.module}.{name}" for name in item.names)}
        if not item.level and item.module.partition(".")[0] != "keyturn" and not spelled & allowed:
            yield f"{source.path}:{item.line} imports {item.module}, which is not on the list of pure modules"
    for call in calls(source):
        if dotted(call.func) in {"open", "input", "print"}:
            yield f"{source.path}:{call.lineno} does input or output"


def clock(source: Source) -> Iterator[str]:
    """Only CLOCKS touch time, randomness and timers; everything else takes a Clock, `now` or `draw`."""
    if source.path in CLOCKS:
        return
    for item in imports(source):
        if not item.level and item.module in {"time", "random", "sched"}:
            yield f"{source.path}:{item.line} imports {item.module}"
    yield from uses(source, TIMED_CALLS)
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr == "call_later":
            yield f"{source.path}:{node.lineno} uses call_later: use clock.call_at"
    for call in calls(source):
        if dotted(call.func) == "asyncio.wait" and any(keyword.arg == "timeout" for keyword in call.keywords):
            yield f"{source.path}:{call.lineno} gives asyncio.wait a timeout: use clock.call_at"


def environment(source: Source) -> Iterator[str]:
    """Only config/ reads the environment; also not through click."""
    if source.room == "config":
        return
    yield from uses(source, ENVIRONMENT)
    for node in source.nodes:
        if isinstance(node, ast.keyword) and node.arg in {"envvar", "auto_envvar_prefix"}:
            yield f"{source.path}:{node.value.lineno} lets click read the environment"


def independent_judge(source: Source) -> Iterator[str]:
    """The simulator's limiters import the standard library only: the judge must not share our bugs."""
    if not re.match(r"simulator/limiters\b", source.path):
        return
    for item in imports(source):
        if item.level or item.module.partition(".")[0] == "keyturn":
            yield f"{source.path}:{item.line} imports {'.' * item.level}{item.module}"


def sizes(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines >= MAX_FILE_LINES:
        yield f"{source.path} has {lines} lines: split it by idea"
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length >= MAX_FUNCTION_LINES:
                yield f"{source.path}:{node.lineno} {node.name} has {length} lines"


def _catches_all(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_catches_all(item) for item in node.elts)
    return node is None or dotted(node) in {"Exception", "BaseException"}


def _swallows(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return dotted(node.func).endswith("suppress") and any(map(_catches_all, node.args))
    if not isinstance(node, ast.ExceptHandler):
        return False
    last = node.body[-1]
    return _catches_all(node.type) and not (isinstance(last, ast.Raise) and last.exc is None)


def broad_excepts(source: Source) -> Iterator[str]:
    """Everything is caught only where BROAD_EXCEPTS says why; a handler that ends by raising again swallows nothing."""

    def visit(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            broad = isinstance(child, ast.ExceptHandler) and _catches_all(child.type)
            if broad and not (isinstance(child.body[-1], ast.Raise) and child.body[-1].exc is None):  # type: ignore[attr-defined]
                yield f"{source.path}::{inner}"
            if (
                isinstance(child, ast.Call)
                and dotted(child.func).endswith("suppress")
                and any(map(_catches_all, child.args))
            ):
                yield f"{source.path}::{inner}"
            yield from visit(child, inner)

    yield from visit(source.tree, "")


def unexplained_excepts(source: Source) -> Iterator[str]:
    yield from (f"{place} catches everything" for place in broad_excepts(source) if place not in BROAD_EXCEPTS)


def first_line(source: Source) -> Iterator[str]:
    """A file tells its job in the first line of its docstring."""
    docstring = ast.get_docstring(source.tree, clean=False) or ""
    if len(docstring.partition("\n")[0].split()) < 3:
        yield f"{source.path} does not say its job in the first line of its docstring"


def finished(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if re.search(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b", line):
            yield f"{source.path}:{number} is unfinished: {line.strip()}"


def no_print(source: Source) -> Iterator[str]:
    if source.room == "cli":
        return
    for call in calls(source):
        if dotted(call.func) == "print":
            yield f"{source.path}:{call.lineno} prints"


def kept_tasks(source: Source) -> Iterator[str]:
    """A task without a reference may be collected while it runs, and nobody sees it fail."""
    for node in source.nodes:
        dropped = node.value if isinstance(node, ast.Expr) else None
        if isinstance(dropped, ast.Call) and dotted(dropped.func).endswith(("create_task", "ensure_future")):
            yield f"{source.path}:{dropped.lineno} starts a task and keeps no reference"


def exact_names(source: Source) -> Iterator[str]:
    """Files, classes and functions say what they are; manager, helper and the like say nothing."""
    names = [(Path(source.path).stem, 1)]
    for node in source.nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.append((node.name, node.lineno))
    for name, line in names:
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}
        if words & VAGUE:
            yield f"{source.path}:{line} is named {name}"


CHECKS: dict[Callable[[Source], Iterator[str]], list[tuple[str, str]]] = {
    import_order: [
        ("core/x.py", "from keyturn.wire import render"),
        ("server/x.py", "from keyturn.telemetry import Metrics"),
        ("dispatch/x.py", "from keyturn.core.model import Call"),
        ("dispatch/x.py", "import keyturn.core"),
        ("dispatch/x.py", "def f():\n    from keyturn.cli import main"),
        ("core/x.py", "from keyturn.core import Call"),
        ("core/x.py", "from ..wire import render"),
        ("wire/x.py", "from keyturn import core"),
    ],
    purity: [
        ("core/x.py", "import asyncio"),
        ("wire/x.py", "from os import path"),
        ("providers/x.py", "import tomllib"),
        ("core/x.py", "import logging.handlers"),
        ("core/x.py", "def f() -> None:\n    open('x')"),
    ],
    clock: [
        ("server/x.py", "import time"),
        ("stores/x.py", "from random import random"),
        ("transport/x.py", "import asyncio\nasync def f(): await asyncio.sleep(1)"),
        ("transport/x.py", "from asyncio import timeout"),
        ("server/x.py", "from datetime import datetime\nnow = datetime.now()"),
        ("server/x.py", "def f(loop): loop.call_later(1, f)"),
        ("server/x.py", "import asyncio\nasync def f(t): await asyncio.wait(t, timeout=1)"),
    ],
    environment: [
        ("cli/x.py", "import os\nhome = os.environ['HOME']"),
        ("cli/x.py", "from os import getenv"),
        ("cli/x.py", "option = click.option('--port', envvar='PORT')"),
    ],
    independent_judge: [
        ("simulator/limiters.py", "from keyturn.core import Meters"),
        ("simulator/limiters/bucket.py", "from ..app import x"),
    ],
    sizes: [("core/x.py", "x = 1\n" * 500), ("core/x.py", "def f() -> None:\n" + "    x = 1\n" * 59)],
    unexplained_excepts: [
        ("core/x.py", "try:\n    f()\nexcept Exception:\n    pass"),
        ("core/x.py", "def f():\n    try:\n        g()\n    except (ValueError, BaseException) as e:\n        return"),
        ("core/x.py", "try:\n    f()\nexcept:\n    pass"),
        ("core/x.py", "with contextlib.suppress(Exception):\n    f()"),
    ],
    first_line: [("core/x.py", "x = 1"), ("core/x.py", '"""\nThe job of this file comes too late.\n"""')],
    finished: [("core/x.py", "x = 1  # TO" "DO: later")],
    no_print: [("server/x.py", "print('hello')")],
    kept_tasks: [("server/x.py", "import asyncio\nasync def f(): asyncio.create_task(f())")],
    exact_names: [
        ("core/key_manager.py", ""),
        ("core/x.py", "class KeyHelper: ..."),
        ("core/x.py", "def do_it(): ..."),
    ],
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check: Callable[[Source], Iterator[str]]) -> None:
    wrong = [found for source in sources() for found in check(source)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("check", "path", "text"), [(check, *bad) for check, bads in CHECKS.items() for bad in bads], ids=lambda value: None
)
def test_a_check_can_fail(check: Callable[[Source], Iterator[str]], path: str, text: str) -> None:
    assert list(check(Source.of(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "dispatch/x.py",
            '"""Sends a call on."""\nfrom keyturn.core import Call\nfrom keyturn.errors import BadRequest\n',
        ),
        (
            "core/x.py",
            '"""Reads a date."""\nimport email.utils\nfrom collections.abc import Mapping\nfrom .model import A\n',
        ),
        ("dispatch/clock.py", '"""Reads the clock."""\nimport random\nimport time\nimport asyncio\n'),
        ("config/x.py", '"""Reads the environment."""\nimport os\nx = os.environ\n'),
        ("server/x.py", '"""Cleans up after itself."""\ntry:\n    f()\nexcept BaseException:\n    g()\n    raise\n'),
    ],
)
def test_good_code_passes_every_check(path: str, text: str) -> None:
    assert [found for check in CHECKS for found in check(Source.of(path, text))] == []


def test_every_allowed_broad_except_is_still_there() -> None:
    found = {place for source in sources() for place in broad_excepts(source)}
    assert set(BROAD_EXCEPTS) <= found
    assert len(BROAD_EXCEPTS) <= 8, "a short list, each with its reason"


def test_every_room_is_known() -> None:
    rooms = {source.room for source in sources()} - {"__init__", "__main__"}
    assert rooms <= set(RANKS), "a new room needs its place in the order"
