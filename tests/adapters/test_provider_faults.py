"""What model servers do wrong: each gets its slug, and nothing is tried for ever."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.providers import call
from netclawd.adapters.providers.refusals import Server
from netclawd.adapters.providers.retry_after import read_retry_after
from netclawd.core.session import ModelRequest
from netclawd.errors import ConfigMeaningError
from tests.adapters.model_servers import HELLO, KEY, KINDS, Asking, Model, full_listener, model
from tests.counterparts import (
    CERTIFICATE,
    Answer,
    Ending,
    Events,
    Hangup,
    Raw,
    Reply,
    Silent,
    Status,
    redirect,
)

RETRIES = 4


@pytest.fixture(params=KINDS)
def asked(request: pytest.FixtureRequest) -> Iterator[Model]:
    with model(request.param) as made:
        yield made


# -- answers that are no reply


@pytest.mark.parametrize(
    ("status", "slug", "times"),
    [
        (400, "provider-refused", 1),
        (401, "provider-unauthorized", 1),
        (402, "provider-refused", 1),
        (403, "provider-unauthorized", 1),
        (404, "provider-not-found", 1),
        (408, "provider-refused", 1 + RETRIES),
        (413, "context-overflow", 1),
        (418, "provider-refused", 1),
        (429, "provider-busy", 1 + RETRIES),
        (500, "provider-unavailable", 1 + RETRIES),
        (503, "provider-unavailable", 1 + RETRIES),
        (529, "provider-busy", 1 + RETRIES),
        (599, "provider-unavailable", 1 + RETRIES),
    ],
)
def test_each_status_has_its_slug_and_its_tries(
    asked: Model, status: int, slug: str, times: int
) -> None:
    asked.server.script(*[Status(status, "Because\nof\x1b this.")] * (times + 1))
    error = asked.fail()
    assert error.slug == slug
    assert f"({status}): Because of this" in error.what or slug == "context-overflow"
    assert "providers.main" in error.remedy or status >= 500
    assert len(asked.server.asked) == times
    assert asked.said == []


@pytest.mark.parametrize(
    "answer",
    [
        Raw(body=b"<!doctype html><title>Welcome</title>"),
        Raw(body=b"{}", content_type="application/json"),
        Raw(body=b"[]", content_type="application/json"),
        Raw(body=b'{"choices": ', content_type="application/json"),
        Raw(body=b"\xff\xfe\x00", content_type="application/json"),
        Raw(body=b"Hello!", content_type="text/plain"),
        Raw(body=b"", content_type="text/plain"),
        Raw(body=b"GIF89a", content_type="image/gif"),
        Raw(
            body=b"\x1f\x8b", content_type="text/event-stream", headers={"Content-Encoding": "gzip"}
        ),
        Raw(status=204),
        Events(items=[b"data: {broken\n\n"]),
        Events(items=[b"data: 7\n\n"]),
        Events(items=[b"data: " + b"x" * 1_000_000 + b"\n"] * 9),
    ],
)
def test_what_is_no_reply_is_told_at_once(asked: Model, answer: Answer) -> None:
    asked.server.script(answer)
    error = asked.fail()
    assert error.slug == "provider-bad-reply"
    assert "providers.main.base_url" in error.remedy
    assert len(asked.server.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(asked: Model, status: int) -> None:
    with model(asked.kind) as other:
        asked.server.script(redirect(f"{other.server.base_url}/x?a={KEY}", status))
        error = asked.fail()
        assert error.slug == "provider-redirected"
        assert f"127.0.0.1:{other.server.port}" in error.what
        assert KEY not in str(error)
        assert other.server.requests == []


def test_a_page_of_html_is_not_quoted(asked: Model) -> None:
    page = Raw(status=502, body=b"<html><h1>Bad Gateway</h1></html>")
    asked.server.script(*[page] * (1 + RETRIES))
    error = asked.fail()
    assert error.slug == "provider-unavailable"
    assert "html" not in error.what


def test_what_a_server_says_is_quoted_in_bounds(asked: Model) -> None:
    asked.server.script(Status(400, "no " * 100_000))
    assert len(asked.fail().what) < 500


@pytest.mark.parametrize(
    "body",
    [
        {"error": "model 'x' is busy being pulled"},
        {"object": "error", "message": "busy being pulled", "code": 400},
        {"detail": [{"loc": ["body"], "msg": "busy being pulled"}]},
        {"error": {"message": "busy being pulled", "type": "x"}},
    ],
)
def test_a_server_is_quoted_wherever_it_says_why(asked: Model, body: object) -> None:
    asked.server.script(Raw(400, json.dumps(body).encode(), "application/json"))
    assert "busy being pulled" in asked.fail().what


@pytest.mark.parametrize(
    "answer",
    [
        Status(400, "This model's maximum context length is 4096 tokens.", code="context_length_exceeded"),
        Status(400, "This model's maximum context length is 4096 tokens. However, you requested 9000"),
        Status(400, "The decoder prompt (length 5016) is longer than the maximum model length of 4096."),
        Status(400, "the request exceeds the available context size. try increasing it"),
        Status(500, "the request exceeds it", "exceed_context_size_error"),
        Status(400, "prompt is too long: 208310 tokens > 200000 maximum"),
        Status(400, "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000"),
        Status(400, "prompt too long; exceeded max context length by 12 tokens"),
        Status(413, "Request exceeds the maximum size"),
    ],
)  # fmt: skip
def test_a_conversation_that_is_too_long_is_told_by_its_own_slug(
    asked: Model, answer: Answer
) -> None:
    asked.server.script(answer)
    error = asked.fail()
    assert error.slug == "context-overflow"
    assert "providers.main.context_tokens" in error.remedy
    assert len(asked.server.asked) == 1


def test_an_error_in_a_stream_is_an_error(asked: Model) -> None:
    asked.server.script(*[Reply("Half of it", ending=Ending.ERROR, after=2)] * 2)
    error = asked.fail()
    assert error.slug in ("provider-unavailable", "provider-busy")
    assert asked.said == ["Half", " of"]
    assert len(asked.server.asked) == 1, "tried again after the first token"


def test_an_error_before_the_first_token_is_tried_again(asked: Model) -> None:
    asked.server.script(Reply(("x",), ending=Ending.ERROR, after=0), Reply("Better."))
    assert asked.ask().text == "Better."


# -- trying again


def test_a_server_that_is_busy_for_a_while_is_asked_until_it_answers(asked: Model) -> None:
    asked.server.script(Status(429), Status(503), Status(529), Reply("At last."))
    assert asked.ask().text == "At last."
    first, second, third = asked.cancel.pauses
    assert 0.25 <= first <= 0.5
    assert 0.5 <= second <= 1.0
    assert 1.0 <= third <= 2.0


def test_retry_after_is_obeyed_as_seconds_and_as_a_date(asked: Model) -> None:
    later = {"Retry-After": formatdate(1_000_000_030, usegmt=True)}
    now = {"Date": formatdate(1_000_000_000, usegmt=True)}
    asked.server.script(
        Status(429, headers={"Retry-After": "7"}), Status(503, headers={**later, **now})
    )
    asked.ask()
    assert [int(pause) for pause in asked.cancel.pauses] == [7, 30]


@pytest.mark.parametrize("seconds", [61, 3600])
def test_a_server_that_asks_for_more_than_a_minute_is_not_waited_for(
    asked: Model, seconds: int
) -> None:
    asked.server.script(Status(429, headers={"Retry-After": str(seconds)}))
    error = asked.fail()
    assert error.slug == "provider-busy"
    assert f"{seconds} s" in error.what
    assert asked.cancel.pauses == []


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "٣", "Thu, 99 Foo", "9" * 400])
def test_a_retry_after_without_sense_is_none(value: str) -> None:
    assert read_retry_after({"Retry-After": value}) is None


def test_a_key_without_credit_is_not_tried_again(asked: Model) -> None:
    asked.server.script(Status(429, "You exceeded your quota", "insufficient_quota"))
    assert "no credit" in asked.fail().what
    assert len(asked.server.asked) == 1


def test_no_pause_reaches_beyond_the_total_time(asked: Model) -> None:
    with model(asked.kind, total_timeout_s=5.0) as hurried:
        hurried.server.script(Status(429, headers={"Retry-After": "6"}))
        assert hurried.fail().slug == "provider-busy"
        assert hurried.cancel.pauses == []


def test_retries_may_be_switched_off(asked: Model) -> None:
    with model(asked.kind, retries=0) as once:
        once.server.script(Status(500))
        assert once.fail().slug == "provider-unavailable"


def test_a_kept_connection_that_was_closed_costs_no_try(asked: Model) -> None:
    asked.ask()
    asked.server.drop_idle()
    assert asked.ask().text == "You said: hello"
    asked.server.script(Hangup(), Reply("Here."))
    assert asked.ask().text == "Here."
    assert asked.cancel.pauses == []


# -- no answer, or half of one


def test_a_server_that_is_not_there_is_unavailable(asked: Model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with model(asked.kind, base_url=f"http://127.0.0.1:{port}/v1") as lost:
        error = lost.fail()
        assert error.slug == "provider-unavailable"
        assert "Connection refused" in error.what
        assert len(lost.cancel.pauses) == RETRIES


def test_a_name_that_nobody_knows_is_unavailable(
    asked: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with model(asked.kind, base_url="http://models.invalid/v1", retries=0) as lost:
        error = lost.fail()
    assert error.slug == "provider-unavailable"
    assert "name can't be resolved (Name or service not known)" in error.what


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/v1", "http://[::1/v1", "http:///v1"])
def test_an_address_that_cannot_be_used_is_a_wrong_configuration(url: str) -> None:
    with (
        pytest.raises(ConfigMeaningError, match=r"providers\.main\.base_url"),
        model("openai", base_url=url),
    ):
        pass


def test_a_server_that_takes_no_connection_is_given_up_at_the_deadline(asked: Model) -> None:
    with full_listener() as port:
        url = f"http://127.0.0.1:{port}"
        with model(asked.kind, base_url=url, connect_timeout_s=0.1, retries=1) as lost:
            error = lost.fail()
    assert error.slug == "provider-timeout"
    assert "providers.main.connect_timeout_s" in error.remedy
    assert len(lost.cancel.pauses) == 1


def test_each_timeout_is_told_by_its_setting(asked: Model) -> None:
    pages = {
        "first_byte_timeout_s": Silent(),
        "idle_timeout_s": Reply("Half of it", ending=Ending.STALL, after=2),
        "total_timeout_s": Reply("on and on ", ending=Ending.ENDLESS, pace_s=0.01),
    }
    for setting, answer in pages.items():
        short: dict[str, Any] = {setting: 0.15}
        with model(asked.kind, **short) as slow:
            slow.server.script(answer)
            error = slow.fail()
            assert error.slug == "provider-timeout"
            assert f"providers.main.{setting}" in error.remedy
            assert len(slow.server.asked) == 1


def test_a_head_that_comes_in_drops_ends_at_the_deadline(asked: Model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with model(asked.kind, base_url=url, total_timeout_s=0.3) as slow:
            asking = Asking(slow)
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                with contextlib.suppress(OSError):
                    while not asking.cancel.wait(0.01):
                        connection.sendall(b"X: y\r\n")
            outcome = asking.wait()
    assert getattr(outcome, "slug", "") == "provider-timeout"


def test_thoughts_and_pings_are_signs_of_life(asked: Model) -> None:
    pings: list[bytes | float] = [b": ping\n\n", 0.05]
    pings *= 12
    with model(asked.kind, idle_timeout_s=0.3, first_byte_timeout_s=0.3) as patient:
        patient.server.script(
            Reply("Four.", reasoning=" ".join(["hm"] * 12), pace_s=0.05),
            Events(items=[*pings, *_whole_reply(asked.kind)]),
        )
        assert patient.ask().text == "Four."
        assert patient.ask().text == "Hi"


def _whole_reply(kind: str) -> list[bytes | float]:
    if kind == "openai":
        return [
            b'data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\n',
            b"data: [DONE]\n\n",
        ]
    return [
        b'data: {"type": "content_block_start", "index": 0, "content_block": '
        b'{"type": "text", "text": "Hi"}}\n\n',
        b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}\n\n',
        b'data: {"type": "message_stop"}\n\n',
    ]


def test_a_reply_without_end_ends_at_its_size(
    asked: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netclawd.adapters.providers.reply.LIMIT_CHARACTERS", 2_000_000)
    asked.server.script(Reply(["x" * 100_000], ending=Ending.ENDLESS))
    assert asked.fail().slug == "provider-bad-reply"
    monkeypatch.setattr(call, "LIMIT_BYTES", 2_000_000)
    asked.server.script(Reply(["", ""], ending=Ending.ENDLESS, pings=True))
    assert asked.fail().slug == "provider-bad-reply"


def test_a_server_that_goes_on_behind_the_marker_is_not_waited_for(asked: Model) -> None:
    asked.server.script(Events(items=[*_whole_reply(asked.kind), 30.0]))
    assert asked.ask().text == "Hi"
    assert asked.ask().text == "You said: hello"
    assert asked.server.connections == 2


def test_half_a_body_of_known_length_is_cut(asked: Model) -> None:
    asked.server.script(Reply("x", unstreamed=True))
    asked.ask()
    body = json.dumps(asked.server.whole(Reply("x"), asked.server.asked[0])).encode()
    asked.server.script(*[Raw(200, body, "application/json", missing_bytes=9)] * (1 + RETRIES))
    assert asked.fail().slug in ("provider-cut", "provider-bad-reply")


# -- fields that a server refuses


@pytest.mark.parametrize(
    ("message", "code", "before", "after"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "unsupported_parameter",
            "max_tokens",
            "max_completion_tokens",
        ),
        ("Unrecognized request argument supplied: stream_options", None, "stream_options", None),
        (
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "unsupported_value",
            "temperature",
            None,
        ),
    ],
)
def test_a_field_that_is_refused_is_left_out_from_then_on(
    message: str, code: str | None, before: str, after: str | None
) -> None:
    request = ModelRequest(HELLO.messages, options={"temperature": 0.2})
    with model("openai") as asked:
        asked.server.script(Status(400, message, "invalid_request_error", code))
        asked.ask(request)
        asked.ask(request)
        first, second, third = (sent.body for sent in asked.server.asked)
        assert before in first
        assert before not in second
        assert after is None or second[after] == first[before]
        assert third == second
        assert asked.cancel.pauses == []


def test_a_field_that_is_refused_for_ever_ends_the_call() -> None:
    with model("openai") as asked:
        refusal = Status(400, "max_tokens, max_completion_tokens, stream_options: no!")
        asked.server.script(*[refusal] * 9)
        assert asked.fail().slug == "provider-refused"
        assert len(asked.server.asked) <= 3


# -- TLS and proxies


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_nobody_trusts_ends_the_call(kind: str) -> None:
    with model(kind, server={"tls": True}) as asked:
        error = asked.fail()
        assert error.slug == "provider-unavailable"
        assert "certificate is not trusted" in error.what
        assert asked.server.requests == []
        assert asked.cancel.pauses == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_authority_that_the_environment_names_is_trusted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with model(kind, server={"tls": True}) as asked:
        for _ in range(2):
            assert asked.ask().text == "You said: hello"
        assert asked.server.connections == 1


def test_a_proxy_is_used_but_for_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with model("openai") as proxy, model("openai", base_url="http://models.invalid/v1") as far:
        monkeypatch.setenv("HTTP_PROXY", proxy.server.root)
        monkeypatch.setenv("http_proxy", proxy.server.root)
        assert far.ask().text == "You said: hello"
        (sent,) = proxy.server.asked
        assert sent.path == "http://models.invalid/v1/chat/completions"
        with model("openai") as near:
            near.ask()
        assert len(proxy.server.requests) == 1
        monkeypatch.setenv("NO_PROXY", "models.invalid")
        monkeypatch.setenv("no_proxy", "models.invalid")
        assert far.fail().slug == "provider-unavailable"
        assert len(proxy.server.requests) == 1


# -- secrets


@given(st.text(), st.integers(0, len(KEY)), st.integers(0, len(KEY)), st.text())
def test_no_secret_is_in_what_a_server_is_quoted_with(
    before: str, start: int, end: int, after: str
) -> None:
    server = Server("main", "http://127.0.0.1:1", "m", KEY)
    for said in (before + KEY[start:end] + after, json.dumps({"error": {"message": before + KEY}})):
        for status in (400, 401, 429):
            text = str(server.judge(status, said).error)
            assert not any(KEY[n : n + 8] in text for n in range(len(KEY) - 7))
            assert text.isprintable()


def test_a_server_that_repeats_all_that_it_was_sent_tells_no_secret(asked: Model) -> None:
    def repeat(sent: object) -> Answer:
        words = json.dumps({"message": str(vars(sent))}).encode()
        return Raw(statuses.pop(), words, "application/json", {"Location": f"http://{KEY}/"})

    asked.server._answer = repeat
    for status in (400, 401, 403, 404, 307, 418, 500):
        statuses = [status] * (1 + RETRIES)
        error = asked.fail()
        assert KEY not in str(error) + repr(error.__dict__)
        assert not any(KEY[n : n + 8] in str(error) for n in range(len(KEY) - 7))


def test_no_proxy_password_is_told(asked: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://user:{KEY}@127.0.0.1:1")
    with model(asked.kind, base_url="http://models.invalid/v1", retries=0) as far:
        assert KEY not in str(far.fail())
    assert "HTTP_PROXY" in os.environ
