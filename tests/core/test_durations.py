"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.durations import LONGEST_S, in_units, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7_200),
        ("1d", 86_400),
        ("1h30m", 5_400),
        (" 2H ", 7_200),
        ("0s", 0),
        ("36600d", LONGEST_S),
    ],
)
def test_a_duration_is_numbers_with_their_units(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "each with its unit"),
        ("30", "say the unit: 30s, 30m, 30h or 30d"),
        ("1.5h", "whole numbers"),
        ("-5m", "whole numbers"),
        ("5 m", "whole numbers"),
        ("5min", "whole numbers"),
        ("2w", "whole numbers"),
        ("٣s", "whole numbers"),
        ("1h1h", "once"),
        ("36601d", "at most 100 years"),
        ("9" * 5000 + "s", "whole numbers"),
    ],
)
def test_what_is_none_says_how_to_write_one(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        seconds_of(text)


@given(st.integers(0, LONGEST_S))
def test_what_is_written_can_be_read(seconds: int) -> None:
    assert seconds_of(in_units(seconds)) == seconds
