"""What is no proper request gets a clear answer, changes nothing, and harms nobody else."""

from __future__ import annotations

import socket
import threading

import pytest

from netclawd.core.session import SessionId
from tests.http.bad_requests import BAD, INCOMPLETE, MESSAGES, Bad, get
from tests.http.running import Images, Running
from tests.http.wire import Answer, Wire, request
from tests.leftovers import descriptors
from tests.waiting import scaled

LIVE = request("GET", "/api/health/live")
LINGER_ZERO = b"\x01\x00\x00\x00\x00\x00\x00\x00"


def check_problem(answer: Answer, status: int, slug: str) -> None:
    assert (answer.status, answer.slug) == (status, slug)
    assert answer.json["detail"].endswith(".")
    assert answer.json["remedy"]
    assert answer.headers["x-netclaw-generation"] == "3"


def check_unharmed(running: Running, session: SessionId) -> None:
    """Nothing was stored, others are served, and nothing of it is left."""
    assert running.ask("GET", "/api/health/live").status == 200
    assert running.service.log[session] == []
    running.wait_until(lambda: not running.channels(), "its connection to be closed")


def told(wire: Wire, bad: Bad, session: SessionId) -> Answer:
    wire.send(bad.sent.replace(b"{}", session.encode(), 1))
    return wire.answer()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_a_problem_with_a_remedy(running: Running, name: str) -> None:
    bad, session = BAD[name], running.new_session()
    with running.wire() as wire:
        check_problem(told(wire, bad, session), bad.status, bad.slug)
        if bad.kept:
            assert wire.ask("GET", "/api/health/live").status == 200
        else:
            assert wire.rest() == b""
    check_unharmed(running, session)


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if not bad.kept])
def test_nothing_behind_a_request_that_ends_its_connection_is_run(
    running: Running, name: str
) -> None:
    session = running.new_session()
    path = MESSAGES.format(session)
    with running.wire() as wire:
        told(wire, BAD[name], session)
        try:
            wire.send(request("POST", path, {"text": "smuggled"}))
        except (BrokenPipeError, ConnectionResetError):
            pass  # It was closed already.
    check_unharmed(running, session)


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_request_whose_sender_ends_it_in_the_middle_is_told(running: Running, name: str) -> None:
    session = running.new_session()
    with running.wire() as wire:
        wire.send(INCOMPLETE[name].replace(b"{}", session.encode(), 1))
        wire.sock.shutdown(socket.SHUT_WR)
        check_problem(wire.answer(), 400, "bad-request")
        assert wire.rest() == b""
    check_unharmed(running, session)


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_reset_in_the_middle_of_a_request_harms_nobody(running: Running, name: str) -> None:
    session = running.new_session()
    wire = running.wire()
    wire.send(INCOMPLETE[name].replace(b"{}", session.encode(), 1))
    running.wait_until(lambda: any(c.half_received for c in running.channels()), "half of it")
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    wire.close()
    check_unharmed(running, session)


def test_a_client_that_ends_its_side_after_a_whole_request_gets_the_answer(
    running: Running,
) -> None:
    with running.wire() as wire:
        wire.send(LIVE)
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.answer().status == 200
        assert wire.rest() == b""


def test_a_client_that_goes_while_its_request_runs_harms_nobody(running: Running) -> None:
    running.service.may_answer.clear()
    wire = running.wire()
    wire.send(request("GET", "/api/status"))
    assert running.service.answering.wait(scaled(10))
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    wire.close()
    assert running.ask("GET", "/api/health/live").status == 200
    running.service.may_answer.set()
    running.wait_until(lambda: not running.channels(), "its connection to be closed")


def test_a_bad_request_in_a_pipeline_is_answered_behind_the_good_ones(running: Running) -> None:
    session = running.new_session()
    with running.wire() as wire:
        wire.send(LIVE + request("GET", f"/api/sessions/{session}") + b"\0\0\r\n\r\n" + LIVE)
        assert [wire.answer().status for _ in range(3)] == [200, 200, 400]
        assert wire.rest() == b""


def test_the_blank_lines_of_a_client_that_says_nothing_else_are_read(running: Running) -> None:
    with running.wire() as wire:
        wire.send(b"\r\n" * 100_000 + LIVE)
        assert wire.answer().status == 200


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.2"])
def test_other_minor_versions_are_understood(running: Running, version: str) -> None:
    with running.wire() as wire:
        wire.send(get(version=version))
        assert wire.answer().status == 200
        assert wire.rest() == b""


def test_an_absolute_target_of_ours_is_served(running: Running) -> None:
    with running.wire() as wire:
        wire.send(get(path="http://localhost/api/health/live"))
        assert wire.answer().status == 200


def test_clients_that_drip_are_bounded_in_time(images: Images) -> None:
    """Every byte comes early enough; the whole doesn't."""
    running = images.first(receive_timeout_s=0.3)
    session = running.new_session()
    ended = threading.Event()

    def drip(wire: Wire) -> None:
        # The request never ends, however long this goes on.
        for byte in b"X" * 10_000:
            if ended.wait(0.01):
                return
            try:
                wire.send(bytes([byte]))
            except OSError:
                return

    with running.wire() as slow_head, running.wire() as slow_body:
        slow_head.send(get()[:-2])
        slow_body.send(request("POST", MESSAGES.format(session), b"", Content_Length="99999"))
        drips = [threading.Thread(target=drip, args=(w,)) for w in (slow_head, slow_body)]
        for thread in drips:
            thread.start()
        try:
            for wire in (slow_head, slow_body):
                check_problem(wire.answer(), 408, "request-timeout")
            assert running.ask("GET", "/api/health/live").status == 200
        finally:
            ended.set()
            for thread in drips:
                thread.join()
    check_unharmed(running, session)


@pytest.mark.parametrize("sent", [b"", LIVE[:-2], LIVE], ids=["silent", "half", "idle"])
def test_a_crowd_that_waits_makes_room(running: Running, sent: bytes) -> None:
    """As many as may connect do, and say no more: the others are served all the same."""
    running.server._loop._connection_limit = 20
    crowd = [running.wire() for _ in range(40)]
    try:
        for wire in crowd:
            wire.send(sent)
        running.wait_until(lambda: len(running.channels()) == 20, "the house to be full")
        assert running.ask("GET", "/api/health/live").status == 200
        if sent == LIVE[:-2]:
            check_problem(crowd[0].answer(), 503, "unavailable")
            assert crowd[0].rest() == b""
    finally:
        for wire in crowd:
            wire.close()


def test_a_request_that_runs_keeps_its_place_in_a_crowd(running: Running) -> None:
    running.server._loop._connection_limit = 2
    running.service.may_answer.clear()
    with running.wire() as asking, running.wire() as silent:
        asking.send(request("GET", "/api/status"))
        assert running.service.answering.wait(scaled(10))
        assert running.ask("GET", "/api/health/live").status == 200
        assert silent.rest() == b""
        running.service.may_answer.set()
        assert asking.answer().status == 200


def test_a_body_takes_no_file(running: Running) -> None:
    """It would cost a descriptor, and fail where no temporary folder can be written."""
    session, before = running.new_session(), descriptors()
    with running.wire() as wire:
        head = request("POST", MESSAGES.format(session), b"", Content_Length=str(1 << 20))
        wire.send(head + b" " * ((1 << 20) - 1))

        def all_but_one() -> bool:
            requests = [channel.request for channel in running.channels()]
            return any(one and one.body_bytes_received == (1 << 20) - 1 for one in requests)

        running.wait_until(all_but_one, "all but the last byte to arrive")
        opened = {target for _fd, target in descriptors() - before}
        assert all(target.startswith("socket:") for target in opened), opened
        wire.send(b" ")
        assert wire.answer().slug == "bad-request"
