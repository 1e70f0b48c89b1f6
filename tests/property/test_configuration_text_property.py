"""Any value of any variable in any place of a YAML file: it comes out as it is, and everything stays where it was."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from keyturn.config.variables_in_text import VARIABLE, expand, hide
from keyturn.config.yamltext import YamlDocument

NAMES = st.text(string.ascii_uppercase + "_", min_size=1, max_size=6)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DEFAULTS = st.text(string.ascii_letters + string.digits + " ,:;[]{#&*!|>'\"%@`-?/.=", max_size=12)
REFERENCES = st.one_of(
    NAMES.map(lambda name: f"${{{name}}}"),
    st.tuples(NAMES, DEFAULTS).map(lambda pair: f"${{{pair[0]}:-{pair[1]}}}"),
)
FORMS = ("{}", '"{}"', "'{}'")


def quoted(reference: str, form: str) -> str:
    """*reference* bare, or in quotes that its default does not end."""
    if form == '"{}"':
        reference = reference.replace("\\", "\\\\").replace('"', '\\"')
    elif form == "'{}'":
        reference = reference.replace("'", "''")
    return form.format(reference)


@given(st.lists(st.tuples(REFERENCES, st.sampled_from(FORMS)), min_size=1, max_size=5), st.dictionaries(NAMES, VALUES))
def test_values_never_become_syntax(entries: list[tuple[str, str]], values: dict[str, str]) -> None:
    listed = ", ".join(quoted(reference, form) for reference, form in entries)
    mapped = ", ".join(f"k{at}: {quoted(*entry)}" for at, entry in enumerate(entries))
    lines = "".join(f"  - {quoted(*entry)}\n" for entry in entries)
    text = f"flow: [{listed}]\nmap: {{ {mapped} }}\nblock:\n{lines}after: 1\n"
    expected = [expand(reference, values) for reference, _ in entries]
    document = YamlDocument("models.yaml", text, values)
    assert document.data["flow"] == expected
    assert list(document.data["map"].values()) == expected
    assert document.data["block"] == expected
    assert document.data["after"] == 1


@given(st.lists(st.tuples(REFERENCES, st.sampled_from(FORMS)), min_size=1, max_size=5))
def test_columns_are_those_of_the_file(entries: list[tuple[str, str]]) -> None:
    text = "keys: [" + ", ".join(quoted(*entry) for entry in entries) + "]\n"
    document = YamlDocument("models.yaml", text, {})
    column = len("keys: [") + 1
    for index, entry in enumerate(entries):
        assert document.mark(("keys", index)) == (1, column)
        assert document.raw(("keys", index)) == entry[0]
        column += len(quoted(*entry)) + 2


@given(st.text(st.sampled_from("${}AB:- \n\t'\"#|>[],\ue024\uf8ff"), max_size=60))
def test_hiding_changes_nothing_but_bare_variables(text: str) -> None:
    hidden, table = hide(text)
    assert len(hidden) == len(text)
    assert hidden.translate(table) == text
    inside = {at for found in VARIABLE.finditer(text) for at in range(found.start(), found.end())}
    assert all(hidden[at] == text[at] for at in range(len(text)) if at not in inside)
