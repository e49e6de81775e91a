"""Retiring a listener and stopping: what clients see, and that nothing is left."""

from __future__ import annotations

import threading
import time

import pytest

from tests.http.running import Images, Running, listening
from tests.http.wire import Wire, assert_cut, request
from tests.waiting import scaled

LIVE = request("GET", "/api/health/live")
STATUS = request("GET", "/api/status")


def test_a_retired_listener_loses_no_connection_that_was_queued(images: Images) -> None:
    staying, leaving = listening(), listening()
    running = images.first(listeners=dict([leaving, staying]))
    address = leaving[1].getsockname()
    running.quiesce()
    queued = [Wire(address) for _ in range(50)]
    for wire in queued:
        wire.send(LIVE)
    done = threading.Event()
    running.server.retire([leaving[0]], done.set)
    assert done.wait(scaled(5))
    running.server.resume()
    for wire in queued:
        assert wire.answer().status == 200
        assert wire.ask("GET", "/api/health/live").status == 200
        wire.close()
    with pytest.raises(ConnectionRefusedError):
        Wire(address)
    assert running.ask("GET", "/api/health/live").status == 200


def test_a_connection_of_a_retired_listener_lives_on_in_the_successor(images: Images) -> None:
    staying, leaving = listening(), listening()
    old = images.first(listeners=dict([leaving, staying]))
    with Wire(leaving[1].getsockname()) as wire:
        wire.ask("GET", "/api/health/live")
        done = threading.Event()
        old.server.retire([leaving[0]], done.set)
        assert done.wait(scaled(5))
        del old.listeners[leaving[0]]
        images.after(old, old.quiesce())
        assert wire.ask("GET", "/api/health/live").status == 200


def test_stop_ends_idle_connections_in_order(running: Running) -> None:
    with running.wire() as idle, running.wire() as silent:
        idle.ask("GET", "/api/health/live")
        running.wait_connected(2)
        running.quiesce()
        running.stop()
        assert idle.rest() == b""
        assert silent.rest() == b""


def test_stop_answers_503_to_what_came_while_it_was_quiet(running: Running) -> None:
    with running.wire() as idle, running.wire() as silent:
        idle.ask("GET", "/api/health/live")
        running.wait_connected(2)
        running.quiesce()
        idle.send(LIVE)
        silent.send(LIVE)
        with running.wire() as newcomer:
            newcomer.send(LIVE)
            stopping = threading.Thread(target=running.stop)
            stopping.start()
            for wire in (idle, silent, newcomer):
                assert_cut(wire)
                wire.close()
        stopping.join()


def test_stop_without_a_quiesce_ends_everything(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as stream, running.wire() as poll, running.wire() as half:
        stream.listen(session_id)
        poll.send(request("GET", f"/api/sessions/{session_id}/events?wait_s=60"))
        half.send(LIVE[:10])
        running.wait_until(lambda: running.server.streams() == 2, "a stream and a long poll")
        running.wait_until(lambda: any(c.half_received for c in running.channels()), "half")
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        assert stream.hear().type == "restart"
        assert stream.rest() == b""
        assert poll.answer().status == 200
        assert poll.rest() == b""
        assert_cut(half)
        half.close()
        stopping.join()


def test_stop_is_bounded_when_clients_do_not_go(running: Running) -> None:
    with running.wire() as wire:
        wire.ask("GET", "/api/health/live")
        running.quiesce()
        wire.send(LIVE)
        began_at = time.monotonic()
        running.stop(1.0)
        assert time.monotonic() - began_at < scaled(2.0)
        assert wire.answer().status == 503


def test_stop_is_bounded_when_a_request_does_not_end(running: Running) -> None:
    running.service.may_answer.clear()
    with running.wire() as wire:
        wire.send(STATUS)
        assert running.service.answering.wait(scaled(5))
        began_at = time.monotonic()
        running.server.stop(scaled(1.0))
        assert time.monotonic() - began_at < scaled(2.0)
        assert_cut(wire)
    running.service.may_answer.set()
    running.wait_until(lambda: not running.server._loop.workers.threads, "the worker to end")
    running.server._loop.close()
