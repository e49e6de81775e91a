"""The redactor leaves nothing of a secret, and everything else."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.redact import REDACTED, Redactor


@pytest.mark.parametrize(
    ("secrets", "text", "expected"),
    [
        ([], "nothing to hide", "nothing to hide"),
        (["s3cret"], "key=s3cret, again s3cret", f"key={REDACTED}, again {REDACTED}"),
        (["abcd", "abcdef"], "abcdef abcd", f"{REDACTED} {REDACTED}"),
        (["a.c+"], "a.c+ abc+", f"{REDACTED} abc+"),
        (['a"quote'], '{"k": "a\\"quote"}', f'{{"k": "{REDACTED}"}}'),
        (["a/b c"], "?key=a%2Fb%20c", f"?key={REDACTED}"),
        (["schlüssel"], '"schl\\u00fcssel"', f'"{REDACTED}"'),
        (["first line\nsecond line"], "only the second line leaked", f"only the {REDACTED} leaked"),
        (["tab\there"], "KeyError: 'tab\\there'", f"KeyError: '{REDACTED}'"),
        (["a"], "a banana: a", f"{REDACTED} banana: {REDACTED}"),
        (["42"], "port 4200, pin 42", f"port 4200, pin {REDACTED}"),
        ([""], "an empty secret hides nothing", "an empty secret hides nothing"),
        ([" "], "nor does a blank one", "nor does a blank one"),
        (["redacted"], "redacted", REDACTED),
    ],
)
def test_a_text_is_redacted(secrets: list[str], text: str, expected: str) -> None:
    assert Redactor(secrets).text(text) == expected


def test_nested_values_are_redacted_and_others_kept() -> None:
    value = {
        "s3cret": 1,
        "list": ["s3cret", None, True, 2.5],
        "pair": ("x", {"deep": b"a s3cret \xff"}),
    }
    assert Redactor(["s3cret"]).value(value) == {
        REDACTED: 1,
        "list": [REDACTED, None, True, 2.5],
        "pair": ("x", {"deep": f"a {REDACTED} ".encode() + b"\xff"}),
    }


def test_the_redactor_does_not_show_what_it_hides() -> None:
    assert "s3cret" not in repr(Redactor(["s3cret"]))


@given(
    st.lists(st.text(min_size=4).filter(str.strip), min_size=1, max_size=5),
    st.text(alphabet=" .,:"),
    st.sampled_from([str, json.dumps, repr, lambda text: quote(text, safe="")]),
)
def test_no_form_of_a_secret_survives(secrets: list[str], around: str, form: object) -> None:
    redactor = Redactor(secrets)
    assert callable(form)
    for secret in secrets:
        rest = redactor.text(f"{around}{form(secret)}{around}").replace(REDACTED, "")
        assert secret not in rest or secret in around * 2
