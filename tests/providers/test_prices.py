"""List prices: known ones, names in all their spellings, what is unknown; and the tool that makes the file."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keyturn.providers
from keyturn.core import ZERO, Price, Usage
from keyturn.providers import CATALOG, price_of, prices_dated
from tools import prices as tool

FILE = Path(keyturn.providers.__file__).with_name("prices.json")
DATA = json.loads(FILE.read_text())
PRICED = [(provider, row["id"]) for provider, rows in DATA["models"].items() for row in rows]


def usd(price: Price | None) -> tuple[float, float, float | None]:
    """Input, output and cached input in dollars per million tokens."""
    assert price is not None
    return price.input / 1e3, price.output / 1e3, None if price.cached is None else price.cached / 1e3


@pytest.mark.parametrize(
    ("provider", "model", "asked"),
    [
        ("openai", "gpt-4o", (2.5, 10, 1.25)),
        ("openai", "gpt-4o-mini", (0.15, 0.6, 0.075)),
        ("anthropic", "claude-sonnet-4-5", (3, 15, 0.3)),
        ("anthropic", "claude-haiku-4-5", (1, 5, 0.1)),
        ("groq", "llama-3.1-8b-instant", (0.05, 0.08, None)),
        ("groq", "openai/gpt-oss-120b", (0.15, 0.6, 0.075)),
        ("gemini", "gemini-2.5-flash", (0.3, 2.5, 0.03)),
        ("openrouter", "anthropic/claude-haiku-4.5", (1, 5, 0.1)),
        ("together", "openai/gpt-oss-120b", (0.15, 0.6, None)),
        ("openai", "text-embedding-3-small", (0.02, 0, None)),
    ],
)
def test_known_prices(provider: str, model: str, asked: tuple[float, float, float | None]) -> None:
    assert usd(price_of(provider, model)) == asked


@pytest.mark.parametrize(
    ("provider", "model", "same"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "Claude-Haiku-4-5", "claude-haiku-4-5"),
        ("gemini", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gemini", "gemini-3-flash-preview-12-2025", "gemini-3-flash-preview"),
        ("openrouter", "anthropic/claude-haiku-4.5-20251001", "anthropic/claude-haiku-4.5"),
        ("openrouter", "anthropic/claude-haiku-4.5:nitro", "anthropic/claude-haiku-4.5"),
        ("groq", " llama-3.1-8b-instant ", "llama-3.1-8b-instant"),
    ],
)
def test_dated_and_suffixed_names_find_their_model(provider: str, model: str, same: str) -> None:
    assert price_of(provider, model) == price_of(provider, same) is not None


@pytest.mark.parametrize("alias", ["google", "google_ai_studio", "Google-AI-Studio", "gemini"])
def test_a_provider_goes_by_any_of_its_names(alias: str) -> None:
    assert price_of(alias, "gemini-2.5-flash") == price_of("gemini", "gemini-2.5-flash")


@pytest.mark.parametrize("model", ["qwen/qwen3-coder:free", "nobody/has-heard-of-it:free", "openrouter/free"])
def test_free_models_of_openrouter_cost_nothing(model: str) -> None:
    assert price_of("openrouter", model) == ZERO


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("groq", "mystery-70b"),
        ("groq", "mystery:free"),
        ("openrouter", "nobody/has-heard-of-it"),
        ("ollama", "llama3.2"),
        ("claude_code", "sonnet"),
        ("my-own-server", "gpt-4o"),
        ("gemini", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-flash-native-image-of-the-future"),
        ("openai", ""),
    ],
)
def test_what_is_not_known_is_none_and_never_zero(provider: str, model: str) -> None:
    assert price_of(provider, model) is None


def test_azure_sells_at_the_prices_of_the_makers() -> None:
    assert price_of("azure", "gpt-4o") == price_of("openai", "gpt-4o")


def test_long_input_costs_more_for_all_its_tokens() -> None:
    price = price_of("gemini", "gemini-2.5-pro")
    assert price is not None
    assert price.of(Usage(input=200_000, output=1_000)) == 200_000 * 1_250 + 1_000 * 10_000
    assert price.of(Usage(input=200_001, output=1_000)) == 200_001 * 2_500 + 1_000 * 15_000
    assert price.of(Usage(input=300_000, cached=300_000)) == 300_000 * 250


def test_of_several_thresholds_the_highest_that_is_passed_holds() -> None:
    price = Price(1.0, 1.0, longer=((10, Price(2.0, 2.0)), (100, Price(3.0, 3.0))))
    assert [price.of(Usage(input=length)) for length in (10, 11, 100, 101)] == [10, 22, 200, 303]


def test_a_price_per_request_is_added_once() -> None:
    price = price_of("perplexity", "sonar")
    assert price is not None
    assert price.request > 0
    assert price.of(Usage(input=10, output=5)) == price.request + 10 * 1_000 + 5 * 1_000


def test_every_line_of_the_file_is_found_and_sound() -> None:
    for provider, model in PRICED:
        price = price_of(provider, model)
        assert price is not None, (provider, model)
        costs = (price.input, price.output, price.request, *(cost for _, longer in price.longer for cost in longer[:2]))
        assert all(0 <= cost < 1e9 for cost in costs), (provider, model)
        assert price.input > 0, (provider, model)
        assert price.cached is None or price.cached >= 0, (provider, model)
        assert [above for above, _ in price.longer] == sorted({above for above, _ in price.longer}), (provider, model)


def test_the_file_names_only_providers_of_the_catalog_and_is_dated() -> None:
    assert set(DATA["models"]) <= set(CATALOG)
    assert date.fromisoformat(prices_dated()) >= date(2026, 11, 28)
    assert "MIT" in DATA["source"]
    assert "Pydantic Services Inc." in (Path(__file__).parents[2] / "NOTICE").read_text()


def test_the_file_is_sorted_with_one_model_a_line() -> None:
    for rows in DATA["models"].values():
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    lines = FILE.read_text().splitlines()
    assert sum(line.startswith('{"id":') for line in lines) == len(PRICED)


@given(st.sampled_from(sorted(CATALOG)), st.text(string.printable, max_size=60))
def test_any_name_has_a_price_or_none(provider: str, model: str) -> None:
    price = price_of(provider, model)
    assert price is None or (price.input > 0) or (price == ZERO and provider == "openrouter")


def test_importing_providers_does_not_read_the_file() -> None:
    code = (
        "import keyturn.providers.prices as prices, keyturn.providers\n"
        "assert prices._file.cache_info().currsize == 0\n"
        "assert keyturn.providers.prices_dated()\n"
        "assert prices._file.cache_info().currsize == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the tool ---------------------------------------------------------------------------------------------------------

SOURCE = """
import datetime
from decimal import Decimal

from .types import *

providers: list[Provider] = [
    Provider(id='x-ai', name='xAI', models=[
        ModelInfo(
            id='grok-9', match=ClauseOr(or_=[ClauseEquals(equals='grok-9'), ClauseStartsWith(starts_with='Grok-9-')]),
            prices=[
                ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('9'), output_mtok=Decimal('9'))),
                ConditionalPrice(
                    constraint=StartDateConstraint(start_date=datetime.date(2026, 6, 1)),
                    prices=ModelPrice(
                        input_mtok=TieredPrices(base=Decimal('2'), tiers=[Tier(start=1000, price=Decimal('4'))]),
                        cache_read_mtok=Decimal('0.5'), output_mtok=Decimal('6'), requests_kcount=Decimal('5'),
                    ),
                ),
                ConditionalPrice(
                    constraint=StartDateConstraint(start_date=datetime.date(2027, 1, 1)),
                    prices=ModelPrice(input_mtok=Decimal('99'), output_mtok=Decimal('99')),
                ),
            ],
        ),
        ModelInfo(
            id='grok-9-night', match=ClauseAnd(and_=[ClauseContains(contains='night'), ClauseRegex(regex='^g')]),
            prices=[
                ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('2'), output_mtok=Decimal('2'))),
                ConditionalPrice(
                    constraint=TimeOfDateConstraint(start_time=datetime.time(0), end_time=datetime.time(8)),
                    prices=ModelPrice(input_mtok=Decimal('1'), output_mtok=Decimal('1')),
                ),
            ],
        ),
        ModelInfo(id='grok-image', match=ClauseEquals(equals='grok-image'), prices=ModelPrice()),
    ]),
    Provider(id='nobody', name='Nobody', models=[]),
]
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "genai_prices").mkdir()
    (tmp_path / "genai_prices" / "data.py").write_text(SOURCE)
    return tmp_path


def test_the_tool_takes_the_price_of_the_day(source: Path) -> None:
    (grok, night) = tool.table(tool.read(source), date(2026, 11, 28))["xai"]
    assert grok == {
        "id": "grok-9",
        "match": ["^grok-9-"],
        "input": 2,
        "cached": 0.5,
        "output": 6,
        "request": 5,
        "longer": [{"above": 1000, "input": 4, "cached": 0.5, "output": 6}],
    }
    assert night == {"id": "grok-9-night", "match": [["~night", "/^g"]], "input": 2, "output": 2}, (
        "by the hour: the dearest"
    )
    assert tool.table(tool.read(source), date(2026, 5, 31))["xai"][0]["input"] == 9


def test_the_tool_leaves_out_what_is_not_sold_by_tokens_and_whom_we_do_not_know(source: Path) -> None:
    models = tool.table(tool.read(source), date(2026, 11, 28))
    assert list(models) == ["xai"]
    assert [row["id"] for row in models["xai"]] == ["grok-9", "grok-9-night"]


def test_what_the_tool_writes_is_json_and_the_same_twice(source: Path) -> None:
    models = tool.table(tool.read(source), date(2026, 11, 28))
    text = tool.render(models, "genai-prices 1", date(2026, 11, 28))
    assert json.loads(text)["models"] == models
    assert json.loads(text)["dated"] == "2026-11-28"
    assert text == tool.render(tool.table(tool.read(source), date(2026, 11, 28)), "genai-prices 1", date(2026, 11, 28))


def test_the_tool_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Install genai-prices"):
        tool.read(tmp_path)
