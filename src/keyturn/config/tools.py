"""Command line tools of models.yaml: what is run, what it sees of the environment, how its answer is read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from keyturn.providers import CATALOG, Provider, Tool, known, plain_name

from .files import Read
from .report import Report

if TYPE_CHECKING:
    from .shape_models import CliProvider, ModelsFile

SEEN = ("PATH", "HOME", "USER", "LANG", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "SYSTEMROOT")
"""What any program may see of the environment, beside what begins with one of SEEN_FAMILIES."""
SEEN_FAMILIES = ("LC_", "XDG_")
HOMES = ("CODEX_HOME", "CLAUDE_CONFIG_DIR", "GEMINI_CLI_HOME")
"""Where the tools keep their logins."""
MODEL = "${MODEL}"
_MODEL_OPTIONS = ("--model", "-m")


def cli_provider(name: str, block: CliProvider, source: Read[ModelsFile], report: Report) -> Provider | None:
    """The provider that runs the tool of *block*; None, with a problem, when it cannot be one."""
    place = source.at("providers", name)
    row = known(name)
    if row is not None and row.tool is None:
        report.problem(
            place, f"providers.{name}: is called over HTTP; write kind: http, or name the tool {row.name}_cli"
        )
        return None
    if row is None:
        plain = plain_name(name)
        row = Provider(plain, name, variables=(plain.upper(),), models_path="", embeddings_path="", keyless=True)
    usual = row.tool or Tool((), "text")
    argv = usual.argv if block.cmd is None else block.cmd
    if not argv or not argv[0].strip():
        tools = [each.name for each in CATALOG.values() if each.tool is not None]
        report.problem(
            place,
            f'providers.{name}: has no cmd; write cmd: ["program", "{MODEL}"] (only {", ".join(tools)} need none)',
        )
        return None
    argv = _todays(argv, source.at("providers", name, "cmd"), report)
    values = {variable: value.text for variable, value in report.values.items()}
    tool = replace(
        usual,
        argv=argv,
        output=block.output or output_of(argv),
        environ={**_visible(values, (*usual.variables, *block.env)), **usual.environ},
        timeout=block.timeout,
        found=shutil.which(argv[0], path=values.get("PATH", "")) is not None,
    )
    return replace(row, tool=tool, models=row.models if not block.models else ())


def output_of(argv: Sequence[str]) -> str:
    """How the program of *argv* prints its answer, as far as its arguments tell."""
    program, options = PurePath(argv[0]).stem, list(argv[1:])
    form = next((word.partition("=")[2] for word in options if word.startswith("--output-format=")), "")
    for option in ("--output-format", "-o"):
        if not form and option in options[:-1] and program in ("claude", "gemini"):
            form = options[options.index(option) + 1]
    if program == "codex" and "--json" in options:
        return "codex_jsonl"
    if program in ("claude", "gemini") and form in ("json", "stream-json"):
        return f"{program}_{form.replace('-', '_')}"
    return "text"


def _visible(values: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The part of the environment that a tool may see."""
    allowed = {*SEEN, *HOMES, *names}
    return {name: text for name, text in values.items() if name in allowed or name.startswith(SEEN_FAMILIES)}


def _todays(argv: tuple[str, ...], place: str, report: Report) -> tuple[str, ...]:
    """*argv*, or what takes its place when it is of a time when the tools had other arguments."""
    program = PurePath(argv[0]).stem
    if program == "codex" and argv[1:2] == ("chat",):
        row, gone = CATALOG["codex_cli"], "`codex chat` is no command of today's Codex"
    elif program == "claude" and not {"-p", "--print"} & set(argv):
        row, gone = CATALOG["claude_code"], "without -p today's `claude` opens its screen and answers no pipe"
    else:
        return argv
    asked = next((argv[at + 1] for at, word in enumerate(argv[:-1]) if word in _MODEL_OPTIONS), MODEL)
    todays = row.tool.argv if row.tool is not None else ()
    found = (argv[0], *(asked if word == MODEL else word for word in todays[1:]))
    written = ", ".join(f'"{word}"' for word in found)
    report.note(place, f"{gone}; run instead, and best written here: [{written}]")
    return found
