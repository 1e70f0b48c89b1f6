"""Runs tools and SDKs through a gateway whose upstreams are simulated: `make clients`.

Prints two tables as Markdown; exits with 1 when anything failed. The models are simulated, the clients are not.
Command line tools are each told to call one of their own tools on a file, over an upstream that speaks another format,
and must print what stands in that file. SDKs go through the checks of sdks.mjs, over upstreams of every format.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from . import sdks
from .packages import PLACE, install

CALLER_KEY = "kt-of-the-clients"
KEYTURN = (sys.executable, "-c", "from keyturn.cli import main; main(prog_name='keyturn')")
PATIENCE = 180.0
"""Seconds for one run of a client."""
READY = 60.0
"""Seconds for the gateway and the simulator to get ready, and to end."""
WORD = "heliotrope-7391"
"""What stands in the file, and nowhere else."""
QUIET = {
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
}
"""Keeps the clients from looking elsewhere on the network."""


class Client(NamedTuple):
    """A program, its package, how it is run without a terminal, and how its tool is called. `{file}`, `{prompt}`."""

    program: str
    package: str
    version: str
    speaks: str
    args: tuple[str, ...]
    tool: str
    arguments: dict[str, str]


CLIENTS = (
    Client(
        "claude",
        "@anthropic-ai/claude-code",
        "2.1.332",
        "Anthropic Messages",
        ("-p", "{prompt}", "--output-format", "json", "--allowedTools", "Read"),
        "Read",
        {"file_path": "{file}"},
    ),
    Client(
        "codex",
        "@openai/codex",
        "0.171.0",
        "OpenAI Responses",
        ("exec", "--json", "--ephemeral", "--skip-git-repo-check", "-s", "danger-full-access", "{prompt}"),
        "exec_command",
        {"cmd": "cat {file}"},
    ),
    Client(
        "gemini",
        "@google/gemini-cli",
        "0.61.0",
        "Gemini",
        ("-p", "{prompt}", "-o", "json", "--skip-trust", "--approval-mode", "yolo"),
        "read_file",
        {"file_path": "{file}"},
    ),
    Client(
        "opencode",
        "opencode-ai",
        "1.18.33",
        "OpenAI Chat",
        ("run", "--format", "json"),  # the prompt on stdin: quotes in an argument are escaped once more
        "read",
        {"filePath": "{file}"},
    ),
)
UPSTREAMS = {
    "Anthropic Messages": "anthropic/claude-sonnet-4-5",
    "Gemini": "gemini/gemini-2.5-flash",
    "OpenAI Chat": "groq/llama-3.3-70b-versatile",
    "OpenAI Responses": "openai/gpt-5.1-codex",
}
"""Wire format → a route to a simulated provider that speaks it."""
MODELS = {provider: [model] for provider, model in sdks.UPSTREAMS.values()}
for route in UPSTREAMS.values():
    MODELS[route.partition("/")[0]].append(route.partition("/")[2])


class Run(NamedTuple):
    """One client through one upstream."""

    client: Client
    upstream: str
    passed: bool
    said: str


@contextmanager
def serving(args: tuple[str, ...], folder: Path, until: str, environ: dict[str, str]) -> Iterator[str]:
    """A command of ours that serves, once it has said *until*; what it said."""
    with (folder / f"{args[0]}.log").open("w+") as log:
        process = subprocess.Popen([*KEYTURN, *args], cwd=folder, env=environ, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        late = threading.Timer(READY, process.kill)
        late.start()
        said = ""
        try:
            while until not in said:
                line = process.stderr.readline()
                if not line:
                    sys.exit(f"keyturn {args[0]} ended:\n{said}")
                said += line
        finally:
            late.cancel()
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)  # so that the pipe never fills
        try:
            yield said
        finally:
            process.terminate()
            try:
                process.wait(READY)
            finally:
                process.kill()  # without effect on one that has ended
                reader.wait(READY)


def run(client: Client, upstream: str, folder: Path, environ: dict[str, str], *, loud: bool) -> Run:
    """The client on its task, in an empty folder and an empty home."""
    name = f"{client.program}-{upstream.replace(' ', '-').lower()}"
    work, home = folder / name / "work", folder / name / "home"
    work.mkdir(parents=True)
    home.mkdir()
    file = work / "note.txt"
    file.write_text(f"The word is {WORD}.\n")
    arguments = json.dumps({key: value.format(file=file) for key, value in client.arguments.items()})
    prompt = f"Tell me the word in note.txt. [call: {client.tool} {arguments}]"
    args = [prompt if word == "{prompt}" else word for word in client.args]
    command = [
        *KEYTURN,
        "run",
        client.program,
        "-m",
        UPSTREAMS[upstream],
        "--data",
        str(folder / ".cache"),
        "--",
        *args,
    ]
    path = f"{PLACE / 'node_modules' / '.bin'}:{environ['PATH']}"
    process = subprocess.Popen(
        command,
        cwd=work,
        env={**environ, **QUIET, "PATH": path, "HOME": str(home), "TERM": "dumb"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, to be ended with all that it started
    )
    try:
        stdout, stderr = process.communicate("" if prompt in args else prompt, PATIENCE)
    except subprocess.TimeoutExpired:
        return Run(client, upstream, False, f"no end within {PATIENCE:.0f} s")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(READY)
    if loud:
        print(f"--- {name}: exit code {process.returncode}\n{stdout}\n{stderr}", file=sys.stderr)
    if process.returncode == 0 and WORD in final_text(client, stdout):
        return Run(client, upstream, True, "its result came back in the answer")
    lines = [*filter(str.strip, f"{stdout}\n{stderr}".splitlines())] or ["nothing said"]
    told = next((line for line in reversed(lines) if '"message"' in line or "rror" in line), lines[-1])
    return Run(client, upstream, False, f"exit code {process.returncode}: {told.strip()[:200]}")


def final_text(client: Client, stdout: str) -> str:
    """What the client gives as the model's answer: a tool's own output does not count."""
    found = []
    for line in [stdout] if client.program in ("claude", "gemini") else stdout.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if client.program in ("claude", "gemini"):
            found.append(str(told.get("result" if client.program == "claude" else "response") or ""))
        elif client.program == "codex" and told.get("type") == "item.completed":
            found.append(told["item"].get("text", "") if told["item"]["type"] == "agent_message" else "")
        elif client.program == "opencode" and told.get("type") == "text":
            found.append(told["part"]["text"])
    return "\n".join(found)


def table(runs: list[Run]) -> Iterator[str]:
    yield "| client | version | speaks | upstream speaks | tool called | result |"
    yield "|---|---|---|---|---|---|"
    for client, upstream, passed, said in runs:
        result = f"{'passed' if passed else 'FAILED'}: {said}".replace("|", "\\|")
        yield f"| `{client.program}` | {client.version} | {client.speaks} | {upstream} | `{client.tool}` | {result} |"


def environment(simulator: str) -> dict[str, str]:
    """Of a gateway whose providers are the simulated ones; OpenAI is spoken to as Responses alone."""
    return {
        "PROXY_API_KEY": CALLER_KEY,
        "ANTHROPIC_API_KEY": "sk-ant-simulated",
        "ANTHROPIC_API_BASE": f"{simulator}/anthropic/v1",
        "GEMINI_API_KEY": "AIza-simulated",
        "GEMINI_API_BASE": f"{simulator}/gemini",
        "GROQ_API_KEY": "gsk_simulated",
        "GROQ_API_BASE": f"{simulator}/groq/v1",
        "OPENAI_API_KEY": "sk-simulated",
        "OPENAI_API_BASE": f"{simulator}/openai/v1",
        "OPENAI_DIALECT": "openai_responses",
        "TIMEOUT_QUEUE_WAIT": "0.1",
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.clients", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [each.program for each in CLIENTS]
    parser.add_argument("clients", nargs="*", metavar="tool", help=f"of {', '.join(known)}: only these, and no SDK")
    parser.add_argument("--only", choices=("tools", "sdks"), help="one half; both")
    parser.add_argument("--loud", action="store_true", help="print what the tools print")
    options = parser.parse_args()
    if unknown := set(options.clients) - set(known):
        parser.error(f"unknown tool {', '.join(sorted(unknown))}, known are {', '.join(known)}")
    if options.clients and options.only == "sdks":
        parser.error("--only sdks takes no tools")
    chosen = tuple(each for each in CLIENTS if each.program in options.clients or not options.clients)
    with_tools, with_sdks = options.only != "sdks", options.only != "tools" and not options.clients
    install(
        ({each.package: each.version for each in chosen} if with_tools else {}) | (sdks.PACKAGES if with_sdks else {})
    )
    runs: list[Run] = []
    checks: list[sdks.Check] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-clients-")))
        plain = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        script = folder / "simulator.json"
        script.write_text(json.dumps({"models": MODELS}))
        args = ("simulator", "--port", "0", "--script", str(script))
        said = stack.enter_context(serving(args, folder, "_simulator/stats", plain))
        simulator = said.split("Simulated providers at ")[1].partition(": ")[0]
        environ = plain | environment(simulator)
        stack.enter_context(serving(("serve", "--port", "0"), folder, "try it:", environ))
        for client in chosen if with_tools else ():
            for upstream in UPSTREAMS:
                if upstream != client.speaks:
                    runs.append(run(client, upstream, folder, environ, loud=options.loud))
                    print(f"{client.program} over {upstream}: {runs[-1].said}", file=sys.stderr)
        if with_sdks:
            gateway = json.loads((folder / ".cache" / "gateway.json").read_bytes())["url"]
            admin = (folder / ".cache" / "admin.key").read_text().strip()
            checks = sdks.run(gateway, simulator, CALLER_KEY, admin, plain)
            print("\n".join(sdks.report(checks)), file=sys.stderr)
    tables = [table(runs)] if with_tools else []
    print("\n\n".join("\n".join(rows) for rows in [*tables, *([sdks.table(checks)] if with_sdks else [])]))
    return 0 if all(each.passed for each in runs) and all(each.passed for each in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
