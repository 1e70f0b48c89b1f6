"""What loading a large configuration costs beside parsing it: a thousand routes and 500 keys."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from keyturn.config import load

ROUTES, KEYS, ROUNDS = 1_000, 500, 9
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def models_yaml(routes: int = ROUTES, keys: int = KEYS) -> str:
    """A models.yaml of that size, its variables in quotes so that a plain parser reads it too."""
    lines = ["providers:", "  groq:", "    kind: http", "    api_keys:"]
    lines += [f'      - "${{GROQ_API_KEY_{number}}}"' for number in range(1, keys + 1)]
    lines.append("provider_routes:")
    lines += [
        f"  - {{ id: vendor/model-{number}, provider: openrouter, is_paid: false, tier: free, "
        "capabilities: { streaming: true, vision: true }, context_length: 131072 }"
        for number in range(routes)
    ]
    return "\n".join(lines) + "\n"


def variables(keys: int = KEYS) -> dict[str, str]:
    """The environment that goes with it."""
    return {f"GROQ_API_KEY_{number}": f"gsk_key_of_the_bench_{number:04d}" for number in range(1, keys + 1)}


def measure() -> tuple[float, float]:
    """Seconds to load and seconds to parse: the best of several rounds, one beside the other."""
    text, environ = models_yaml(), variables()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "config").mkdir()
        (place / "config" / "models.yaml").write_text(text)
        load(environ, cwd=place)  # imports are not what is measured
        rounds = [
            (_seconds(lambda: load(environ, cwd=place)), _seconds(lambda: yaml.compose(text, Loader=LOADER)))
            for _ in range(ROUNDS)
        ]
    return min(each[0] for each in rounds), min(each[1] for each in rounds)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
