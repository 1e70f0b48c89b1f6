"""`keyturn watch`: files dropped into an inbox run through a role; the answers land in an outbox."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from keyturn.errors import DataFolderInUse, KeyturnError, RequestError

from .announcing import announce
from .inbox import put_aside, shortened, state_of, write_answer
from .output import say
from .setup import Place, place_options, read_config
from .stopping import run_until_asked

if TYPE_CHECKING:
    from keyturn.client import AsyncClient
    from keyturn.config import Config
    from keyturn.core import Clock

LARGEST = 4 * 1024 * 1024
"""Bytes of a task; what is larger is set aside."""
UNFINISHED = (".part", ".tmp", ".crdownload", ".swp")
"""Endings of files that somebody is still writing."""
DONE, FAILED = "done", "failed"
"""Folders in the inbox where tasks go afterwards."""
FIRST_REST, LONGEST_REST = 5.0, 300.0
"""Seconds before a task that nobody can answer at the moment is asked again."""


class Desk(NamedTuple):
    """Where tasks come from and answers go, and who answers."""

    inbox: Path
    outbox: Path
    roles: tuple[str, ...]
    """Who answers a file of the inbox itself, one after the other; each sees the answers before its own."""
    served: tuple[str, ...] = ()
    """Roles with a folder of their own in the inbox."""
    news: Mapping[str, Any] = {}
    """The section `discord`: where what a role answered is told."""


class Watcher:
    """Answers the files of a desk. An answer is named after its task's content and written whole or not at all, so
    that what was answered before a crash is known by its file alone and not asked again."""

    def __init__(self, client: AsyncClient, clock: Clock, desk: Desk) -> None:
        self._client = client
        self._clock = clock
        self._desk = desk
        self._seen: dict[Path, tuple[int, int]] = {}
        """Size and time of change of each file at the last look: one that still changes is left alone."""
        self._under_way: dict[Path, asyncio.Task[None]] = {}
        self._stuck: dict[Path, tuple[int, int]] = {}
        """Files that the system is in the way of, as they were then: left alone until they change."""

    def look(self, most: int, *, settled: bool = False) -> int:
        """Begins what is new, *most* at the same time; how many are under way. *settled*: no file changes any more."""
        for path, task in [*self._under_way.items()]:
            if task.done():
                del self._under_way[path]
                task.result()
        seen: dict[Path, tuple[int, int]] = {}
        for path in self._waiting():
            state = state_of(path)
            if state is None:
                continue  # somebody took it back
            seen[path] = state
            same = (settled or self._seen.get(path) == state) and self._stuck.get(path) != state
            if same and path not in self._under_way and len(self._under_way) < most:
                self._under_way[path] = asyncio.create_task(self._begin(path, state))
        self._seen = seen
        return len(self._under_way)

    async def until_one_ends(self) -> None:
        """Until one of the tasks under way ends."""
        await asyncio.wait(self._under_way.values(), return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Ends what is under way: it is begun anew at the next start."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _waiting(self) -> list[Path]:
        folders = [self._desk.inbox, *(self._desk.inbox / role for role in self._desk.served)]
        found = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
        return sorted(each for each in found if each.name[0] not in ".~" and each.suffix not in UNFINISHED)

    async def _begin(self, path: Path, state: tuple[int, int]) -> None:
        """Answers *path*, which is in *state*. What the system is in the way of stops that file and no other."""
        try:
            await self._answer(path, state)
        except OSError as error:
            if state_of(path) is not None:
                self._stuck[path] = state
                say(f"{path.name}: left where it is, until it changes: {error}")

    async def _answer(self, path: Path, state: tuple[int, int]) -> None:
        if state[0] > LARGEST:
            return self._refuse(path, f"it is larger than {LARGEST} bytes")
        try:
            content = await asyncio.to_thread(path.read_bytes)
            text = content.decode()
        except FileNotFoundError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            return self._refuse(path, f"it cannot be read as text: {error}")
        if not text.strip():
            return self._refuse(path, "it is empty")
        digest = hashlib.sha256(content).hexdigest()[:8]  # a name may come again with other content
        for role in self._desk.roles if path.parent == self._desk.inbox else (path.parent.name,):
            place = self._desk.outbox / f"{shortened(path.stem)}--{role.replace('/', '_')}--{digest}.md"
            if not place.exists():
                try:
                    answer = await self._ask(path.name, role, text)
                except KeyturnError as error:
                    return self._refuse(path, f"{role} cannot answer it: {error}")
                write_answer(place, answer)
                say(f"{path.name}: {role} answered, see {place}")
                if told := await asyncio.to_thread(announce, self._desk.news, role, f"{path.name}: {answer}"):
                    say(told)
            text += f"\n\nAnswer of {role}:\n\n{place.read_text('utf-8')}"
        if state_of(path) != state:
            return None  # it is another task by now, to be looked at anew
        return put_aside(path, DONE)

    async def _ask(self, name: str, role: str, prompt: str) -> str:
        """The answer of *role*. Asked again while nobody can answer; raises what asking again cannot mend."""
        rest = FIRST_REST
        while True:
            try:
                return await self._client.complete(role, prompt)
            except KeyturnError as error:
                if error.should_retry is False or (isinstance(error, RequestError) and error.retry_after is None):
                    raise
                rest = min(error.retry_after or rest * 2, LONGEST_REST)
                say(f"{name}: nobody answers for {role} at the moment, asked again in {rest:.0f} s: {error}")
                await self._clock.sleep_until(self._clock.mono() + rest)

    def _refuse(self, path: Path, why: str) -> None:
        say(f"{path.name}: set aside: {why}")
        write_answer(path.parent / FAILED / f"{shortened(path.name)}.why.txt", f"{why}\n")
        put_aside(path, FAILED)


@click.command()
@click.option("--inbox", type=click.Path(file_okay=False, path_type=Path), help="Where tasks are dropped (inbox).")
@click.option("--outbox", type=click.Path(file_okay=False, path_type=Path), help="Where answers land (outbox).")
@click.option("--role", "roles", multiple=True, help="Who answers; several answer one after the other.")
@click.option("--once", is_flag=True, help="Answer what is there, then end.")
@place_options
def command(inbox: Path | None, outbox: Path | None, roles: tuple[str, ...], once: bool, **place: Any) -> None:
    """Answer files that are dropped into a folder."""
    config = read_config(Place(**place))
    said, orchestrator = (config.sections.get(name, {}) for name in ("watch", "orchestrator"))
    known = tuple(name for name, route in config.names.items() if route.kind == "role")
    served = tuple(orchestrator.get("roles") or known)
    desk = Desk(
        inbox or Path(said.get("inbox", "inbox")),
        outbox or Path(said.get("outbox", "outbox")),
        roles or tuple(said.get("roles", served[:1])) or ("auto",),
        served,
        config.sections.get("discord", {}),
    )
    run_until_asked(_watch(config, Place(**place), desk, once), config)


async def _watch(config: Config, place: Place, desk: Desk, once: bool) -> None:
    from keyturn.client import AsyncClient
    from keyturn.config import DataFolder
    from keyturn.dispatch import SystemClock

    settings, clock = config.sections.get("orchestrator", {}), SystemClock()
    most, every = int(settings.get("max_concurrent_tasks", 5)), float(settings.get("watch_interval", 1.0))
    alone = DataFolder(desk.inbox / ".watch")
    try:
        alone.lock()
    except DataFolderInUse as error:
        raise KeyturnError(f"{desk.inbox} is watched already; end the other watcher, or give --inbox") from error
    try:
        async with AsyncClient(**place.for_client) as client:
            watcher = Watcher(client, clock, desk)
            say(f"Watching {desk.inbox} for {', '.join(desk.roles)}; answers land in {desk.outbox}. Ctrl-C ends it.")
            try:
                while watcher.look(most, settled=once) or not once:
                    await (watcher.until_one_ends() if once else clock.sleep_until(clock.mono() + every))
            finally:
                await watcher.close()
    finally:
        alone.release()
