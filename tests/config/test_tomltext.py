"""TOML as plain data, and the line of each key."""

from __future__ import annotations

import pytest

from keyturn.config.document import Mistake
from keyturn.config.tomltext import TomlDocument

TEXT = '''
[server]
port = 8000   # the usual
note = """
port = 1
[timeouts]
"""
"allowed_hosts" = [
  "a",
]

[discord.webhooks]
qa = "${QA_URL:-none}"
[ timeouts ]
connect = 3
'''


def test_data_and_lines() -> None:
    document = TomlDocument("settings.toml", TEXT, {})
    assert document.data["server"]["port"] == 8000
    assert document.data["discord"]["webhooks"]["qa"] == "none"
    for path, line in {
        ("server",): 2,
        ("server", "port"): 3,
        ("server", "allowed_hosts", 0): 8,
        ("discord", "webhooks", "qa"): 13,
        ("timeouts",): 14,
        ("timeouts", "connect"): 15,
        ("nothing",): 1,
        ("server", "missing"): 2,
    }.items():
        assert document.mark(path).line == line, path


def test_dotted_keys() -> None:
    document = TomlDocument("settings.toml", "server.port = 1\nserver.host = 'x'\n", {})
    assert document.mark(("server",)).line == 1
    assert document.mark(("server", "host")).line == 2


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[a]\nb = 1.2.3\n", 2, "not a value of TOML"),
        ("[a]\nb =\n", 2, "not a value of TOML"),
        ("a = 1\na = 2\n", 2, "here twice"),
        ("[a]\n[a]\n", 2, "here twice"),
        ("[a\n", 1, "is not TOML"),
        ('a = "x\n', 1, "is not TOML"),
        ("a = [1,\n2\n", 2, "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(Mistake) as caught:
        TomlDocument("settings.toml", text, {})
    assert (caught.value.line, said in caught.value.text) == (line, True), caught.value.text
