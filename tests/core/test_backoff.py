"""The pause before each start under s6: how it grows, when it begins anew, and what records are believed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core import budgets
from netclawd.core.backoff import (
    Exit,
    Start,
    Wait,
    judge_wait,
    read_exit,
    read_start,
    read_uptime,
    write_start,
)

FILE = "1:2:3"
OTHER = "1:2:4"
AT = 1000.0


def ended(ran_s: float, code: int = 78) -> Exit:
    return Exit(code, 0, AT + ran_s)


@pytest.mark.parametrize(
    ("delay_s", "ran_s", "seen", "next_s"),
    [
        (0.0, 0.5, FILE, 2.0),
        (2.0, 0.5, FILE, 4.0),
        (4.0, 29.9, FILE, 8.0),
        (32.0, 0.5, FILE, 60.0),
        (60.0, 0.5, FILE, 60.0),
        (60.0, 30.0, FILE, 2.0),
        (60.0, 0.5, OTHER, 2.0),
    ],
)
def test_the_next_pause(delay_s: float, ran_s: float, seen: str, next_s: float) -> None:
    end = ended(ran_s)
    assert judge_wait(Start(AT, delay_s, FILE), end, end.at, seen) == Wait(next_s, next_s)


@pytest.mark.parametrize("code", [0, 1, 75, 78, 256])
def test_every_exit_is_followed_by_a_pause(code: int) -> None:
    end = Exit(code, 9, AT)
    assert judge_wait(None, end, AT, FILE).left_s == budgets.RETRY_FIRST_S


def test_the_first_start_is_at_once() -> None:
    assert judge_wait(None, None, AT, FILE) == Wait(0.0, 0.0)


def test_a_crash_loop_doubles_up_to_the_longest_and_stays_there() -> None:
    delays, start, now = [], Start(0.0, 0.0, FILE), 0.0
    for _ in range(8):
        now += 0.5
        wait = judge_wait(start, Exit(78, 0, now), now, FILE)
        now += wait.left_s
        start = Start(now, wait.delay_s, FILE)
        delays.append(wait.delay_s)
    assert delays == [2, 4, 8, 16, 32, 60, 60, 60]


def test_the_pause_is_counted_from_the_exit() -> None:
    end = ended(0.5)
    start = Start(AT, 4.0, FILE)
    assert judge_wait(start, end, end.at + 3.0, FILE) == Wait(8.0, 5.0)
    assert judge_wait(start, end, end.at + 9.0, FILE) == Wait(8.0, 0.0)


def test_an_exit_of_before_a_boot_is_none() -> None:
    assert judge_wait(Start(AT, 60.0, FILE), ended(0.5), 12.0, FILE) == Wait(0.0, 0.0)


@given(
    st.floats(0, 1e6),
    st.floats(0, 60),
    st.floats(-10, 1e5),
    st.floats(-100, 1e5),
    st.sampled_from([FILE, OTHER]),
)
def test_no_pause_is_longer_than_the_longest(
    at: float, delay_s: float, ran_s: float, later_s: float, seen: str
) -> None:
    end = Exit(1, 0, at + ran_s)
    wait = judge_wait(Start(at, delay_s, FILE), end, end.at + later_s, seen)
    assert 0.0 <= wait.left_s <= wait.delay_s + 1e-6 <= budgets.RETRY_LONGEST_S + 1e-6


# -- the records -----------------------------------------------------------------------------------


def test_a_start_is_read_as_it_was_written() -> None:
    start = Start(13100.59, 4.0, "65024:2369734:61:1795880358447442262:1795880392838467202")
    assert read_start(write_start(start)) == start


def test_an_exit_is_read_as_finish_writes_it() -> None:
    assert read_exit("78 0\n13154.40 11290.24\n") == Exit(78, 0, 13154.40)
    assert read_uptime("13154.40 11290.24\n") == 13154.40


@pytest.mark.parametrize(
    "text", ["", "\n", "78\n", "78 0\n", "78 0\n\n", "x y\n1 2\n", "78 0 1\n1 2\n", "1 2 3"]
)
def test_a_record_of_an_exit_that_was_cut_off_is_none(text: str) -> None:
    assert read_exit(text) is None


@pytest.mark.parametrize("text", ["", "1", "1 2", "x 2 3", "1 x 3", "\n\n"])
def test_a_record_of_a_start_that_was_cut_off_is_none(text: str) -> None:
    assert read_start(text) is None


def test_no_text_is_more_than_unreadable() -> None:
    for words in itertools.product(["", "-", "nan", "1"], repeat=3):
        read_start(" ".join(words))
        read_exit("\n".join(words))


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        (Exit(0, 0, AT), 0, "exited with 0 (stopped as asked)"),
        (Exit(1, 0, AT), 1, "exited with 1"),
        (Exit(75, 0, AT), 75, "exited with 75 (a temporary failure)"),
        (Exit(78, 0, AT), 78, "exited with 78 (the configuration is wrong)"),
        (Exit(256, 9, AT), 137, "was ended by signal 9"),
    ],
)
def test_how_it_ended_as_a_shell_and_as_a_person_says_it(
    end: Exit, status: int, words: str
) -> None:
    assert (end.status, end.words) == (status, words)
