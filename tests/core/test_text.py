"""Text for supervisors and logs: one line, printable, bounded, whatever comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.text import LIMIT_BYTES, broken, one_line


@pytest.mark.parametrize("text", ["", "generation 7 ready", "Größe 大きさ 🦀", "back\\slash"])
def test_a_plain_text_is_left_as_it_is(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nREADY=1", "a\\nREADY=1"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x00\x1b[2J\x7f", "\\x00\\x1b[2J\\x7f"),
        ("\x85\u2028\u2029", "\\x85\\u2028\\u2029"),
        ("\u202e\u200f", "\\u202e\\u200f"),  # They turn the direction of writing round.
        ("\udcff", "\\udcff"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert one_line("a" * 200) == "a" * 200
    assert one_line("a" * 201) == "a" * 197 + "…"
    assert one_line("abcdef", limit_bytes=5) == "ab…"


def test_a_character_is_never_cut_in_two() -> None:
    for width in range(1, 5):
        cut = one_line("a" * width + "🦀" * 100)
        assert set(cut) == {"a", "🦀", "…"}
        assert len(cut.encode()) <= LIMIT_BYTES


@given(st.text(st.characters(exclude_categories=()), max_size=300), st.integers(3, 300))
def test_the_result_is_one_bounded_printable_line_of_utf8(text: str, limit: int) -> None:
    shown = one_line(text, limit)
    assert len(shown.encode()) <= limit
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_a_text_that_is_shown_again_does_not_change(text: str) -> None:
    once = one_line(text, 2000)
    assert one_line(once, 2000) == once


@given(st.text(alphabet="aé界한🙂\u0301", max_size=40), st.integers(2, 9))
def test_a_broken_line_is_whole_and_no_piece_is_wider_than_the_room(line: str, room: int) -> None:
    pieces = list(broken(line, room))
    assert "".join(pieces) == line
    for piece in pieces:
        assert len(piece) + sum(piece.count(wide) for wide in "界한🙂") <= room
    assert len(pieces) == 1 or all(pieces)
