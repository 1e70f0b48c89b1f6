"""Runs each client on a small task through a gateway whose upstream speaks another format: `make clients`.

Prints a table as Markdown; exits with 1 when a client did not get its tool's result back. The models are simulated,
the clients are not: each is told to call one of its tools on a file and must print what stands in that file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".cache" / "clients"
KEYTURN = (sys.executable, "-c", "from keyturn.cli import main; main(prog_name='keyturn')")
PATIENCE = 180.0
"""Seconds for one run of a client."""
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
}
"""Wire format → a route to a simulated provider that speaks it."""


class Run(NamedTuple):
    """One client through one upstream."""

    client: Client
    upstream: str
    passed: bool
    said: str


def install(clients: tuple[Client, ...]) -> None:
    """Puts the pinned packages into .cache/clients/, unless they are there."""
    wanted = {client.package: client.version for client in CLIENTS}
    if all(_installed(client) == client.version for client in clients):
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}, indent=2))
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not on the PATH: the clients are npm packages (Node 20 or newer)")
    subprocess.run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=PLACE, check=True, timeout=600)


def _installed(client: Client) -> str | None:
    package = PLACE / "node_modules" / client.package / "package.json"
    return str(json.loads(package.read_text())["version"]) if package.exists() else None


@contextmanager
def serving(args: tuple[str, ...], folder: Path, until: str, environ: dict[str, str]) -> Iterator[str]:
    """A command of ours that serves, once it has said *until*; what it said."""
    with (folder / f"{args[0]}.log").open("w+") as log:
        process = subprocess.Popen([*KEYTURN, *args], cwd=folder, env=environ, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = ""
        while until not in said:
            line = process.stderr.readline()
            if not line:
                sys.exit(f"keyturn {args[0]} ended:\n{said}")
            said += line
        reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)  # so that the pipe never fills
        try:
            yield said
        finally:
            process.terminate()
            process.wait(timeout=60)
            reader.wait(timeout=60)


def run(client: Client, upstream: str, folder: Path, environ: dict[str, str], *, loud: bool) -> Run:
    """The client on its task, in an empty folder and an empty home."""
    name = f"{client.program}-{upstream.split()[0].lower()}"
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
    done = subprocess.run(
        command,
        cwd=work,
        env={**environ, **QUIET, "PATH": path, "HOME": str(home), "TERM": "dumb"},
        input="" if prompt in args else prompt,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if loud:
        print(f"--- {name}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}", file=sys.stderr)
    answered = WORD in final_text(client, done.stdout)
    if done.returncode == 0 and answered:
        return Run(client, upstream, True, "its result came back in the answer")
    lines = [*filter(str.strip, f"{done.stdout}\n{done.stderr}".splitlines())] or ["nothing said"]
    told = next((line for line in reversed(lines) if '"message"' in line or "rror" in line), lines[-1])
    return Run(client, upstream, False, f"exit code {done.returncode}: {told.strip()[:200]}")


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", metavar="client", help="of claude, codex, gemini, opencode; all")
    parser.add_argument("--loud", action="store_true", help="print what the clients print")
    options = parser.parse_args()
    chosen = tuple(each for each in CLIENTS if not options.clients or each.program in options.clients)
    install(chosen)
    runs = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyturn-clients-")))
        plain = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        said = stack.enter_context(serving(("simulator", "--port", "0"), folder, "_simulator/stats", plain))
        simulator = said.split("Simulated providers at ")[1].partition(": ")[0]
        environ = {
            **plain,
            "PROXY_API_KEY": "kt-of-the-clients",
            "ANTHROPIC_API_KEY": "sk-ant-simulated",
            "ANTHROPIC_API_BASE": f"{simulator}/anthropic/v1",
            "GEMINI_API_KEY": "AIza-simulated",
            "GEMINI_API_BASE": f"{simulator}/gemini",
            "GROQ_API_KEY": "gsk_simulated",
            "GROQ_API_BASE": f"{simulator}/groq/v1",
        }
        stack.enter_context(serving(("serve", "--port", "0"), folder, "try it:", environ))
        for client in chosen:
            for upstream in UPSTREAMS:
                if upstream != client.speaks:
                    runs.append(run(client, upstream, folder, environ, loud=options.loud))
                    print(f"{client.program} over {upstream}: {runs[-1].said}", file=sys.stderr)
    print("\n".join(table(runs)))
    return 0 if all(each.passed for each in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
