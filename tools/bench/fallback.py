"""Load with fallback: the first tier fails for a share of its calls, the next ones take over; who served, how fast.

The same gateway and the same load three times in turn: nothing fails, the first tier is flaky, the first tier is down.
No call may fail; rates and latencies are compared with those of the run without failures.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from . import process
from .load import Connection, Tally, awake
from .upstream import Upstream

CONNECTIONS = 16
KEYS = 20
"""Of the first tier: one that rests leaves others to ask."""
CALLER_KEY = "bench-caller-key"
TIERS: Mapping[str, int] = {"openai": 1, "groq": 2, "g4f": 5}
FLAKY, DOWN = 0.3, 1.0
FLOOR = 0.5
"""Of the rate without failures, that must be left."""

_LIMITED = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'
_BROKEN = b'{"error":{"message":"The server had an error","type":"server_error","code":null}}'


def _refusal(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


LIMITED = _refusal(b"429 Too Many Requests", _LIMITED, b"retry-after-ms: 100")
BROKEN = _refusal(b"500 Internal Server Error", _BROKEN)


class Trouble:
    """What the first tier does: *share* of its answers are refusals, 500 and 429 in turn, evenly spread."""

    def __init__(self) -> None:
        self.share = 0.0
        self._due = 0.0
        self._refused = 0

    def next(self) -> bytes | None:
        """The refusal to answer with; None when it is a good answer's turn."""
        self._due += self.share
        if self._due < 1.0:
            return None
        self._due -= 1.0
        self._refused += 1
        return BROKEN if self._refused % 2 else LIMITED


class Premium(Upstream):
    """The upstream of the first tier."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self._trouble = trouble

    def plain(self) -> bytes:
        return self._trouble.next() or super().plain()


class Asking(Connection):
    """A connection of the load that notes who answered, and after how long."""

    def __init__(self, tally: Tally, payload: bytes, served: Counter[str], seconds: list[float]) -> None:
        super().__init__(tally, payload, stream=False)
        self._clock = asyncio.get_running_loop().time
        self._began = 0.0
        self._served = served
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._began = self._clock()
        super().connection_made(transport)

    def _finish(self, answer: bytes) -> None:
        now = self._clock()
        self._seconds.append(now - self._began)
        self._began = now
        self._served[provider_of(answer)] += 1
        super()._finish(answer)


class Sample(NamedTuple):
    """One run of the load: calls per second, their latency in ms, and how many each provider answered."""

    per_second: float
    latency: float
    served: Mapping[str, int]


def provider_of(answer: bytes) -> str:
    """Who gave *answer*, by its head; empty when nobody did."""
    head = answer.partition(b"\r\n\r\n")[0].lower()
    return head.partition(b"x-keyturn-provider: ")[2].partition(b"\r\n")[0].decode()


def payload(port: int) -> bytes:
    """A call that names no model: each provider is asked for its default, by tier."""
    body = b'{"model":"auto","messages":[{"role":"user","content":"How many keys does it take?"}]}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {CALLER_KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def variables(ports: Mapping[str, int]) -> dict[str, str]:
    """The environment of a gateway over three tiers, each at its own port."""
    environ = {f"OPENAI_API_KEY_{number}": f"bench-key-of-openai-{number}" for number in range(1, KEYS + 1)}
    environ |= {f"{name.upper()}_CHAT_MODEL": "m" for name in TIERS}
    environ |= {name: f"http://127.0.0.1:{port}/v1" for name, port in _bases(ports).items()}
    return environ | {"GROQ_API_KEY": "bench-key-of-groq", "PROXY_API_KEY": CALLER_KEY}


def _bases(ports: Mapping[str, int]) -> dict[str, int]:
    return {"G4F_MAIN_API_BASE" if name == "g4f" else f"{name.upper()}_API_BASE": ports[name] for name in TIERS}


async def sample(port: int, seconds: float) -> Sample:
    """Keeps the connections busy for *seconds*. Raises SystemExit when a call fails."""
    loop = asyncio.get_running_loop()
    tally, served, latencies = Tally(), Counter[str](), list[float]()
    text, started = payload(port), loop.time()
    with awake():
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Asking(tally, text, served, latencies), "127.0.0.1", port)
        await asyncio.sleep(seconds)
        tally.running = False
        await asyncio.wait_for(tally.idle.wait(), 30)
    if tally.failed or not tally.done:
        raise SystemExit(f"with fallback {tally.failed} calls failed, the first: {tally.first_failure!r}")
    return Sample(tally.done / (loop.time() - started), median(latencies) * 1000, served)


async def measure(rounds: int, seconds: float) -> dict[str, list[Sample]]:
    """The samples of each kind: `calm`, `flaky`, `down`. A gateway for each, so that none inherits cooldowns."""
    loop, trouble = asyncio.get_running_loop(), Trouble()
    premium = await loop.create_server(lambda: Premium(trouble), "127.0.0.1", 0)
    others = {name: await loop.create_server(Upstream, "127.0.0.1", 0) for name in TIERS if name != "openai"}
    ports = {name: each.sockets[0].getsockname()[1] for name, each in ({"openai": premium} | others).items()}
    found: dict[str, list[Sample]] = {}
    shares = {"calm": 0.0, "flaky": FLAKY, "down": DOWN}
    gateways = {kind: _gateway(ports) for kind in shares}
    try:
        for number in range(rounds + 1):
            for kind, trouble.share in shares.items():
                measured = await sample(gateways[kind].port, seconds if number else min(0.3, seconds))
                if number:  # the first round warms up
                    found.setdefault(kind, []).append(measured)
    finally:
        for each in gateways.values():
            each.__exit__(None, None, None)
        for server in (premium, *others.values()):
            server.close()
    return found


def _gateway(ports: Mapping[str, int]) -> process.Server:
    port = process.free_port()
    return process.Server(
        [str(Path(sys.executable).with_name("keyturn")), "serve", "--port", str(port)], port, **variables(ports)
    )


def shares(samples: list[Sample]) -> str:
    """Who served, in words: `tier 1: 71 %, tier 2: 29 %`."""
    total = Counter[int]()
    for each in samples:
        for name, count in each.served.items():
            total[TIERS[name]] += count
    return ", ".join(
        f"tier {tier}: {count / total.total():.1%}".replace("%", " %") for tier, count in sorted(total.items())
    )


def report(found: Mapping[str, list[Sample]]) -> dict[str, float]:
    """Prints a line for each kind; kind -> its rate as a part of that without failures."""
    calm = found["calm"]
    rate, latency = median(each.per_second for each in calm), median(each.latency for each in calm)
    ratios = {}
    for kind, samples in found.items():
        mine, took = median(each.per_second for each in samples), median(each.latency for each in samples)
        ratios[kind] = mine / rate
        print(
            f"{'fallback, ' + kind:<24} keyturn {mine:>9,.0f}   {took - latency:>+8.2f} ms   ratio {ratios[kind]:5.2f}"
            f"   {shares(samples)}",
            flush=True,
        )
    return ratios


async def gates(rounds: int, seconds: float) -> list[tuple[str, bool]]:
    """Measures and prints; what must hold, and whether it does."""
    ratios = report(await measure(rounds, seconds))
    return [
        (
            f"fallback while the first tier is {kind}: {ratio:.0%} of the rate without (at least {FLOOR:.0%})",
            ratio >= FLOOR,
        )
        for kind, ratio in ratios.items()
        if kind != "calm"
    ]
