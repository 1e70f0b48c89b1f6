"""`keyturn demo`: a rehearsed story on simulated providers, told as it happens, in a few seconds and without a key."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from rich.console import Console

    from keyturn.config import Config
    from keyturn.core import Clock, Draw, Trail
    from keyturn.dispatch import Event, Gateway
    from keyturn.simulator import Simulator

MODEL = "llama-3.3-70b"
KEYS = {
    "GROQ_API_KEY_1": "gsk_demo_good_key_number_one",
    "GROQ_API_KEY_2": "gsk_demo_key_with_a_tight_limit",
    "GROQ_API_KEY_3": "gsk_demo_another_good_key_three",
    "GROQ_API_KEY_4": "gsk_demo_key_that_was_revoked",
    "TOGETHER_API_KEY_1": "tgp_demo_key_of_together_number_one",
}
TIGHT = 3
"""Requests per minute that the second key may make; the gateway is not told."""
APP = "story"
LATENCY = 0.1
PAUSE = 0.25
"""Seconds between two calls, so that one can follow."""
OUTAGE = 4
"""Calls while a provider is out: over before its first rest of 2 s is, so that the story has one end."""


class Seen(NamedTuple):
    """What the client got for one call."""

    status: int
    provider: str


@click.command()
def command() -> None:
    """Watch a rehearsed story: keys used in turn, one rate limited, one revoked, one provider out.

    Everything runs in this process, on the code that serves; nothing is sent anywhere. It takes a few seconds.
    """
    from rich.console import Console

    from keyturn.dispatch import SystemClock, draw

    asyncio.run(tell(Console(highlight=False, emoji=False), SystemClock(), draw))


async def tell(console: Console, clock: Clock, draw: Draw) -> None:
    """The story, from its first call to its summary."""
    from keyturn.dispatch import build
    from keyturn.simulator import Fault, KeyRule, Simulator

    states = {"GROQ_API_KEY_2": KeyRule(rpm=TIGHT), "GROQ_API_KEY_4": KeyRule(state="invalid_key")}
    groq = {key: states.get(name, KeyRule()) for name, key in KEYS.items() if name.startswith("GROQ")}
    simulator = Simulator(
        clock, draw, keys={"groq": groq}, models={"groq": [MODEL], "together": [MODEL]}, latency=LATENCY
    )
    gateway = build(_config(), clock=clock, apps={APP: simulator})
    story = _Story(console, gateway)
    gateway.events.subscribe(story.note)
    try:
        console.print(f"A client asks for [bold]{MODEL}[/]. Behind Keyturn: four keys of groq, one of together.\n")
        story.act("Keys are used in turn; a revoked one costs one attempt, and is not tried again.")
        await story.ask(6)
        story.act(f"One key may make only {TIGHT} requests a minute; nobody told the gateway.")
        await story.ask(8)
        story.act("Now all of groq is out.")
        simulator.script.add(Fault(provider="groq", status=503))
        await story.ask(OUTAGE)
        story.act("Groq is back; after a rest one call tries it, and the others follow.")
        simulator.script.clear()
        await story.ask(8)
    finally:
        await gateway.close()
    _sum_up(console, story, simulator)


def _config() -> Config:
    """Two providers of the catalog with made-up keys, answered by the simulator in this process."""
    from keyturn.config import load

    with tempfile.TemporaryDirectory() as nowhere:
        config = load(KEYS, cwd=Path(nowhere))
    rows = {
        name: replace(provider, base_url=f"http://{APP}.localhost/{name}/v1", local_app=APP)
        for name, provider in config.providers.items()
    }
    return replace(config, providers=rows)


class _Story:
    """Asks as a client does, and tells of each call what the client saw and what happened behind."""

    def __init__(self, console: Console, gateway: Gateway) -> None:
        self.seen: list[Seen] = []
        self.trails: list[Trail] = []
        self._console = console
        self._gateway = gateway
        self._rests: list[str] = []

    def act(self, text: str) -> None:
        self._console.print(f"[bold cyan]{text}[/]")

    def note(self, event: Event) -> None:
        from keyturn.core import FOREVER
        from keyturn.dispatch import CallEnded, Cooled

        if isinstance(event, CallEnded):
            self.trails.append(event.trail)
        elif isinstance(event, Cooled) and event.seconds > 0:
            length = "for good" if event.seconds == FOREVER else f"for {_span(event.seconds)}"
            self._rests.append(f"{event.key or f'{event.provider}/{event.model}'} rests {length}: {event.reason}")

    async def ask(self, times: int) -> None:
        from keyturn.core import Caller
        from keyturn.dispatch import new_id, read_call

        clock = self._gateway.clock
        for _ in range(times):
            question = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me something."}]}
            call = read_call("chat", json.dumps(question).encode(), {})
            reply = await self._gateway.handle(call, Caller(), new_id(clock.wall()))
            headers = dict(reply.headers)
            self.seen.append(Seen(reply.status, headers.get(b"x-keyturn-provider", b"").decode()))
            self._show(reply.status)
            await clock.sleep_until(clock.mono() + PAUSE)
        self._console.print()

    def _show(self, status: int) -> None:
        steps = []
        for attempt in self.trails[-1].attempts:
            colour = "green" if attempt.meaning == "ok" else "yellow"
            label = attempt.key.partition(":")[0]
            steps.append(f"[{colour}]{label} {attempt.meaning}[/]")
        mark = "[green]answered[/]" if status == 200 else f"[red]{status}[/]"
        self._console.print(f"  call {len(self.seen):>2}  client: {mark}   behind: {' → '.join(steps)}")
        for rest in self._rests:
            self._console.print(f"           [dim]{rest}[/]")
        self._rests.clear()


def _sum_up(console: Console, story: _Story, simulator: Simulator) -> None:
    """What the client saw beside what happened behind."""
    from rich.columns import Columns
    from rich.table import Table

    client = Table(title="What the client saw")
    client.add_column("answer")
    client.add_column("calls", justify="right")
    for seen, count in sorted(Counter(story.seen).items()):
        client.add_row(f"{seen.status} from {seen.provider}" if seen.provider else str(seen.status), str(count))
    client.add_row("[bold]all[/]", f"[bold]{len(story.seen)}[/]")

    behind = Table(title="What happened behind")
    for heading in ("key", "meaning", "attempts"):
        behind.add_column(heading, justify="right" if heading == "attempts" else "left")
    attempts = [
        (attempt.key.partition(":")[0], attempt.meaning) for trail in story.trails for attempt in trail.attempts
    ]
    for (key, meaning), count in sorted(Counter(attempts).items()):
        behind.add_row(key, meaning, str(count))
    behind.add_row("[bold]all[/]", "", f"[bold]{len(attempts)}[/]")

    console.print(Columns([client, behind], padding=(0, 4)))
    answered = sum(1 for seen in story.seen if seen.status == 200)
    lists = sum(1 for exchange in simulator.log if exchange.kind == "models")
    console.print(
        f"{answered} of {len(story.seen)} calls were answered. The providers counted {len(simulator.log)} requests, "
        f"{lists} of them for lists of models, and refused {simulator.own_429} for their limits."
    )


def _span(seconds: float) -> str:
    for length, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
