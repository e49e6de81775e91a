"""A diff shows what changes, and nothing of a file drives the terminal."""

from __future__ import annotations

import pytest

from netclawd.core.diff import Kind, diff


def texts(old: str, new: str) -> list[str]:
    return [line.text for line in diff(old, new)]


def test_what_is_the_same_shows_nothing() -> None:
    assert texts("a = 1\n", "a = 1\n") == []
    assert texts("", "") == []


def test_a_change_stands_between_what_stays() -> None:
    assert texts("# ours\na = 1\nb = 2\n", "# ours\na = 3\nb = 2\n") == [
        "@@ -1,3 +1,3 @@",
        " # ours",
        "-a = 1",
        "+a = 3",
        " b = 2",
    ]


def test_each_line_says_what_it_is() -> None:
    kinds = [line.kind for line in diff("a\nb\n", "a\nc\n")]
    assert kinds == [Kind.PLACE, Kind.CONTEXT, Kind.REMOVED, Kind.ADDED]


def test_a_line_that_looks_like_the_head_of_a_diff_is_a_line() -> None:
    assert "--- a" in [line.text for line in diff("-- a\n", "b\n")]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x07", "\\x07"),
        ("a\rb", "a\\rb"),
        ("\u202e", "\\u202e"),
        ("a\x85b", "a\\x85b"),
        ("a\x0bb", "a\\x0bb"),
        ("a\tb", "a\tb"),
        ("ä", "ä"),
    ],
)
def test_control_characters_are_escaped(raw: str, shown: str) -> None:
    assert texts("", f"# {raw}\n")[-1] == f"+# {shown}"


def test_the_end_of_a_line_of_windows_is_no_control_character() -> None:
    assert texts("a\r\n", "a\r\nb\r\n")[1:] == [" a", "+b"]
