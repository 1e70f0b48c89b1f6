"""Reads one YAML file of another program's shape: checked as configuration files are, with errors that teach."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from keyturn.errors import ConfigError

from .document import Mistake
from .files import file_text, shown_name
from .mistakes import mistakes_in
from .report import Report
from .yamltext import YamlDocument

Content = TypeVar("Content", bound=BaseModel)


def read_shape(path: Path, shape: type[Content], cwd: Path) -> Content:
    """What stands in the file at *path*. Variables are not expanded. Raises ConfigError with every mistake at once."""
    shown, report = shown_name(path, cwd), Report({})
    try:
        document = YamlDocument(shown, file_text(path), {})
    except Mistake as mistake:
        raise ConfigError(
            [f"{shown}:{mistake.line}: {mistake.text}" if mistake.line else f"{shown}: {mistake.text}"]
        ) from mistake
    for each in document.mistakes:
        report.problem(f"{shown}:{each.line}", each.text)
    try:
        content = shape.model_validate({} if document.data is None else document.data)
    except ValidationError as error:
        found = set(mistakes_in(error, document, shape, report))
        for wrong in sorted(found, key=lambda each: (each.line, each.text)):
            report.problem(f"{shown}:{wrong.line}", wrong.text)
        report.finish()
        raise
    report.finish()
    return content
