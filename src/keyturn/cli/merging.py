"""What `keyturn config merge` does and says."""

from __future__ import annotations

from pathlib import Path

import click

from .output import say
from .stamps import time_stamp

MOST_NAMES = 20
"""That are printed of what was kept."""


def merge_and_tell(file: Path, folder: Path, env_file: Path | None, keep_source: bool) -> None:
    """Merges *file* into models.yaml of *folder* and prints what came of it."""
    from keyturn.config import environment, merge_models

    done = merge_models(environment(), env_file, Path.cwd(), folder, file, stamp=time_stamp(), keep_source=keep_source)
    click.echo(f"merged {file} into {done.file}")
    for section, names in done.kept.items():
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        click.echo(f"kept of {section}: {', '.join(names[:MOST_NAMES])}{more}")
    if done.added:
        click.echo(f"added to providers: {', '.join(done.added)}")
    if done.dropped:
        click.echo(f"gone, because the new file has no such section: {', '.join(done.dropped)}")
    if done.backup is not None:
        click.echo(f"the file as it was before: {done.backup}")
    if done.source_left is not None:
        say(f"{file} is still there: {done.source_left}")
