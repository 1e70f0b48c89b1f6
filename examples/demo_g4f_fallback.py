"""Three tiers fail one after the other, and G4F answers: a rehearsal on this machine, without a key or a network.

    .venv/bin/python examples/demo_g4f_fallback.py

Keyturn's simulator plays OpenAI (tier 1), Groq (tier 2), Gemini (tier 3) and a G4F server (tier 5) on a free loopback
port. The calls are real HTTP requests, sent by the code that serves. It ends with 0 when everything went as told.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from keyturn.config import Config, load
from keyturn.dispatch import Gateway, SystemClock, build, draw, new_id, read_call
from keyturn.simulator import Fault, Simulator

MODEL = "gpt-4o-mini"
TIERS = ("openai", "groq", "gemini")


async def main() -> int:
    clock = SystemClock()
    simulator = Simulator(clock, draw, models={name: [MODEL] for name in (*TIERS, "g4f")})
    async with served(simulator) as url:
        gateway = build(configuration(url), clock=clock)
        try:
            return await story(gateway, simulator)
        finally:
            await gateway.close()


def configuration(url: str) -> Config:
    """What a .env with one key per provider and the address of a G4F server amounts to; the keys are made up."""
    environ = {
        "OPENAI_API_KEY": "sk-made-up",
        "OPENAI_API_BASE": f"{url}/openai/v1",
        "GROQ_API_KEY": "gsk_made_up",
        "GROQ_API_BASE": f"{url}/groq/v1",
        "GEMINI_API_KEY": "AIza-made-up",
        "GEMINI_API_BASE": f"{url}/gemini/v1beta",
        "G4F_MAIN_API_BASE": f"{url}/g4f/v1",  # plain http is fine on this machine; no key is needed
    }
    with tempfile.TemporaryDirectory() as nowhere:
        return load(environ, cwd=Path(nowhere))


async def story(gateway: Gateway, simulator: Simulator) -> int:
    print(f"A client asks for {MODEL}, which four providers offer.\n")
    print("1. All is well: the first tier answers.")
    answered = [await ask(gateway)]

    print("\n2. OpenAI is overloaded, Groq is at its limit, Gemini sends a web page: one call meets all three.")
    simulator.script.add(Fault(provider="openai", kind="chat", error="overloaded", status=503))
    simulator.script.add(Fault(provider="groq", kind="chat", error="rate_limited"))
    simulator.script.add(Fault(provider="gemini", kind="chat", quirks=frozenset({"block_page"})))
    answered.append(await ask(gateway))

    print("\n3. The next one, a stream: OpenAI and Groq rest, Gemini is tried once more.")
    answered.append(await ask(gateway, stream=True))

    print("\n4. They are back: G4F is left alone.")
    simulator.script.clear()
    gateway.reset(None)  # `keyturn keys reset`; by themselves they come back after their rest
    answered.append(await ask(gateway))

    asked = sum(1 for exchange in simulator.log if exchange.provider == "g4f" and exchange.kind == "chat")
    print(f"\nG4F was asked {asked} times for {len(answered)} calls, and only when nobody above it could answer.")
    return 0 if answered == ["openai", "g4f", "g4f", "openai"] and asked == 2 else 1


async def ask(gateway: Gateway, *, stream: bool = False) -> str:
    """One call; prints what happened behind it and returns who answered."""
    question = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    call = read_call("chat", json.dumps(question).encode(), {})
    reply = await gateway.handle(call, gateway.config.default_caller, identity := new_id(gateway.clock.wall()))
    size = len(reply.body)
    if reply.stream is not None:
        async for chunk in reply.stream:
            size += len(chunk)
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    for attempt in gateway.recent[identity].attempts:
        tier = gateway.config.providers[attempt.provider].tier
        said = f": {attempt.detail}" if attempt.detail else ""
        print(f"   tier {tier}  {attempt.provider:<7} {attempt.meaning}{said[:90]}")
    fallback = headers.get("x-fallback-provider")
    print(f"   the client: {reply.status}, {size} bytes" + (f", x-fallback-provider: {fallback}" if fallback else ""))
    return headers.get("x-keyturn-provider", "")


@asynccontextmanager
async def served(simulator: Simulator) -> AsyncIterator[str]:
    """*simulator* behind a free port of this machine; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(simulator, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
