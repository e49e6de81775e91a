"""Whose a delivery is, when it was made, and what the agent is told of it."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netclawd.core.values import replace
from netclawd.core.webhooks import (
    WINDOW_S,
    Delivery,
    check_delivery,
    fill,
    parse_secret,
    parse_template,
)
from netclawd.errors import (
    BadRequestError,
    NetclawError,
    SignatureError,
    TemplateError,
    TimestampError,
)
from tests.webhook_sender import KEY, OTHER_KEY, SECRET, signature

NOW = 1_700_000_000
BODY = b'{"type": "order.paid", "data": {"id": 7}}'


def delivery(id_: str = "msg_1", timestamp: int | str = NOW, body: bytes = BODY) -> Delivery:
    return Delivery(id_, str(timestamp), signature(id_, timestamp, body), body)


def test_the_example_of_the_specification_is_genuine() -> None:
    """Its key, message and signature stand in the tests of its own libraries."""
    example = Delivery(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        b'{"test": 2432232314}',
    )
    key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert check_delivery(example, key, 1614265330.9) == example.id


def test_a_secret_is_read_with_its_prefix_and_without() -> None:
    encoded = SECRET.removeprefix("whsec_")
    for text in (SECRET, encoded, encoded.rstrip("="), f" {SECRET}\r\n"):
        assert parse_secret(text) == KEY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("whsec_not base64", "it is not base64"),
        ("whsec_kein-base64_", "it is not base64"),
        ("whsec_\u00e9", "it is not base64"),
        ("whsec_", "it has 0 bytes, and 24 are the least"),
        (base64.b64encode(b"x" * 23).decode(), "it has 23 bytes"),
        ("whpk_" + "A" * 44, "v1a"),
        ("whsk_" + "A" * 44, "v1a"),
    ],
)
def test_what_is_no_key_is_said_without_showing_it(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_secret(text)
    assert text.removeprefix("whsec_") == "" or text not in str(caught.value)


@pytest.mark.parametrize("key", [OTHER_KEY, KEY[:-1], KEY + b"\0x"])
def test_another_key_makes_it_someone_else_s(key: bytes) -> None:
    with pytest.raises(SignatureError):
        check_delivery(delivery(), key, NOW)


@pytest.mark.parametrize(
    "change", [{"id": "msg_2"}, {"timestamp": str(NOW + 1)}, {"body": BODY + b" "}, {"body": b""}]
)
def test_what_was_changed_on_its_way_is_not_genuine(change: dict[str, Any]) -> None:
    with pytest.raises(SignatureError):
        check_delivery(replace(delivery(), **change), KEY, NOW)


@pytest.mark.parametrize(
    "form",
    [
        "{mine}",
        "v1,AAAA {mine}",
        "{mine} v1,AAAA",
        "v1a,hnO3f9T8 {mine}",
        "v2,xyz v1,{other} {mine}",
        "what {mine} ever,",
        "  {mine}   ",
        "v1,\u00e9 {mine}",
    ],
)
def test_one_signature_of_several_is_enough(form: str) -> None:
    one = delivery()
    text = form.format(mine=one.signature, other=signature("msg_1", NOW, BODY, OTHER_KEY)[3:])
    assert check_delivery(replace(one, signature=text), KEY, NOW) == "msg_1"


def test_a_signature_counts_under_its_own_version_alone() -> None:
    one = delivery()
    assert one.signature is not None
    for version in ("v1a", "v2", "v11"):
        with pytest.raises(SignatureError, match="none of them is of the version v1"):
            check_delivery(
                replace(one, signature=one.signature.replace("v1,", f"{version},")), KEY, NOW
            )


@pytest.mark.parametrize("offset", [-WINDOW_S, -1, 0, 1, WINDOW_S])
def test_the_window_is_five_minutes_either_way(offset: int) -> None:
    assert check_delivery(delivery(timestamp=NOW + offset), KEY, NOW + 0.99) == "msg_1"


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (-WINDOW_S - 1, "is 301 s behind the clock of this host; 300 s are allowed"),
        (WINDOW_S + 1, "is 301 s ahead of the clock of this host"),
        (-NOW, f"is {NOW} s behind"),
    ],
)
def test_an_attempt_of_another_time_names_the_clock(offset: int, words: str) -> None:
    with pytest.raises(TimestampError, match=words):
        check_delivery(delivery(timestamp=NOW + offset), KEY, NOW)


def test_who_can_not_sign_is_not_told_about_the_clock() -> None:
    with pytest.raises(SignatureError):
        check_delivery(delivery(timestamp=1), OTHER_KEY, NOW)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, "no webhook-id"),
        ({"id": " "}, "no webhook-id"),
        ({"id": None, "signature": None}, "no webhook-id and no webhook-signature"),
        ({"timestamp": None}, "no webhook-timestamp"),
        ({"timestamp": "2023-11-14T22:13:20Z"}, "webhook-timestamp can't"),
        ({"timestamp": "1e9"}, "webhook-timestamp can't"),
        ({"timestamp": "-5"}, "webhook-timestamp can't"),
        ({"timestamp": "\u0661"}, "webhook-timestamp can't"),
        ({"timestamp": "9" * 5000}, "webhook-timestamp can't"),
        ({"signature": "AAAA"}, "webhook-signature can't"),
        ({"signature": "v1,"}, "webhook-signature can't"),
        ({"id": "x" * 256}, "webhook-id can't"),
        ({"id": "two words"}, "webhook-id can't"),
        ({"id": 'a.1.{"x":"'}, "webhook-id can't"),
    ],
)
def test_headers_that_are_missing_or_bad_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        check_delivery(replace(delivery(), **change), KEY, NOW)


# -- templates -----------------------------------------------------------------------------------

VALUE: dict[str, Any] = {
    "type": "order.paid",
    "data": {"id": 7, "items": [{"name": "Tea"}, {"name": "Kuchen \u00e4"}], "note": None},
    "ok": True,
    "price": 1.5,
    "list": [1, "two"],
    "7": "seven",
}


def filled(template: str, value: Any = VALUE, limit: int = 10_000) -> str:
    return fill(parse_template(template), json.dumps(value).encode(), limit)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("An order came.", "An order came."),
        ("{{json.type}}", "order.paid"),
        ("{{ json.type }}!", "order.paid!"),
        ("Order {{json.data.id}}: {{json.type}}", "Order 7: order.paid"),
        ("{{json.data.items[1].name}}", "Kuchen \u00e4"),
        ("{{json.data.items.0.name}}", "Tea"),
        ("{{json.data.items[0]}}", '{"name": "Tea"}'),
        ("{{json.data.items[1]}}", '{"name": "Kuchen \u00e4"}'),
        ("{{json.data.note}} {{json.ok}} {{json.price}}", "null true 1.5"),
        ("{{json.list}}", '[1, "two"]'),
        ("{{json.7}}", "seven"),
        ("{ {{json.ok}} }}", "{ true }}"),
        ("{{{json.ok}}}", "{true}"),
    ],
)
def test_a_template_names_values_of_the_body(template: str, text: str) -> None:
    assert filled(template) == text


def test_what_a_value_says_is_no_template() -> None:
    assert filled("{{json.a}}", {"a": "{{json.b}}", "b": "secret"}) == "{{json.b}}"


def test_the_whole_body_stands_as_it_was_sent() -> None:
    body = b'\n{"n": 1e400,  "a": [1,2]}\n'
    assert fill(parse_template("Got {{json}}"), body, 100) == 'Got {"n": 1e400,  "a": [1,2]}'


def test_a_body_need_not_be_an_object() -> None:
    assert filled("{{json[1]}} {{json}}", [1, "two"]) == 'two [1, "two"]'
    assert filled("{{json}}", "hello") == '"hello"'


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("json.user", 'asks for json.user, and json is an object without "user"'),
        ("json.data.who.name", "asks for json.data.who.name, and json.data is an object without"),
        ("json.data.items[2]", "json.data.items is a list of 2 without an entry 2"),
        ("json.data.items.x", "json.data.items is a list of 2 without an entry x"),
        ("json[0]", "json is an object without 0"),
        ("json.type.a", "json.type is a text without an entry a"),
        ("json.data.id.a", "json.data.id is a number without"),
        ("json.ok.a", "json.ok is true or false without"),
        ("json.data.note.a", "json.data.note is null without"),
    ],
)
def test_a_path_that_is_not_there_is_named(path: str, words: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(words)):
        filled(f"{{{{{path}}}}}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{body}}", "{{body}} is not known here"),
        ("{{json.}}", "{{json.}} is not known here"),
        ("{{json..a}}", "{{json..a}} is not known here"),
        ("{{json[a]}}", "{{json[a]}} is not known here"),
        ("{{json[-1]}}", "{{json[-1]}} is not known here"),
        ("{{json.a b}}", "is not known here"),
        ("{{jsonx}}", "is not known here"),
        ("{{}}", "is not known here"),
        ("{{json.a | upper}}", "is not known here"),
        ("a {{json.a", "opens two braces and does not close them"),
        ("a {{json.a} b", "opens two braces"),
    ],
)
def test_what_a_template_can_not_say_is_refused(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_template(template)


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"{", b'{"a": NaN}', b"\xff\xfe{}", b"\x1f\x8b\x08", b"[" * 100_000]
)
def test_a_body_that_is_no_json_is_said(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="not JSON"):
        fill(parse_template("{{json}}"), body, 1_000_000)


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(BadRequestError, match="surrogate"):
        fill(parse_template("{{json.a}}"), b'{"a": "\\ud800"}', 100)


def test_a_template_that_multiplies_the_body_meets_the_limit_before_the_memory_does() -> None:
    body = json.dumps({"a": "x" * 100_000}).encode()
    with pytest.raises(TemplateError, match="more than 1048576 characters"):
        fill(parse_template("{{json.a}}" * 30), body, 1 << 20)


@pytest.mark.parametrize("value", ["", "  \n"])
def test_a_message_that_says_nothing_is_none(value: str) -> None:
    with pytest.raises(TemplateError, match="is empty"):
        filled("{{json.a}}", {"a": value})


def test_every_refusal_says_what_to_do() -> None:
    for change in ({"id": None}, {"timestamp": "x"}, {"body": b"?"}):
        with pytest.raises(NetclawError) as caught:
            check_delivery(replace(delivery(), **change), KEY, NOW)
        assert caught.value.remedy


# -- anything at all -------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab0"), inner),
    max_leaves=8,
)
_PIECES = ["{{json", "}}", "{", ".a", ".b", ".0", "[0]", "[9]", "{{", "{{json}}", " ", "x", "ä"]
_TEMPLATES = st.lists(st.sampled_from(_PIECES), max_size=8).map("".join)


@settings(max_examples=300)
@given(_TEMPLATES, _VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=20))
def test_any_template_and_any_body_make_a_message_or_a_refusal(text: str, body: bytes) -> None:
    try:
        template = parse_template(text)
    except ValueError:
        return
    with contextlib.suppress(BadRequestError, TemplateError):
        assert fill(template, body, 1000).strip()


_HEADERS = st.none() | st.text(max_size=12) | st.sampled_from(["v1,AAAA v1,", "1700000000", "m"])


@settings(max_examples=300)
@given(_HEADERS, _HEADERS, _HEADERS, st.binary(max_size=20))
def test_nothing_is_genuine_by_chance(
    id_: str | None, timestamp: str | None, signature_: str | None, body: bytes
) -> None:
    with pytest.raises((BadRequestError, SignatureError)):
        check_delivery(Delivery(id_, timestamp, signature_, body), KEY, NOW)
