"""Scenario files: what is wrong in them is told with its line and the nearest name; the examples are sound."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from keyturn.errors import ConfigError
from keyturn.simulation import EXAMPLES, read_scenario, seeded, shape
from keyturn.simulation.house import configured, environment_of
from keyturn.simulation.played import play

from .scenes import scene

WRONG = """\
title: mine
duration: 2 fortnights
providers:
  groq: { keys: 0, limits: { rmp: 30 } }
  gemini: { keys: 2, outages: { at: 1h, lasts: 5m, share: 133% } }
calls: { rat: 20/minute }
callers: [{ name: "a b" }]
strategies: [roundrobin]
"""


def problems(folder: Path, text: str) -> list[str]:
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_scenario("mine.yaml", folder)
    return caught.value.problems


def test_every_mistake_is_told_at_once_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    found = problems(tmp_path, WRONG)
    assert [each.partition(": ")[0] for each in found] == [f"mine.yaml:{line}" for line in (2, 4, 4, 5, 6, 7, 8)], found
    whole = "\n".join(found)
    for said in (
        "is not a length of time such as 30s, 5m, 24h or 1d",
        "providers.groq.keys: 0 is too small",
        "providers.groq.limits.rmp: is not a key that is known here; did you mean rpm?",
        "too large; it must be at most 1",
        "calls.rat: is not a key that is known here; did you mean rate?",
        "(did you mean round_robin?)",
    ):
        assert said in whole, found


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ("{ input: 100 }", "says nothing of when calls come"),
        ("{ rate: 1/minute, replay: x.jsonl }", "give either replay or rate and bursts"),
        ("{ rate: 1/minute, patience: { 30s: 0.5, 60s: 0.4 } }", "do not add up to 1"),
        ("{ rate: 1/minute, patience: { soon: 1.0 } }", "is not a length of time"),
        ("{ rate: often }", "is not a rate such as 63000/day"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, calls: str, said: str) -> None:
    found = problems(tmp_path, f"providers:\n  groq: {{ keys: 1 }}\ncalls: {calls}\n")
    assert len(found) == 1
    assert found[0].startswith("mine.yaml:3: calls")
    assert said in found[0]


def test_what_is_no_yaml_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "providers: [")[0].startswith("mine.yaml:")
    assert problems(tmp_path, "") == [
        "mine.yaml:1: calls: is missing; write for example calls: { rate: 20/minute }",
        "mine.yaml:1: providers: is missing; write for example providers: { groq: { keys: 20 } }",
    ]


def test_a_file_that_is_not_there_names_the_nearest_example(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean the example one-loud-caller"):
        read_scenario("one-loud-call", tmp_path)
    with pytest.raises(ConfigError, match="the examples are day-of-100-keys, bursts-on-ten-keys, one-loud-caller"):
        read_scenario("nothing/of/the/kind.yaml", tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_can_be_read_and_make_a_configuration(name: str, tmp_path: Path) -> None:
    scenario, _ = read_scenario(name, tmp_path)
    config = configured(scenario)
    assert set(config.providers) == set(scenario.providers)
    keys = play(scenario, seeded(), 0.0)
    assert {key.secret for key in keys} == {
        each.secret.reveal() for group in config.credentials.values() for each in group
    }


def test_accounts_tiers_and_settings_become_the_owners_variables() -> None:
    scenario = scene(
        {"groq": {"keys": 3, "per_account": 2, "priority": 1}, "mine": {"keys": 1, "like": "gemini"}},
        settings={"TIMEOUT_QUEUE_WAIT": 7, "TIMEOUT_ADAPTIVE": True},
    )
    config = configured(scenario)
    one, two, three = config.credentials["groq"]
    assert one.group == two.group != three.group
    assert config.tier_of("groq") == 1
    assert (config.timeouts.queue_wait, config.timeouts.adaptive) == (7.0, True)
    assert config.providers["mine"].zone == "America/Los_Angeles", "it counts like Gemini"
    apart = scene({"groq": {"keys": 2, "per_account": 2, "accounts_declared": False}})
    assert "QUOTA_GROUP_GROQ" not in environment_of(apart)


def test_a_wrong_setting_is_told_as_the_configuration_tells_it() -> None:
    with pytest.raises(ConfigError, match="LEDGER_KEEP_DAYS"):
        configured(scene(settings={"LEDGER_KEEP_DAYS": "soon"}))


def test_limits_are_declared_truly_differently_or_not_at_all() -> None:
    def rules(declared: object) -> object:
        config = configured(scene({"groq": {"keys": 1, "limits": {"rpm": 30}, "declared": declared}}))
        return [spec.capacity for rule in config.limit_rules.get("groq", ()) for spec in rule.specs]

    assert [rules(each) for each in (True, False, {"rpm": 10})] == [[30], [], [10]]


SHAPES = (
    shape.Scenario, shape.Upstream, shape.Limits, shape.Outage, shape.Revoked, shape.Price, shape.Calls, shape.Burst,
    shape.Spread, shape.Conversations, shape.Caller,
)  # fmt: skip


@pytest.mark.parametrize("part", SHAPES, ids=lambda part: part.__name__)
def test_every_member_is_described_in_the_shape_and_in_the_page(part: type[BaseModel]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()
    for name, field in part.model_fields.items():
        assert field.examples, name
        assert f"| `{name}` | {field.description} |" in page
