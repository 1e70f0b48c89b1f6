"""Writes src/keyturn/providers/prices.json from the data of genai-prices (MIT), which Keyturn itself does not need.

python3 -m venv build/prices && build/prices/bin/pip install genai-prices
.venv/bin/python -m tools.prices build/prices/lib/python3.11/site-packages

Without a folder the package must be installed beside Keyturn. `--date` says as of which day (default: today): prices
that begin later are left out. Read the difference before it is committed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from collections.abc import Iterator
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "src" / "keyturn" / "providers" / "prices.json"

OURS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "gemini",
    "groq": "groq",
    "mistral": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "x-ai": "xai",
}
"""Their name of a provider -> ours. Providers that Keyturn does not know are left out."""

BORROWS = {"azure": ["openai", "anthropic", "deepseek", "xai"], "vertex": ["gemini"]}
"""Providers that sell the models of others at the same price."""

PRICES = {"input": "input_mtok", "cached": "cache_read_mtok", "output": "output_mtok"}
"""Our member -> their attribute."""


class Record:
    """Stands for every class of their data module: it keeps what it was made with and knows nothing else."""

    def __init__(self, kind: str, members: dict[str, Any]) -> None:
        self.kind = kind
        self.members = members

    def __getattr__(self, name: str) -> Any:
        return self.members.get(name)


def read(folder: Path) -> list[Record]:
    """Their providers. The data is a Python module: it is run with stand-ins for its classes, so that nothing else of
    the package, and none of its dependencies, is imported."""
    path = folder / "genai_prices" / "data.py"
    if not path.is_file():
        raise SystemExit(
            f"{path} is not there. Install genai-prices somewhere and name its site-packages folder:\n{__doc__}"
        )
    text = path.read_text("utf-8").replace("from .types import *\n", "")
    module = types.ModuleType("genai_prices_data")
    for kind in set(re.findall(r"\b([A-Z]\w+)\(", text)) - {"Decimal"}:
        setattr(module, kind, lambda kind=kind, **members: Record(kind, members))
    exec(compile(text, str(path), "exec"), vars(module))
    return list(module.providers)


def version(folder: Path) -> str:
    """Which release of genai-prices lies in *folder*."""
    found = [each.version for each in distributions(path=[str(folder)]) if each.metadata["Name"] == "genai-prices"]
    return found[0] if found else "of unknown version"


def names(clause: Record) -> Iterator[Any]:
    """The alternatives of a matching rule, in our spelling: `=` equals, `^` begins, `$` ends, `~` contains, `/` regular
    expression; a list holds when all of it does."""
    signs = {"equals": "=", "starts_with": "^", "ends_with": "$", "contains": "~", "regex": "/"}
    if clause.kind == "ClauseOr":
        for each in clause.or_:
            yield from names(each)
    elif clause.kind == "ClauseAnd":
        yield [next(names(each)) for each in clause.and_]
    else:
        ((member, value),) = clause.members.items()
        yield signs[member] + (value if member == "regex" else value.lower())


def amount(value: Any) -> float | None:
    """A price that is the same for every length, or the one below the first threshold."""
    plain = value.base if isinstance(value, Record) else value
    if plain is None:
        return None
    return int(plain) if plain == int(plain) else float(plain)


def thresholds(price: Record) -> list[dict[str, float]]:
    """What it costs above each input length where the price changes, for all tokens of such a call."""
    tiered = {ours: value for ours, theirs in PRICES.items() if isinstance(value := getattr(price, theirs), Record)}
    found = []
    for start in sorted({tier.start for value in tiered.values() for tier in value.tiers}):
        row: dict[str, float] = {"above": start}
        for ours, theirs in PRICES.items():
            value = amount(getattr(price, theirs))
            for tier in tiered[ours].tiers if ours in tiered else ():
                if tier.start <= start:
                    value = amount(tier.price)
            if value is not None:
                row[ours] = value
        found.append(row)
    return found


def current(prices: Any, day: date) -> Record:
    """The price on *day*; of several that depend on the hour the dearest, for Keyturn does not price by the hour."""
    if isinstance(prices, Record):
        return prices
    begun: Record = prices[0].prices
    hourly: list[Record] = []
    for each in prices:
        if each.constraint is None:
            begun = each.prices
        elif each.constraint.kind == "StartDateConstraint":
            if each.constraint.start_date <= day:
                begun, hourly = each.prices, []
        else:
            hourly.append(each.prices)
    return max(
        [begun, *hourly], key=lambda price: 3 * (amount(price.input_mtok) or 0) + (amount(price.output_mtok) or 0)
    )


def row(model: Record, day: date) -> dict[str, Any] | None:
    """One line of our file, None for a model that is not priced by tokens."""
    price = current(model.prices, day)
    if price.input_mtok is None:
        return None
    line: dict[str, Any] = {
        "id": model.id,
        "match": [each for each in names(model.match) if each != f"={model.id.lower()}"],
    }
    for ours, theirs in PRICES.items():
        if (value := amount(getattr(price, theirs))) is not None:
            line[ours] = value
    line.setdefault("output", 0)
    if price.requests_kcount is not None:
        line["request"] = amount(price.requests_kcount)
    if steps := thresholds(price):
        line["longer"] = steps
    if not line["match"]:
        del line["match"]
    return line


def wanted(provider: str, model: str) -> bool:
    """OpenRouter's ids have an owner, its `:free` models cost nothing by their name; the Gemini API sells no Claude."""
    if provider == "google":
        return not model.startswith("claude")
    return provider != "openrouter" or ("/" in model and not model.endswith(":free"))


def table(providers: list[Record], day: date) -> dict[str, list[dict[str, Any]]]:
    """Our providers and their models, sorted, so that two runs differ only where prices do."""
    found: dict[str, list[dict[str, Any]]] = {}
    for provider in providers:
        if (name := OURS.get(provider.id)) is None:
            continue
        lines = [line for model in provider.models if wanted(provider.id, model.id) and (line := row(model, day))]
        found[name] = sorted(lines, key=lambda line: line["id"])
    return dict(sorted(found.items()))


def render(models: dict[str, list[dict[str, Any]]], source: str, day: date) -> str:
    """One model a line: a change of one price is a change of one line."""
    head = {
        "dated": day.isoformat(),
        "source": source,
        "unit": "USD per million tokens; request: USD per 1,000 requests",
    }
    blocks = []
    for name, lines in models.items():
        rows = ",\n".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines)
        blocks.append(f"{json.dumps(name)}: [\n{rows}\n]")
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in {**head, "borrows": BORROWS}.items()]
    return "{\n" + ",\n".join(members) + ',\n"models": {\n' + ",\n".join(blocks) + "\n}\n}\n"


def site_packages() -> Path:
    """Where an installed genai-prices lies; the tool explains itself when there is none."""
    for entry in sys.path:
        if (Path(entry) / "genai_prices" / "data.py").is_file():
            return Path(entry)
    return Path()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the site-packages folder that holds genai_prices")
    parser.add_argument("--date", type=date.fromisoformat, default=date.today(), help="as of which day, YYYY-MM-DD")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    folder = arguments.folder or site_packages()
    models = table(read(folder), arguments.date)
    arguments.out.write_text(
        render(
            models,
            f"genai-prices {version(folder)}, (c) Pydantic Services Inc., MIT License, see NOTICE",
            arguments.date,
        ),
        "utf-8",
    )
    print(f"{sum(map(len, models.values()))} models of {len(models)} providers -> {arguments.out}")


if __name__ == "__main__":
    main()
