"""Runs the whole measurement and prints one table; exits 1 when a gate is missed.

Load generator and mock upstream share the first core, the measured server has the second. Rounds alternate between the
gateway and the bare relay, and medians are compared, so that the noise of the machine meets both. Gates are ratios
within this one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

import uvloop

from . import fallback, loading, picking, process, remembering, translating
from .load import awake, load
from .upstream import Upstream


class Sample(NamedTuple):
    """One server, one kind of load, a few seconds."""

    per_second: float
    cpu_us: float


class Gate(NamedTuple):
    name: str
    passed: bool


async def sample(server: process.Server, *, stream: bool, seconds: float, translated: bool = False) -> Sample:
    before = server.cpu_seconds()
    connections = 512 if stream else 64
    tally, took = await load(
        server.port, stream=stream, connections=connections, seconds=seconds, translated=translated
    )
    if tally.failed or not tally.done:
        raise SystemExit(
            f"{tally.failed} of {tally.failed + tally.done} calls failed, the first: {tally.first_failure!r}"
        )
    return Sample(tally.done / took, (server.cpu_seconds() - before) / tally.done * 1e6)


async def throughput(gateway: Callable[[int], process.Server], rounds: int, seconds: float) -> list[Gate]:
    """Plain calls and streams, gateway and relay in turn."""
    upstream = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", process.free_port())
    port = upstream.sockets[0].getsockname()[1]
    samples: dict[tuple[bool, bool], list[Sample]] = {}
    foreign: dict[bool, list[Sample]] = {False: [], True: []}
    with gateway(port) as ours, process.relay(port) as bare:
        for number in range(rounds + 1):
            for stream in (False, True):
                for server in (ours, bare):
                    measured = await sample(server, stream=stream, seconds=seconds if number else 0.5)
                    if number:  # the first round warms up
                        samples.setdefault((stream, server is ours), []).append(measured)
                measured = await sample(ours, stream=stream, seconds=seconds if number else 0.5, translated=True)
                foreign[stream] += [measured] if number else []
        row("MB resident under load", [ours.resident_mb()], [bare.resident_mb()], form=".1f")
    upstream.close()
    gates = []
    for stream, kind, floor in ((False, "call", 0.60), (True, "stream", 0.70)):
        mine, theirs = samples[stream, True], samples[stream, False]
        ratio = row(f"{kind}s per second", (s.per_second for s in mine), (s.per_second for s in theirs))
        row(f"CPU µs per {kind}", (s.cpu_us for s in mine), (s.cpu_us for s in theirs))
        gates.append(Gate(f"{kind}s per second: {ratio:.0%} of the bare relay (at least {floor:.0%})", ratio >= floor))
    for stream, kind in ((False, "call"), (True, "stream")):
        translation, relayed = (s.cpu_us for s in foreign[stream]), (s.cpu_us for s in samples[stream, True])
        ratio = row(f"CPU µs, translated {kind}", translation, relayed, "relayed")
        if not stream:
            gates.append(Gate(f"a translated call: {ratio:.2f} times a relayed one (at most 2.5)", ratio <= 2.5))
    return gates


async def library(rounds: int, seconds: float) -> Gate:
    """A call of AsyncClient beside a bare aiohttp call, both made by one process on the second core."""
    upstream = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    port = str(upstream.sockets[0].getsockname()[1])
    command = [sys.executable, "-m", "tools.bench.calling", port, str(rounds), str(int(1000 * seconds))]
    calling = await asyncio.create_subprocess_exec(
        *command, cwd=process.ROOT, stdout=subprocess.PIPE, preexec_fn=lambda: process.pin(0, process.CORES[-1])
    )
    with awake():
        said, _ = await calling.communicate()
    upstream.close()
    if calling.returncode:
        raise SystemExit("the measurement of the library failed")
    samples = json.loads(said)
    row("CPU µs, library call", (ours for ours, _ in samples), (bare for _, bare in samples), "aiohttp")
    ratio = median(ours / bare for ours, bare in samples)
    return Gate(f"a call of AsyncClient: {ratio:.2f} times a bare aiohttp call (at most 1.6)", ratio <= 1.6)


def chunks() -> Gate:
    """One chunk of text from each dialect into each other."""
    ratios = translating.measure()
    for pair, ratio in ratios.items():
        print(f"{'a chunk ' + pair:<46} {ratio:>5.2f} × decoding and encoding it")
    worst = max(ratios, key=ratios.__getitem__)
    return Gate(f"a translated chunk: {ratios[worst]:.1f} times msgspec ({worst}; at most 6)", ratios[worst] <= 6)


def row(
    what: str, ours: Iterable[float], theirs: Iterable[float], other: str = "bare relay", form: str = ",.0f"
) -> float:
    """Prints the medians of both and returns their ratio."""
    mine, yours = median(ours), median(theirs)
    print(f"{what:<24} keyturn {mine:>9{form}}   {other:<10} {yours:>9{form}}   ratio {mine / yours:5.2f}", flush=True)
    return mine / yours


def startup(gateway: Callable[[int], process.Server], rounds: int) -> Gate:
    """Seconds until ready to serve, beside the mere import of what any such server needs."""
    ready, imports = [], []
    for _ in range(rounds):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import aiohttp, uvicorn, pydantic"], check=True)
        imports.append(time.monotonic() - started)
        with gateway(process.free_port()) as server:
            ready.append(server.ready_after)
    ratio = row("seconds until ready", ready, imports, "imports", ".2f")
    return Gate(f"ready to serve: {ratio:.2f} times the imports (less than 3)", ratio < 3)


def memory(server: process.Server, after: float) -> Gate:
    """Resident memory *after* seconds, one key, nothing done."""
    time.sleep(max(0.0, server.started + after - time.monotonic()))
    resident = server.resident_mb()
    print(f"{'MB resident, idle':<24} keyturn {resident:>9.1f}   ({after:.0f} s after start)")
    return Gate(f"memory: {resident:.1f} MB (less than 70)", resident < 70)


def flatness() -> Gate:
    """Cost of a pick, 10,000 credentials beside 10."""
    growth = {name: costs[-1] / costs[0] for name, costs in picking.measure().items()}
    worst = max(growth, key=growth.__getitem__)
    return Gate(
        f"a pick among 10,000 keys: {growth[worst]:.1f} times one among 10 ({worst}; at most 4)", growth[worst] <= 4
    )


def loads() -> Gate:
    """A thousand routes and 500 keys, beside the bare parser on the same file."""
    loaded, parsed = loading.measure()
    ratio = loaded / parsed
    print(f"{'seconds to load':<24} keyturn {loaded:>9.3f}   yaml.compose {parsed:>9.3f}   ratio {ratio:.2f}")
    return Gate(f"loading 1,000 routes and 500 keys: {ratio:.2f} times yaml.compose (at most 4)", ratio <= 4)


def main(gateway: Callable[[int], process.Server] = process.keyturn) -> int:
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="fewer and shorter rounds: an impression, not a result")
    arguments.add_argument("--rounds", type=int, help="how many rounds")
    arguments.add_argument("--seconds", type=float, help="how long one sample lasts")
    options = arguments.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (1.0 if options.quick else 3.0)
    if len(process.CORES) < 2:
        print("note: one core only, so load and gateway share it and all rates are lower")
    process.pin(0, process.CORES[0])

    with gateway(process.free_port()) as idle:
        gates = uvloop.run(throughput(gateway, rounds, seconds))
        gates.append(uvloop.run(library(rounds, seconds)))
        gates += [Gate(*each) for each in uvloop.run(fallback.gates(rounds, seconds / 2))]
        many = 20_000 if options.quick else remembering.MANY
        gates += [Gate(*each) for each in uvloop.run(remembering.gates(rounds, seconds, many))]
        gates.append(startup(gateway, rounds))
        gates.append(chunks())
        gates.append(flatness())
        gates.append(loads())
        gates.append(memory(idle, 3 if options.quick else 60))
    for gate in gates:
        print(f"{'PASS' if gate.passed else 'FAIL'}  {gate.name}")
    return 0 if all(gate.passed for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
