"""Calls on two gateways that share a Redis, each left by its client at a random moment; the connections break as well.

Afterwards nothing may be left: no reservation in a gateway, no record, lease or held unit in Redis, no socket, no task.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

from keyturn.config import Options, load
from keyturn.dispatch import Gateway, SystemClock, build, new_id, read_call
from keyturn.stores.redis_scripts import base_of
from tests.support.redis_process import RedisProcess

KEYS = 6
TOGETHER = 60
"""Calls under way at once on each gateway: more than its keys may answer, so that some wait in line."""
SOONEST, LATEST = 0.0, 0.3
"""Seconds after which a client leaves."""
SLOWEST = 0.02
"""Seconds that the upstream may take to begin an answer."""
LOOK_EVERY = 20
"""Rounds between two looks at what is left."""
BREAK_EVERY = 7
"""Rounds between two losses of the connections to Redis, in the middle of a round."""
PATIENCE = 10.0
"""Seconds in which all must be given back; a lease that nobody gives back ends by itself only after 50."""
PREFIX = "cancelled"
LIMITS = f"rpm=100000000 rpd=100000000 tpm=100000000000 concurrency={TOGETHER // KEYS}"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"llama-3.1-8b-instant","choices":[{"index":0'
    b',"delta":{"content":"word "},"finish_reason":%b}]}\n\n'
)
ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"llama-3.1-8b-instant","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}}'
)


def cancellations_on_redis(size: int, seed: int) -> list[str]:
    """*size* calls, each cancelled at a random moment of its life, some twice; what was left over."""
    logging.getLogger("keyturn").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as place, RedisProcess(Path(place)) as redis:
        return asyncio.run(_whole(size, Random(seed), Path(place), redis))


async def _whole(size: int, random: Random, folder: Path, redis: RedisProcess) -> list[str]:
    tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
    found: list[str] = []
    seen: Counter[str] = Counter()
    async with _upstream(random) as url:
        gateways = [_gateway(folder, redis, url) for _ in range(2)]
        for gateway in gateways:
            await gateway.open()
        rounds = -(-size // (TOGETHER * len(gateways)))
        for number in range(1, rounds + 1):
            loss = random.uniform(SOONEST, LATEST) if number % BREAK_EVERY == 0 else None
            await asyncio.gather(
                _losses(redis, loss),
                *(_left_call(gateway, random, seen) for _ in range(TOGETHER) for gateway in gateways),
            )
            if number % LOOK_EVERY == 0 or number == rounds:
                found = await _left_over(gateways, redis)
                if found:
                    break
        for gateway in gateways:
            await gateway.close()
    gc.collect()
    await asyncio.sleep(0.1)  # transports close in the next turns of the loop
    if (more := len(asyncio.all_tasks()) - tasks) > 0:
        found.append(f"{more} tasks are left over")
    if (more := _descriptors() - descriptors) > 0:
        found.append(f"{more} descriptors are left over")
    print(f"cancellations-redis: {', '.join(f'{count:,} {what}' for what, count in seen.most_common())}")
    return found


def _gateway(folder: Path, redis: RedisProcess, url: str) -> Gateway:
    keys = {f"GROQ_API_KEY_{number}": f"groq-key-{number}" for number in range(KEYS)}
    environ = {"GROQ_API_BASE": url, "REDIS_URL": redis.url, "REDIS_PREFIX": PREFIX, "LIMITS_GROQ": LIMITS} | keys
    return build(load(environ, cwd=folder, options=Options(data=folder / "data")), clock=SystemClock())


async def _left_call(gateway: Gateway, random: Random, seen: Counter[str]) -> None:
    """One call whose client leaves, sometimes twice with a turn of the loop between."""
    task = asyncio.create_task(_call(gateway, random.random() < 0.5))
    await asyncio.sleep(random.uniform(SOONEST, LATEST))
    seen["over before" if task.done() else "cancelled"] += 1
    task.cancel()
    if random.random() < 0.3:
        await asyncio.sleep(0)
        task.cancel()
    (end,) = await asyncio.gather(task, return_exceptions=True)
    seen[f"ended by {type(end).__name__}" if isinstance(end, BaseException) else f"status {end}"] += 1


async def _call(gateway: Gateway, stream: bool) -> int:
    body = b'{"model":"groq/llama-3.1-8b-instant","messages":[{"role":"user","content":"Hi"}]%b}'
    call = read_call("chat", body % (b',"stream":true' if stream else b""), {}, "", "")
    reply = await gateway.handle(call, gateway.config.default_caller, new_id(gateway.clock.wall()))
    try:
        if reply.stream is not None:
            async for _ in reply.stream:
                pass
    finally:
        reply.close()
    return reply.status


async def _losses(redis: RedisProcess, after: float | None) -> None:
    """Have Redis hang up on everybody in the middle of a round."""
    if after is not None:
        await asyncio.sleep(after)
        await asyncio.to_thread(redis.command, "CLIENT", "KILL", "TYPE", "normal")


async def _left_over(gateways: list[Gateway], redis: RedisProcess) -> list[str]:
    """What is not given back in time, though no call is under way."""
    import redis as client

    connection = client.Redis(unix_socket_path=str(redis.socket))
    try:
        until = gateways[0].clock.mono() + PATIENCE
        while True:
            standing = _standing(gateways) + await asyncio.to_thread(_standing_in_redis, connection)
            left = {what: count for what, count in standing.items() if count}
            if not left or gateways[0].clock.mono() > until:
                return [f"{count} {what} are left over" for what, count in left.items()]
            await asyncio.sleep(0.05)
    finally:
        connection.close()


def _standing(gateways: list[Gateway]) -> Counter[str]:
    left: Counter[str] = Counter()
    for gateway in gateways:
        standing = gateway.live.standing()
        left["reservations"] += standing.open
        left["messages to Redis"] += standing.queued
        left["gateways without Redis"] += not standing.reachable
        left["calls"] += gateway.inflight
        left["waiting calls"] += gateway.room.waiting
        left["upstream exchanges"] += gateway.transport.acquired  # type: ignore[attr-defined]
        left["busy entries"] += sum(entry.active for pool in gateway.pools for entry in pool.entries)
    return left


def _standing_in_redis(connection: Any) -> Counter[str]:
    base = base_of(PREFIX)
    left = Counter({"leases in Redis": int(connection.zcard(f"{base}leases"))})
    left["records in Redis"] = sum(1 for _ in connection.scan_iter(f"{base}r:*", count=1000))
    for key in connection.scan_iter(f"{base}u:*", count=1000):
        left["held units in Redis"] += int(connection.hget(key, "h") or 0)
    return left


def _descriptors() -> int:
    """Open files and sockets of this process; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


# --- an upstream


@contextlib.asynccontextmanager
async def _upstream(random: Random) -> AsyncIterator[str]:
    """Answers each call after a moment, streams word by word; it ends with all its connections."""
    open_tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_tasks.add(task)
        try:
            while True:
                await _answer(reader, writer, random)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            open_tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/openai/v1"
    finally:
        server.close()
        for task in list(open_tasks):
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, random: Random) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    rows = head.lower().split(b"\r\n")
    length = next((int(row[15:]) for row in rows if row.startswith(b"content-length:")), 0)
    body = await reader.readexactly(length)
    await asyncio.sleep(random.uniform(0.0, SLOWEST))
    if b'"stream":true' not in body:
        writer.write(HEAD % b"application/json" + _chunk(ANSWER) + _chunk(b""))
        return
    writer.write(HEAD % b"text/event-stream")
    for event in [EVENT % b"null"] * 3 + [EVENT % b'"stop"', b"data: [DONE]\n\n", b""]:
        writer.write(_chunk(event))
        await writer.drain()
        await asyncio.sleep(random.uniform(0.0, SLOWEST / 4))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
