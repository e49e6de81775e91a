"""How the configuration is spoken about: values, keys, lines, origins, the nearest known key."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.settings_file import read_value
from netclawd.core.origins import locate_keys, parse_key
from netclawd.core.overrides import assigned, override_names, variable_for
from netclawd.core.violations import joined, nearest
from netclawd.core.words import dotted, shown
from tests.core.test_settings import SCHEMA


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", '"text"'),
        ('a "quoted"\nline', '"a \\"quoted\\"\\nline"'),
        ("schön", '"schön"'),
        ("\x1b[31m\u202e", '"\\u001b[31m\\u202e"'),
        ("x" * 61, '"' + "x" * 60 + '…"'),
        (True, "true"),
        (30.0, "30"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        pytest.param(10**5000, "a number of more than 64 bits", id="huge"),
        ([], "an empty list"),
        ([1], "a list"),
        ({}, "a table"),
        (datetime.date(2024, 1, 1), "a date or time"),
    ],
)
def test_a_value_is_shown(value: Any, words: str) -> None:
    assert shown(value) == words


@given(st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.booleans())
def test_whatever_is_shown_fits_on_a_line(value: Any) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) < 1000


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (("daemon", "listen", 0), "daemon.listen[0]"),
        (("a b", "c-d_e"), '"a b".c-d_e'),
        (("", "é"), '""."é"'),
        ((), ""),
    ],
)
def test_a_key_is_written_as_toml_does(path: tuple[str | int, ...], key: str) -> None:
    assert dotted(path) == key


@pytest.mark.parametrize(
    ("path", "near"),
    [
        (("daemn",), "daemon"),
        (("Daemon",), "daemon"),
        (("daemon", "lissten"), "daemon.listen"),
        (("daemon", "LISTEN"), "daemon.listen"),
        (("listen",), "daemon.listen"),
        (("sessions", "model_timeout_s"), "drain.model_timeout_s"),
        (("providers", "mine", "knd"), "providers.mine.kind"),
        (("daemon", "zzz"), None),
        (("zzz", "yyy"), None),
    ],
)
def test_the_nearest_known_key_is_found(path: tuple[str, ...], near: str | None) -> None:
    assert nearest(SCHEMA, path) == near


TEXT = '''\
# listen = "a comment"
top = 1
[daemon]  # a table
listen = [
  "127.0.0.1:1",
]
"quoted key" = 1
a.b = 2
[ providers . "my own" ]
text = """
hidden = 1
[hidden]
"""
one_line = """x = 1"""
after = 1
[[array]]
listen = 2
'''


def test_keys_are_found_on_their_lines() -> None:
    assert locate_keys(TEXT) == {
        ("top",): 2,
        ("daemon",): 3,
        ("daemon", "listen"): 4,
        ("daemon", "quoted key"): 7,
        ("daemon", "a", "b"): 8,
        ("providers", "my own"): 9,
        ("providers", "my own", "text"): 10,
        ("providers", "my own", "one_line"): 14,
        ("providers", "my own", "after"): 15,
        ("array",): 16,
        ("array", "listen"): 17,
    }


@given(st.text(alphabet="ab=.[]\"'\n #"))
def test_any_text_has_lines(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in locate_keys(text).values())


def test_overrides_are_the_variables_with_two_underscores() -> None:
    environ = dict.fromkeys(
        ["NETCLAW_B__A", "NETCLAW_A__B", "NETCLAW_HOME", "X__Y", "NETCLAW_"], ""
    )
    assert override_names(environ) == ("NETCLAW_A__B", "NETCLAW_B__A")
    assert variable_for(("providers", "my-own", "api_key")) == "NETCLAW_PROVIDERS__MY_OWN__API_KEY"


def test_a_score_of_sentences_is_listed_and_the_rest_counted() -> None:
    assert joined(["One.", "Two."]) == "One. Two."
    assert joined(["x."] * 20).count("x.") == 20
    assert joined(["x."] * 23).endswith("x. 3 more.")


# -- keys and values of a command line -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("drain.timeout_s", ("drain", "timeout_s")),
        ("daemon . listen", ("daemon", "listen")),
        ('providers."my.own".kind', ("providers", "my.own", "kind")),
        ("providers.'a b'.kind", ("providers", "a b", "kind")),
        ("drain", ("drain",)),
        ("", None),
        ("drain.", None),
        ("drain..x", None),
        ("a = 1", None),
        ("a\nb", None),
        ("a\n", None),
        ("[a]", None),
    ],
)
def test_a_key_is_read_as_toml_writes_it(text: str, path: tuple[str, ...] | None) -> None:
    assert parse_key(text) == path


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ({"type": "string"}, "plain words", "plain words"),
        ({"type": "string"}, '"quoted"', "quoted"),
        ({"type": "string"}, "5", "5"),
        ({"type": "number"}, "2.5", 2.5),
        ({"type": "integer"}, "5", 5),
        ({"type": "boolean"}, "true", True),
        ({"type": "array"}, '["a"]', ["a"]),
    ],
)
def test_a_value_is_toml_or_a_text_where_one_is_expected(
    setting: dict[str, str], text: str, value: object
) -> None:
    assert assigned(setting, text, read_value) == value


@pytest.mark.parametrize("text", ["soon", "", "1\nb = 2", "\udcff"])
def test_what_is_neither_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are the TOML reader's
        assigned({"type": "number"}, text, read_value)
