"""Reads a Dockerfile, and carries its build out without Docker: the same commands, in folders of a temporary place.

What comes from a registry is not fetched: a step that installs from a lock has its environment see the packages of
this one instead, all but Keyturn itself. What only an image has (users, their shells) is left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_BASE = str(Path(sys.base_prefix, "bin", "python3"))


class Instruction(NamedTuple):
    name: str
    rest: str


class Stage(NamedTuple):
    base: str
    instructions: list[Instruction]

    def all(self, name: str) -> list[str]:
        return [each.rest for each in self.instructions if each.name == name]

    def environ(self) -> dict[str, str]:
        """What ENV says."""
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in rest.split())

    def command(self, rest: str | None = None) -> list[str]:
        """The words of CMD, or of *rest*, in its exec form."""
        words: list[str] = json.loads(
            (rest or self.all("CMD")[-1]).partition("CMD ")[2] if rest else self.all("CMD")[-1]
        )
        return words


def read(text: str) -> list[Stage]:
    """The stages of a Dockerfile."""
    stages: list[Stage] = []
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    for line in filter(str.strip, lines):
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stages.append(Stage(rest, []))
        else:
            stages[-1].instructions.append(Instruction(name, rest.strip()))
    return stages


def ignored(patterns: Sequence[str], path: str) -> bool:
    """Whether .dockerignore keeps the top-level *path* from the builder; the last pattern that fits decides."""
    found = False
    for pattern in patterns:
        name = pattern.removeprefix("!")
        if name in ("*", path):
            found = not pattern.startswith("!")
    return found


class Build:
    """The build of *text* in *root*: `/opt/keyturn` of the image is `root/opt/keyturn`."""

    def __init__(self, source: Path, text: str, root: Path) -> None:
        self.source = source
        self.root = root
        self.stages = read(text)
        self.ran: list[str] = []
        """The commands that were run, as the image has them."""
        self._ignore = [
            each for each in (source / ".dockerignore").read_text().split("\n") if each[:1] not in ("", "#")
        ]
        self._packages = root / "registry"
        self._cwd = root

    def here(self, text: str) -> str:
        """*text* with the image's folders replaced by those of this build."""
        return re.sub(r"(?<![\w./*])/(?=(build|opt|backend|data|app)\b)", f"{self.root}/", text)

    def make(self) -> None:
        self._stand_in_for_the_registry()
        for stage in self.stages:
            environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.root)}
            for name, rest in stage.instructions:
                if name == "ENV":
                    for pair in rest.split():
                        variable, _, value = pair.partition("=")
                        environ[variable] = self.here(value.replace("$PATH", environ["PATH"]))
                elif name == "ARG":
                    variable, _, value = rest.partition("=")
                    environ[variable] = value.strip('"')
                elif name == "WORKDIR":
                    self._cwd = Path(self.here(rest))
                    self._cwd.mkdir(parents=True, exist_ok=True)
                elif name == "COPY":
                    self._copy(rest.split())
                elif name == "RUN":
                    self._run(rest, environ)

    def _copy(self, words: list[str]) -> None:
        if words[0].startswith("--from="):
            assert [Path(self.here(word)).exists() for word in words[1:]] == [True, True]
            return
        *sources, target = words
        for name in sources:
            assert not ignored(self._ignore, name), f".dockerignore keeps {name} from the builder"
            there = self._cwd / target
            if (self.source / name).is_dir():  # of a folder its content is copied
                left_out = shutil.ignore_patterns("__pycache__")
                shutil.copytree(self.source / name, there, ignore=left_out, dirs_exist_ok=True)
            else:
                shutil.copy(self.source / name, there / name if target.endswith("/") else there)

    def _run(self, command: str, environ: dict[str, str]) -> None:
        """Each of the commands that `&&` joins, but for what only an image has."""
        for each in [command] if command.startswith("if ") else command.split(" && "):
            if each.startswith("useradd "):
                continue
            if "install --require-hashes" in each:
                lock = self._cwd / each.split(" -r ")[1]
                assert lock.read_text().count("--hash=sha256:") > 1
                assert len(re.findall(r"^[a-z]", lock.read_text(), re.MULTILINE)) > 1
                python = each.split("--python ")[1].split()[0] if "--python " in each else "/opt/keyturn/bin/python"
                self._see_packages(Path(self.here(python)).parents[1])
            else:
                self._shell(each, environ)
            self.ran.append(each)

    def _shell(self, command: str, environ: dict[str, str]) -> None:
        command = self.here(command)
        if find_spec("pip"):
            command = re.sub(r"^python -m venv (?!--without-pip)", "python -m venv --without-pip ", command)
            command = re.sub(r"^pip --python (\S+) ", r"\1 -m pip ", command)
        else:  # this environment was made by uv: the interpreter that it is made of has a pip
            command = re.sub(r"^pip --python (\S+) ", rf"{_BASE} -m pip --python \1 ", command)
        command = re.sub(r"(^|&& )pip ", r"\1python -m pip ", command)
        command = re.sub(r" -o \d+ ", " ", command)
        done = subprocess.run(
            ["sh", "-euc", command], cwd=self._cwd, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def _stand_in_for_the_registry(self) -> None:
        self._packages.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if "keyturn" not in path.name and path.suffix != ".pth":
                os.symlink(path, self._packages / path.name)

    def _see_packages(self, environment: Path) -> None:
        (site,) = environment.glob("lib/python*/site-packages")
        (site / "registry.pth").write_text(f"{self._packages}\n")
