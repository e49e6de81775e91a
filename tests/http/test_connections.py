"""What a connection goes through: keep-alive, pipelining, limits, slow and broken clients."""

from __future__ import annotations

import json
import socket

import pytest

from tests.http.running import Images, Running
from tests.http.wire import request

LIVE = request("GET", "/api/health/live")


def test_a_connection_is_kept_for_more_requests(running: Running) -> None:
    with running.wire() as wire:
        for _ in range(10):
            answer = wire.ask("GET", "/api/health/live")
            assert answer.status == 200
            assert "connection" not in answer.headers
        answer = wire.ask("GET", "/nowhere")
        assert answer.status == 404
        assert wire.ask("GET", "/api/health/live").status == 200
        assert len(running.channels()) == 1


@pytest.mark.parametrize("wishes", ["close", "TE, Close", "close, Upgrade"])
def test_a_client_that_asks_for_the_end_gets_it(running: Running, wishes: str) -> None:
    with running.wire() as wire:
        assert wire.ask("GET", "/api/health/live", Connection=wishes).status == 200
        assert wire.rest() == b""


def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    session_id = running.new_session()
    paths = ["/api/health/live", f"/api/sessions/{session_id}", "/nowhere", "/api/health/live"]
    with running.wire() as wire:
        wire.send(b"".join(request("GET", path) for path in paths))
        assert [wire.answer().status for _ in paths] == [200, 200, 404, 200]


def test_a_request_may_come_byte_by_byte(running: Running) -> None:
    with running.wire() as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LIVE:
            wire.send(bytes([byte]))
        assert wire.answer().status == 200


def body_of(size: int) -> bytes:
    empty = len(json.dumps({"text": ""}))
    return json.dumps({"text": "x" * (size - empty)}).encode()


def test_a_body_of_one_mebibyte_is_taken_and_one_byte_more_is_not(running: Running) -> None:
    path = f"/api/sessions/{running.new_session()}/messages"
    assert running.ask("POST", path, body_of(1 << 20)).status == 202
    answer = running.ask("POST", path, body_of((1 << 20) + 1))
    assert (answer.status, answer.slug) == (413, "body-too-large")
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-netclaw-generation"] == "3"


def test_a_refused_body_that_is_still_coming_does_not_lose_the_answer(running: Running) -> None:
    path = f"/api/sessions/{running.new_session()}/messages"
    with running.wire() as wire:
        wire.send(request("POST", path, body_of(4 << 20)))
        assert wire.answer().slug == "body-too-large"
        wire.send(b"x" * 100_000)
        assert wire.rest() == b""


def chunked(path: str, chunks: list[bytes]) -> bytes:
    head = request("POST", path, Content_Type="application/json", Transfer_Encoding="chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in [*chunks, b""])


def test_a_chunked_body_is_taken_up_to_the_limit(running: Running) -> None:
    session_id = running.new_session()
    path = f"/api/sessions/{session_id}/messages"
    with running.wire() as wire:
        wire.send(chunked(path, [b'{"te', b'xt": "in ', b'pieces"}']))
        assert wire.answer().status == 202
        wire.send(chunked(path, [b" " * 100_000] * 12))
        assert wire.answer().slug == "body-too-large"
        assert wire.rest() == b""
    assert running.service.log[session_id][0].data["text"] == "in pieces"


def test_nothing_is_read_behind_a_body_with_two_lengths(running: Running) -> None:
    lengths = {"Content_Length": "99", "Transfer_Encoding": "chunked"}
    with running.wire() as wire:
        wire.send(request("POST", "/api/sessions", **lengths) + b"0\r\n\r\n" + LIVE)
        assert wire.answer().status == 201
        assert wire.rest() == b""


def test_a_broken_chunk_is_refused(running: Running) -> None:
    with running.wire() as wire:
        wire.send(request("POST", "/api/sessions", Transfer_Encoding="chunked") + b"xyz\r\n")
        assert wire.answer().slug == "bad-request"
        assert wire.rest() == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET\r\n\r\n", 400),
        (b"GET /api/health/live HTTP/1.1\r\nHost localhost\r\n\r\n", 400),
        (b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: br\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    ],
    ids=["no target", "no colon", "negative length", "unknown coding", "large head"],
)
def test_what_is_no_request_is_refused_with_a_problem(
    running: Running, head: bytes, status: int
) -> None:
    with running.wire() as wire:
        wire.send(head)
        answer = wire.answer()
        assert answer.status == status
        assert answer.slug
        assert answer.headers["x-netclaw-generation"] == "3"
        assert wire.rest() == b""


def test_a_body_that_is_asked_about_first_is_invited(running: Running) -> None:
    path = f"/api/sessions/{running.new_session()}/messages"
    whole = request("POST", path, {"text": "hi"}, Expect="100-continue")
    with running.wire() as wire:
        wire.send(whole[: whole.index(b"\r\n\r\n") + 4])
        assert wire._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        wire.send(whole[whole.index(b"\r\n\r\n") + 4 :])
        assert wire.answer().status == 202


def test_a_body_that_would_be_refused_is_not_invited(running: Running) -> None:
    with running.wire() as wire:
        wire.send(request("POST", "/api/sessions", Expect="100-continue", Content_Length="9999999"))
        assert wire.answer().status == 413
        wire.send(b"x" * 10)


def test_a_request_without_a_body_that_expects_to_be_invited_is_answered(running: Running) -> None:
    with running.wire() as wire:
        assert wire.ask("GET", "/api/health/live", Expect="100-continue").status == 200


@pytest.mark.parametrize("sent", [LIVE[:-2], request("POST", "/api/sessions", b"{}")[:-1]])
def test_a_request_that_does_not_arrive_in_time_is_408(images: Images, sent: bytes) -> None:
    running = images.first(receive_timeout_s=0.1)
    with running.wire() as wire:
        wire.send(sent)
        answer = wire.answer()
        assert (answer.status, answer.slug) == (408, "request-timeout")
        assert answer.headers["connection"] == "close"
        assert wire.rest() == b""


def test_an_idle_connection_is_closed_in_order(images: Images) -> None:
    running = images.first(idle_timeout_s=0.1)
    with running.wire() as wire, running.wire() as silent:
        assert wire.ask("GET", "/api/health/live").status == 200
        assert wire.rest() == b""
        assert silent.rest() == b""


def test_a_client_that_resets_harms_nobody(running: Running) -> None:
    for sent in (b"", LIVE[:10], LIVE, LIVE * 5):
        wire = running.wire()
        wire.send(sent)
        linger_zero = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        wire.close()
    assert running.ask("GET", "/api/health/live").status == 200
    running.wait_until(lambda: not running.channels(), "their connections to be closed")


def test_ipv6_is_served(images: Images) -> None:
    sock = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=16)
    running = images.first(listeners={"tcp6=1": sock})
    assert running.ask("GET", "/api/health/live", Host="[::1]").status == 200
