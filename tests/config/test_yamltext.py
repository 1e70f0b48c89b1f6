"""YAML as plain data: what is read, what is refused, and where everything stands."""

from __future__ import annotations

import pytest

from keyturn.config.document import Mistake
from keyturn.config.yamltext import YamlDocument


def read(text: str, **values: str) -> object:
    return YamlDocument("models.yaml", text, values).data


def refused(text: str) -> tuple[int, str]:
    with pytest.raises(Mistake) as caught:
        read(text)
    return caught.value.line, caught.value.text


def test_plain_values() -> None:
    text = "{a: 1, b: 1.5, c: true, d: no, e: ~, f: text, g: 2026-11-28, h: 0x1f, i: 1_000, j: '5', k: 010}"
    assert read(text) == {
        "a": 1, "b": 1.5, "c": True, "d": False, "e": None, "f": "text", "g": "2026-11-28", "h": 31, "i": 1000,
        "j": "5", "k": 8,
    }  # fmt: skip


def test_a_time_is_no_number_of_base_sixty() -> None:
    assert read("a: 12:30") == {"a": "12:30"}


def test_keys_are_texts_as_they_are_written() -> None:
    assert read("1.10: a\non: b\n2026-01-01: c") == {"1.10": "a", "on": "b", "2026-01-01": "c"}


def test_an_empty_file_holds_nothing() -> None:
    assert read("") == {}
    assert read("# nothing\n") == {}


def test_the_model_of_a_command_is_no_variable() -> None:
    assert read("cmd: [run, ${MODEL}, ${A}]\nother: ${MODEL}", MODEL="m", A="a") == {
        "cmd": ["run", "${MODEL}", "a"],
        "other": "m",
    }


def test_a_value_is_a_text_whatever_it_looks_like() -> None:
    assert read("a: ${A}\nb: [${B}]", A="true", B="[1, 2]") == {"a": "true", "b": ["[1, 2]"]}


def test_anchors_and_merges() -> None:
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nlist: [*base, *base]"
    assert read(text) == {
        "base": {"a": 1, "b": 2},
        "other": {"a": 1, "b": 3},
        "list": [{"a": 1, "b": 2}, {"a": 1, "b": 2}],
    }


def test_marks() -> None:
    document = YamlDocument("models.yaml", "a:\n  b:\n    - x\n    - {c: 1,\n       d: 2}\n", {})
    assert document.mark(()) == (1, 1)
    assert document.mark(("a", "b")) == (2, 3)
    assert document.mark(("a", "b", 1, "d")) == (5, 8)
    assert document.mark(("a", "b", 7)) == (2, 3), "what is missing stands where it should be"
    assert YamlDocument("models.yaml", "", {}).mark(("a",)) == (1, 1)


def test_a_mark_inside_of_what_is_merged() -> None:
    document = YamlDocument("models.yaml", "base: &base\n  a: 1\nother:\n  <<: *base\n", {})
    assert document.mark(("other", "a")) == (2, 3)


def test_a_key_that_is_there_twice_is_told_and_the_rest_is_read() -> None:
    document = YamlDocument("models.yaml", "a: 1\nb: 2\na: 3\n", {})
    assert [(each.line, each.text) for each in document.mistakes] == [
        (3, "a is here twice (first in line 1); keep one of them")
    ]
    assert document.data == {"a": 3, "b": 2}


def test_aliases_that_would_fill_the_memory_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "repeat too much" in refused("\n".join(lines))[1]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 5_000, "- " * 100_000, "\n".join(" " * n + "a:" for n in range(900))]
)
def test_depth_is_refused_before_it_can_hurt(text: str) -> None:
    line, said = refused(text)
    assert line >= 1
    assert "nested too deeply" in said or "indented" in said


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\n\tb: 2", 2, "tab"),
        ("a: [1\nb: 2", 2, "bracket is opened in line 1"),
        ("a: {b: 1\n", 2, "bracket is opened in line 1"),
        ('x: 1\na: "b\n', 2, "a quote is opened here"),
        ("a: b: c", 1, "second ': '"),
        ("a: @b", 1, "cannot begin with @"),
        ("a: *b", 1, "alias"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: 1\nb\n", 3, "':' is missing"),
        ("- a\nb: 1", 2, "indentation"),
        ("a: 1\nb: \x01", 2, "control character"),
        ("a: !!python/object:os.system 1", 1, "tag"),
        ("{[1]: 2}", 1, "plain name"),
        ("a: &b [*b]", 1, "inside of what it repeats"),
        ("<<: 1", 1, "takes a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, said: str) -> None:
    found = refused(text)
    assert found[0] == line
    assert said in found[1]
