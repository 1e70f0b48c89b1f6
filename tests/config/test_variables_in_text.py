"""`${NAME}` in files: bare or quoted, with a default or without, and never syntax."""

from __future__ import annotations

import pytest

from keyturn.config.variables_in_text import expand, hide, only_variable, unset_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("${B:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY}", ""),
        ("${A:-two}", "one"),
        ("${B:-}", ""),
        ("${B:-http://host:1/v1?a=b, c}", "http://host:1/v1?a=b, c"),
        ("$A ${} ${1A} ${A", "$A ${} ${1A} ${A"),
    ],
)
def test_CFG_07_env_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "one", "EMPTY": ""}) == expected


def test_CFG_07_an_unset_variable_without_default_stays_as_it_is() -> None:
    assert expand("${NOBODY}", {}) == "${NOBODY}"
    assert unset_in("x ${NOBODY} y") == "NOBODY"
    assert unset_in("x") == ""


def test_a_value_is_not_expanded_again() -> None:
    assert expand("${A}", {"A": "${B}", "B": "two"}) == "${B}"


def test_only_variable() -> None:
    assert only_variable("${A}") == "A"
    assert only_variable("${A:-x}") == "A"
    assert only_variable("x${A}") == ""


@pytest.mark.parametrize(
    "text",
    [
        '"${A}"',
        "'${A}'",
        "# ${A}",
        "a: 1 # ${A}",
        "a: |\n  'b ${A}\n  c",
        'a: [1, "x${A:-}", 2]',
    ],
)
def test_what_is_quoted_a_comment_or_block_text_is_left_alone(text: str) -> None:
    assert hide(text)[0] == text


@pytest.mark.parametrize(
    "text",
    ["[${A}, ${B}]", "{a: ${A}}", "a: ${A:-x: y}", "it's ${A}", "a#b ${A}", "- ${A}", "a: |\n  b\nc: ${A}"],
)
def test_what_is_bare_is_hidden_sign_for_sign(text: str) -> None:
    hidden, table = hide(text)
    assert "${" not in hidden
    assert len(hidden) == len(text)
    assert hidden.translate(table) == text


def test_private_signs_of_the_file_itself_are_kept() -> None:
    text = "\ue024 [${A}] \uf8ff"
    hidden, table = hide(text)
    assert "${" not in hidden
    assert hidden.translate(table) == text
