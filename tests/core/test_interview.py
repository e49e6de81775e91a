"""How answers are read and written, and which settings come of them."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.adapters.settings_file import packaged_schema, read_value
from netclawd.core import schema as schemas
from netclawd.core.interview import (
    Answers,
    Choice,
    changed_settings,
    expected,
    read_answer,
    written,
)

MODES = [Choice("local"), Choice("reverse-proxy")]


def schema(key: str) -> schemas.Schema:
    found = schemas.find(packaged_schema(), key.split("."))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("daemon.listen", "127.0.0.1:1", ["127.0.0.1:1"]),
        ("daemon.listen", " 127.0.0.1:1 ,[::1]:1", ["127.0.0.1:1", "[::1]:1"]),
        ("daemon.listen", "[::1]:1", ["[::1]:1"]),
        ("daemon.listen", '["unix:/a,b", "127.0.0.1:1"]', ["unix:/a,b", "127.0.0.1:1"]),
        ("daemon.trusted_proxies", "none", []),
        ("daemon.trusted_proxies", "None", []),
        ("daemon.trusted_proxies", "", []),
        ("daemon.allow_unauthenticated", "yes", True),
        ("daemon.allow_unauthenticated", "Y", True),
        ("daemon.allow_unauthenticated", "true", True),
        ("daemon.allow_unauthenticated", "no", False),
        ("daemon.allow_unauthenticated", "False", False),
        ("drain.timeout_s", "20", 20),
        ("drain.timeout_s", " 2.5 ", 2.5),
        ("daemon.exposure", "local", "local"),
        ("daemon.exposure", "2", "reverse-proxy"),
    ],
)
def test_an_answer_is_read_as_a_value_of_its_setting(key: str, text: str, value: Any) -> None:
    choices = MODES if key == "daemon.exposure" else []
    found = read_answer(schema(key), choices, text, read_value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("daemon.allow_unauthenticated", ""),
        ("daemon.allow_unauthenticated", "1"),
        ("daemon.allow_unauthenticated", "perhaps"),
        ("drain.timeout_s", ""),
        ("drain.timeout_s", "soon"),
        ("drain.timeout_s", "[1]"),
        ("daemon.exposure", ""),
        ("daemon.exposure", "0"),
        ("daemon.exposure", "3"),
        ("daemon.exposure", "Local"),
        ("daemon.exposure", "²"),
    ],
)
def test_what_can_be_no_answer_is_an_error(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_answer(schema(key), MODES if key == "daemon.exposure" else [], text, read_value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("daemon.listen", ["127.0.0.1:1", "[::1]:1"]),
        ("daemon.listen", ["unix:/a,b"]),
        ("daemon.listen", ["unix:/a ", "unix:/ü"]),
        ("daemon.trusted_proxies", []),
        ("daemon.allowed_hosts", ["None"]),
        ("daemon.allow_unauthenticated", True),
        ("daemon.allow_unauthenticated", False),
        ("drain.timeout_s", 30.0),
        ("drain.timeout_s", 0.25),
        ("daemon.exposure", "local"),
    ],
)
def test_what_stands_in_brackets_is_an_answer_with_the_same_value(key: str, value: Any) -> None:
    choices = MODES if key == "daemon.exposure" else []
    assert read_answer(schema(key), choices, written(value), read_value) == value


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("daemon.exposure", 'one of "local", "reverse-proxy"'),
        ("daemon.allow_unauthenticated", "yes or no"),
        ("drain.timeout_s", "a number from 0.1 to 30"),
        (
            "daemon.trusted_proxies",
            "entries separated by commas, or none; each a text of 1 to 100 characters",
        ),
        ("daemon.listen", "entries separated by commas; each a text of 1 to 300 characters"),
    ],
)
def test_what_an_answer_may_be_is_said(key: str, words: str) -> None:
    assert expected(schema(key), MODES if key == "daemon.exposure" else []) == words


def answers(in_file: dict[str, Any]) -> Answers:
    return Answers(in_file, schemas.with_defaults(packaged_schema(), in_file))


def test_what_was_answered_is_over_the_file_and_the_file_over_the_default() -> None:
    found = answers({"drain": {"timeout_s": 20}})
    assert (found.value("drain.timeout_s"), found.value("drain.new_work")) == (20, "defer")
    later = found.answered(("drain", "timeout_s"), 5)
    assert (later.value("drain.timeout_s"), later.before("drain.timeout_s")) == (5, 20)
    assert found.value("drain.timeout_s") == 20, "answers are values"


def test_an_answer_that_was_about_another_value_is_forgotten() -> None:
    mode, consent = ("daemon", "exposure"), ("daemon", "allow_unauthenticated")
    found = answers({}).answered(mode, "tailscale-serve", [consent]).answered(consent, True)
    assert found.answered(mode, "tailscale-serve", [consent]).given[consent] is True
    assert consent not in found.answered(mode, "tailscale-funnel", [consent]).given


def test_only_what_differs_is_written_into_a_file_that_says_something() -> None:
    path, other = ("drain", "timeout_s"), ("drain", "new_work")
    found = answers({"drain": {"timeout_s": 20}})
    assert changed_settings(found, {path: 20.0, other: "defer"}) == {}
    assert changed_settings(found, {path: 30, other: "defer"}) == {path: 30}


def test_what_the_file_has_in_a_value_s_place_is_replaced() -> None:
    """It was taken for its default, so that there is something to keep."""
    found = answers({"drain": {"timeout_s": "soon"}})
    assert changed_settings(found, {("drain", "timeout_s"): 30}) == {("drain", "timeout_s"): 30}
