"""What tools make of arguments, of bytes and of an environment: the pure parts, by tables and by chance."""

from __future__ import annotations

import json
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.tools.arguments import judge, object_of
from netclawd.adapters.tools.environment import of_command, scrubbed
from netclawd.adapters.tools.page import text_of
from netclawd.adapters.tools.shown import as_name, as_text, is_binary
from tests.waiting import scaled

PARAMETERS = object_of(
    {"text": {"type": "string", "minLength": 1, "maxLength": 8}},
    {
        "count": {"type": "integer", "minimum": 0, "maximum": 10},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "all": {"type": "boolean"},
    },
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": "x"}, None),
        ({"text": "x", "count": None, "share": 1, "all": False}, None),
        ({"text": "x", "count": 10, "share": 0.5}, None),
        ({}, "The argument text is missing."),
        ({"text": ["x"]}, "The argument text must be text."),
        ({"text": "äääää"}, "The argument text has 10 bytes; 8 are allowed."),
        ({"text": "x", "count": "1"}, "The argument count must be a whole number."),
        ({"text": "x", "count": True}, "The argument count must be a whole number."),
        ({"text": "x", "count": 1.0}, "The argument count must be a whole number."),
        ({"text": "x", "count": -1}, "The argument count must be 0 or more."),
        ({"text": "x", "count": 11}, "The argument count must be 10 or less."),
        ({"text": "x", "share": float("nan")}, "The argument share must be 0 or more."),
        ({"text": "x", "all": 1}, "The argument all must be true or false."),
        ({"text": "x", "any": 1}, "There is no argument 'any'; there is text, count, share, all."),
    ],
)
def test_arguments_are_judged_in_words(arguments: dict[str, Any], said: str | None) -> None:
    assert judge(PARAMETERS, arguments) == said


@given(st.binary(max_size=200))
def test_bytes_are_always_shown_as_text_without_control_characters(raw: bytes) -> None:
    text = as_text(raw)
    assert json.loads(json.dumps(text)) == text
    text.encode()
    assert not [c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n\r"]
    is_binary(raw)
    as_name(raw.decode("utf-8", "surrogateescape")).encode()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60), st.data())
def test_text_that_is_cut_anywhere_loses_at_most_the_character_that_is_cut(
    text: str, data: st.DataObject
) -> None:
    raw = text.encode()
    place = data.draw(st.integers(0, len(raw)))
    head, tail = as_text(raw[:place]), as_text(raw[place:])
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(text) - len(head) - len(tail) <= 1


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY",
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "TOKEN",
        "token",
        "NPM_CONFIG__AUTH",
        "PGPASSWORD",
        "MYSQL_PWD",
        "DB_PASS",
        "SSH_AUTH_SOCK",
        "SENTRY_DSN",
        "CREDENTIALS_DIRECTORY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KEY1",
        "NETCLAW_HOME",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS",
        "JOURNAL_STREAM",
        "REFERENCED",
    ],
)
def test_a_variable_that_a_command_must_not_have_is_left_out(name: str) -> None:
    assert scrubbed({name: "x"}, {"REFERENCED"}, []) == {}


@pytest.mark.parametrize(
    "name",
    ["PATH", "LANG", "USER", "KEYBOARD", "AUTHOR", "MONKEY", "PASSENGER", "GOPATH", "TOKENIZERS_X"],
)
def test_a_variable_that_only_looks_a_little_like_it_is_kept(name: str) -> None:
    assert scrubbed({name: "x"}, (), []) == {name: "x"}


@pytest.mark.parametrize(
    "value",
    [
        "hunter22",
        "a hunter22 b",
        "https://me:word@host/",
        "-----BEGIN RSA PRIVATE KEY-----\nx",
        "ab",
    ],
)
def test_a_value_with_a_secret_is_left_out_whatever_its_name(value: str) -> None:
    assert scrubbed({"PLAIN": value}, (), ["hunter22", "ab", " "]) == {}


def test_a_short_secret_takes_nothing_out_that_only_has_it_inside() -> None:
    assert scrubbed({"PLAIN": "cab driver"}, (), ["ab", ""]) == {"PLAIN": "cab driver"}


def test_a_command_has_a_path_and_a_home() -> None:
    found = of_command({}, "/w")
    assert found["HOME"] == "/w"
    assert found["PATH"]
    assert of_command({"PATH": "/x"}, "/w")["PATH"] == "/x"


@given(st.text(max_size=300))
def test_any_text_is_read_as_a_page(html: str) -> None:
    text_of(html, "http://example.com/")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<script>x", ""),
        ("<a href='http://[bad'>link</a>", "link"),
        ("</script></p></a>text", "text"),
        ("a<!-- <b> comment -->b", "ab"),
        ("a<!-- comment", "a"),
        ("<![foo[ x]>y", "y"),
        ("1 < 2 &amp; 3 > 2", "1 < 2 & 3 > 2"),
        ("x&#" + "1" * 5_000 + ";y", "x\ufffdy"),
        ("x&#00000000065;y", "xAy"),
        ("<SCRIPT>if (a<b) x()</SCRIPT>y", "y"),
    ],
)
def test_broken_pages_are_read_as_far_as_they_go(html: str, text: str) -> None:
    assert text_of(html, "http://example.com/") == text


@pytest.mark.parametrize("piece", ["<a ", "<", "<!--", "<![x[", "<a href='", "&", "<script>", "</"])
def test_a_page_of_a_megabyte_of_anything_takes_no_minutes(piece: str) -> None:
    began = time.monotonic()
    text_of(piece * (1_048_576 // len(piece)), "http://example.com/")
    assert time.monotonic() - began < scaled(5)


def test_a_tag_with_a_name_without_end_takes_no_minutes() -> None:
    began = time.monotonic()
    assert text_of("<" + "a" * 60_000, "http://example.com/").startswith("<aaa")
    assert time.monotonic() - began < scaled(1)
