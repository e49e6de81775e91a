"""A setting changes and nothing else does: comments, order, layout and line ends stay."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from netclawd.adapters.toml_edit import with_value, without_value
from netclawd.errors import ConfigNotWrittenError

FILE = """\
# The house's configuration.
[daemon]
# Where the proxy comes in.
listen = ["127.0.0.1:5199"]  # the port
backlog   =  10              # aligned by hand

[drain]   # be quick
timeout_s = 30.0 # seconds

# The end.
"""


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("drain", "timeout_s"), 5, "timeout_s = 5 # seconds"),
        (("daemon", "backlog"), 7, "backlog   =  7              # aligned by hand"),
        (("daemon", "listen"), ["[::1]:1", "a"], 'listen = ["[::1]:1", "a"]  # the port'),
    ],
)
def test_one_line_differs_where_a_value_is_replaced(
    path: tuple[str, ...], value: Any, line: str
) -> None:
    before, after = FILE.split("\n"), with_value(FILE, path, value).split("\n")
    assert len(after) == len(before)
    assert [b for a, b in zip(before, after, strict=True) if a != b] == [line]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        FILE,
        "[sessions]",
        "[sessions]\n\n\n[drain]\ntimeout_s = 3\n",
        "sessions.resume_limit = 1 # dotted\n",
        "sessions = { resume_limit = 1 } # inline\n",
        "[providers.a]\nkind = 'demo'\n[drain]\ntimeout_s = 3\n[providers.b]\nkind = 'demo'\n",
    ],
)
@pytest.mark.parametrize("path", [("sessions", "workers"), ("providers", "my.own", "kind")])
def test_a_new_setting_is_added_and_every_line_stays(text: str, path: tuple[str, ...]) -> None:
    after = with_value(text, path, "demo")
    values: Any = tomllib.loads(after)
    for name in path:
        values = values[name]
    assert values == "demo"
    inline = "{" in text
    kept = [line for line in text.split("\n") if line and not (inline and "sessions" in path)]
    assert [line for line in kept if line not in after.split("\n")] == []


def test_a_setting_is_removed_with_its_line_alone() -> None:
    after = without_value(FILE, ("daemon", "backlog"))
    assert after == FILE.replace("backlog   =  10              # aligned by hand\n", "")


def test_a_table_is_removed_whole() -> None:
    after = without_value(FILE, ("drain",))
    assert tomllib.loads(after) == {"daemon": {"listen": ["127.0.0.1:5199"], "backlog": 10}}
    assert "# Where the proxy comes in." in after


def test_line_ends_of_windows_and_a_byte_order_mark_stay() -> None:
    text = "\ufeff[drain]\r\ntimeout_s = 3 # x\r\n"
    after = with_value(text, ("sessions", "workers"), 3)
    assert after.startswith(text)
    assert after.count("\n") == after.count("\r\n")
    assert tomllib.loads(after.removeprefix("\ufeff"))["sessions"] == {"workers": 3}


def test_a_layout_without_room_is_an_error() -> None:
    with pytest.raises(ConfigNotWrittenError, match="no room"):
        with_value("drain = 3\n", ("drain", "timeout_s"), 5)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_in_the_middle_leaves_the_blank_line_above_the_next(end: str) -> None:
    text = '[a.b]\nx = 1\n\n[c] # c\ny = 2\n[d]\nz = """\n[c] # c\n"""\n'.replace("\n", end)
    edited = with_value(text, ("a", "e", "w"), 3)
    assert edited == text.replace(f"x = 1{end}", f"x = 1{end}{end}[a.e]{end}w = 3{end}")
