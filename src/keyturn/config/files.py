"""The configuration files of a folder: found, read, checked for their shape. Without any, nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .document import Document, Mistake, place
from .model import FileStamp
from .report import Report

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .shape_callers import CallersFile
    from .shape_limits import LimitsFile
    from .shape_models import ModelsFile
    from .shape_roles import RolesFile
    from .shape_settings import SettingsFile

FILES = ("models.yaml", "roles.yaml", "limits.yaml", "callers.yaml", "settings.toml")
USUAL = "config"
"""The folder that is looked for when none is named."""
LARGEST = 32 * 1024 * 1024
Shaped = TypeVar("Shaped")


@dataclass(frozen=True, slots=True)
class Read(Generic[Shaped]):
    """One file that was read. Parts of it that are wrong are left out of *content*."""

    document: Document
    content: Shaped
    entries: tuple[int, ...] = ()
    """Where the entries of a list at its top stood, before those that are wrong were left out."""

    def at(self, *path: str | int) -> str:
        """`config/models.yaml:12`."""
        return place(self.document, path)

    def said(self, *path: str | int) -> bool:
        """Whether the file itself says something at *path*."""
        data: Any = self.document.data
        for step in path:
            if not isinstance(data, dict) or step not in data:
                return False
            data = data[step]
        return data is not None


@dataclass(frozen=True, slots=True)
class Files:
    """All files of one folder; None for those that are missing or cannot be read."""

    folder: Path | None = None
    shown: str = ""
    """The folder for messages."""
    stamps: tuple[FileStamp, ...] = ()
    models: Read[ModelsFile] | None = None
    roles: Read[RolesFile] | None = None
    limits: Read[LimitsFile] | None = None
    callers: Read[CallersFile] | None = None
    settings: Read[SettingsFile] | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """The names of those that are there."""
        return tuple(stamp.path.name for stamp in self.stamps if stamp.present)

    @property
    def counted(self) -> dict[str, str]:
        """What is counted rather than told one by one → the file that it is in."""
        read = {"routes": self.models, "limits": self.limits, "callers": self.callers}
        return {name: each.document.shown for name, each in read.items() if each is not None}


def read_files(folder: Path | None, cwd: Path, report: Report) -> Files:
    """Every file of *folder*, of `config/` in *cwd* when that is None. What is wrong goes into *report*."""
    asked, folder = folder is not None, cwd / (folder or USUAL)
    if not folder.is_dir():
        if asked:
            report.problems.append(f"--config: there is no folder {folder}")
        return Files(stamps=tuple(FileStamp(folder / name, False) for name in FILES))
    stamps = tuple(FileStamp(folder / name, (folder / name).exists()) for name in FILES)
    found: dict[str, Any] = {}
    if any(stamp.present for stamp in stamps):
        from .schema import shapes

        values = {name: value.text.strip() for name, value in report.values.items()}
        for stamp, (name, shape) in zip(stamps, shapes().items(), strict=True):
            if stamp.present:
                found[name] = _read(stamp.path, shown_name(stamp.path, cwd), shape, values, report)
    for other in ("models.yml", "roles.yml", "limits.yml", "callers.yml", "settings.yaml", "settings.yml"):
        if (folder / other).exists():
            meant = next(name for name in FILES if name.partition(".")[0] == other.partition(".")[0])
            report.note(shown_name(folder / other, cwd), f"is not read; the name is {meant}")
    return Files(folder, shown_name(folder, cwd), stamps, **found)


def shown_name(path: Path, cwd: Path) -> str:
    """*path* as messages name it: from the working directory if it is below it."""
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def _read(
    path: Path, shown: str, shape: type[BaseModel], values: Mapping[str, str], report: Report
) -> Read[Any] | None:
    from .tomltext import TomlDocument
    from .yamltext import YamlDocument

    try:
        text = file_text(path)
        kind = TomlDocument if path.suffix == ".toml" else YamlDocument
        document: Document = kind(shown, text, values)
    except Mistake as mistake:
        report.problem(f"{shown}:{mistake.line}" if mistake.line else shown, mistake.text)
        return None
    for each in document.mistakes:
        report.problem(f"{shown}:{each.line}", each.text)
    _hide_secrets(document.data, report)
    return _shaped(document, shape, report)


def file_text(path: Path) -> str:
    """The text of the file at *path*. Raises Mistake."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Mistake(0, f"cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise Mistake(0, f"is larger than {LARGEST // 1024 // 1024} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Mistake(content.count(b"\n", 0, error.start) + 1, "is not UTF-8 text; save the file as UTF-8") from error


def _hide_secrets(data: Any, report: Report) -> None:
    """Takes note of every key that is written into a file, wherever it stands, before anything is quoted."""
    from .mistakes import SECRETS

    waiting = [data]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for name, member in part.items():
                if name in SECRETS:
                    _hide_texts(member, report)
                elif isinstance(member, (dict, list)):
                    waiting.append(member)
        elif isinstance(part, list):
            waiting += [member for member in part if isinstance(member, (dict, list))]


def _hide_texts(value: Any, report: Report) -> None:
    if isinstance(value, (dict, list)):
        for member in value.values() if isinstance(value, dict) else value:
            _hide_texts(member, report)
    elif isinstance(value, str) and value.strip() and "${" not in value:
        report.hide(value.strip())


def _shaped(document: Document, shape: type[BaseModel], report: Report) -> Read[Any] | None:
    from pydantic import ValidationError

    from .mistakes import mistakes_in

    data = {} if document.data is None else document.data
    entries: tuple[int, ...] = ()
    try:
        content = shape.model_validate(data)
    except ValidationError as error:
        wrong = sorted(set(mistakes_in(error, document, shape, report)), key=lambda each: (each.line, each.text))
        for each in wrong:
            report.problem(f"{document.shown}:{each.line}", each.text)
        data, entries = _without(data, {each.path for each in wrong}, 1 if "root" in shape.model_fields else 2)
        try:
            content = shape.model_validate(data)
        except ValidationError:
            return None
    return Read(document, content, entries)


def _without(data: Any, paths: set[tuple[str | int, ...]], depth: int) -> tuple[Any, tuple[int, ...]]:
    """*data* without the entries that are wrong, so that the others can be looked at more closely; and where the
    entries of a list that are left had stood."""
    if not isinstance(data, dict):
        return {}, ()
    bad: dict[str | int, set[str | int]] = {}
    for path in paths:
        if path:
            inner = data.get(str(path[0]))
            deeper = depth > 1 and len(path) > 1 and isinstance(inner, (dict, list))
            bad.setdefault(path[0], set()).add(path[1] if deeper else "")
    good: dict[str, Any] = {}
    entries: tuple[int, ...] = ()
    for name, part in data.items():
        out = bad.get(name, set())
        if "" in out:
            continue
        if out and isinstance(part, list):
            entries = tuple(index for index in range(len(part)) if index not in out)
            good[name] = [part[index] for index in entries]
        elif out:
            good[name] = {key: member for key, member in part.items() if key not in out}
        else:
            good[name] = part
    return good, entries
