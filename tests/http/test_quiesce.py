"""Quiesce, the successor and resume, seen by clients: no reset, one answer each."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from netclawd.core.listeners import Kept
from tests.http.running import Images, Running
from tests.http.wire import Wire, assert_cut, request
from tests.waiting import scaled, wait_for

LIVE = request("GET", "/api/health/live")
STATUS = request("GET", "/api/status")


def test_idle_and_silent_connections_are_served_by_the_successor(images: Images) -> None:
    old = images.first()
    with old.wire() as idle, old.wire() as silent:
        assert idle.ask("GET", "/api/health/live").headers["x-netclaw-generation"] == "3"
        old.wait_connected(2)
        found = old.quiesce()
        assert len(found.kept) == 2
        assert {kept.peer for kept in found.kept} == {
            idle.sock.getsockname(),
            silent.sock.getsockname(),
        }
        idle.send(LIVE)
        images.after(old, found)
        assert idle.answer().headers["x-netclaw-generation"] == "4"
        assert silent.ask("GET", "/api/health/live").headers["x-netclaw-generation"] == "4"


def test_a_kept_connection_is_closed_on_exec_again(images: Images) -> None:
    old = images.first()
    with old.wire() as wire:
        wire.ask("GET", "/api/health/live")
        new = images.after(old, old.quiesce())
        new.wait_connected(1)
        assert new.channels()[0].socket.get_inheritable() is False
        assert new.channels()[0].socket.getblocking() is False


def test_quiescing_an_idle_server_takes_less_than_five_milliseconds(running: Running) -> None:
    wires = [running.wire() for _ in range(20)]
    for wire in wires:
        wire.ask("GET", "/api/health/live")
    best = 1.0
    for _ in range(10):
        quiescing = running.begin_quiesce()
        assert len(quiescing.result().kept) == 20
        best = min(best, quiescing.took_s)
        running.server.resume()
        assert wires[0].ask("GET", "/api/health/live").status == 200
    for wire in wires:
        wire.close()
    assert best < 0.005


def test_connections_made_while_quiet_wait_for_the_successor(images: Images) -> None:
    old = images.first()
    found = old.quiesce()
    with old.wire() as wire:
        wire.send(LIVE)
        images.after(old, found)
        assert wire.answer().status == 200


def test_last_accept_is_the_instant_after_which_nothing_was_accepted(running: Running) -> None:
    before = time.monotonic()
    found = running.quiesce()
    assert before <= found.last_accept <= time.monotonic()
    assert running.server.serving_since() < before


def test_a_request_that_runs_is_finished_and_its_connection_kept(images: Images) -> None:
    old = images.first()
    with old.wire() as wire:
        old.service.may_answer.clear()
        wire.send(STATUS)
        assert old.service.answering.wait(scaled(5))
        quiescing = old.begin_quiesce()
        old.wait_until(lambda: old.server._loop.each_turn, "the drain to begin")
        assert not quiescing.done
        old.service.may_answer.set()
        answer = wire.answer()
        assert answer.status == 200
        assert "connection" not in answer.headers
        found = quiescing.result()
        assert [kept.lingering for kept in found.kept] == [False]
        assert found.cut == 0
        images.after(old, found)
        assert wire.ask("GET", "/api/health/live").status == 200


@pytest.mark.parametrize("cut_at", [10, -1], ids=["in the first line", "before the last byte"])
def test_a_head_that_arrives_in_time_is_answered(images: Images, cut_at: int) -> None:
    old = images.first()
    with old.wire() as wire:
        wire.send(LIVE[:cut_at])
        old.wait_until(lambda: any(c.half_received for c in old.channels()), "half a request")
        quiescing = old.begin_quiesce()
        old.wait_until(lambda: old.server._loop.each_turn, "the drain to begin")
        wire.send(LIVE[cut_at:])
        assert wire.answer().status == 200
        found = quiescing.result()
        assert len(found.kept) == 1
        images.after(old, found)
        assert wire.ask("GET", "/api/health/live").status == 200


def test_a_body_that_arrives_in_time_is_answered(images: Images) -> None:
    old = images.first()
    session_id = old.new_session()
    message = request("POST", f"/api/sessions/{session_id}/messages", {"text": "hello"})
    with old.wire() as wire:
        wire.send(message[:-5])
        old.wait_until(lambda: any(c.half_received for c in old.channels()), "half a body")
        quiescing = old.begin_quiesce()
        wire.send(message[-5:])
        assert wire.answer().status == 202
        assert quiescing.result().cut == 0
    assert old.service.log[session_id][0].data["text"] == "hello"


def test_pipelined_requests_that_were_read_are_all_answered(images: Images) -> None:
    old = images.first()
    with old.wire() as wire:
        old.service.may_answer.clear()
        wire.send(STATUS + LIVE * 3)
        assert old.service.answering.wait(scaled(5))
        quiescing = old.begin_quiesce()
        old.wait_until(lambda: old.server._loop.each_turn, "the drain to begin")
        old.service.may_answer.set()
        assert [wire.answer().status for _ in range(4)] == [200] * 4
        images.after(old, quiescing.result())
        assert wire.ask("GET", "/api/health/live").status == 200


def test_blank_lines_after_a_request_are_no_request(images: Images) -> None:
    old = images.first()
    with old.wire() as wire:
        wire.send(LIVE + b"\r\n")
        assert wire.answer().status == 200
        old.wait_until(lambda: old.channels()[0].request is not None, "the blank line to be read")
        found = old.quiesce()
        assert found.cut == 0
        images.after(old, found)
        assert wire.ask("GET", "/api/health/live").status == 200


def test_a_request_that_runs_at_the_deadline_gets_one_503(images: Images) -> None:
    old = images.first()
    with old.wire() as wire:
        old.service.may_answer.clear()
        wire.send(STATUS)
        assert old.service.answering.wait(scaled(5))
        found = old.quiesce(0.05)
        assert found.cut == 1
        assert [kept.lingering for kept in found.kept] == [True]
        # The worker ends after its answer has been given: it must not add a second one.
        old.service.may_answer.set()
        assert_cut(wire)
        wire.send(b"x" * 10)


@pytest.mark.parametrize("sent", [LIVE[:20], request("POST", "/api/sessions", b"{")[:-1]])
def test_a_half_received_request_gets_503_at_the_deadline(images: Images, sent: bytes) -> None:
    old = images.first()
    with old.wire() as wire:
        wire.send(sent)
        old.wait_until(lambda: any(c.half_received for c in old.channels()), "half a request")
        found = old.quiesce(0.05)
        assert found.cut == 1
        # More of the request is on its way when the old image ends; nobody may reset it.
        wire.send(b"more" * 1000)
        new = images.after(old, found)
        wire.send(b"more" * 1000)
        assert_cut(wire)
        wire.close()
        new.wait_until(lambda: not new.server._loop.lingering(), "the lingering connection to end")


def test_a_lingering_connection_is_closed_when_its_time_is_up(images: Images) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(scaled(10))
        running = images.first(kept=[Kept(theirs.detach(), ("", 0), "gone", lingering=True)])
        assert ours.recv(10) == b""
        assert len(running.server._loop.lingering()) == 1
        running.server._loop.lingering()[0].until = 0.0
        running.wait_until(lambda: not running.server._loop.lingering(), "its end")
        with pytest.raises(BrokenPipeError):
            ours.sendall(b"x")


def test_exactly_one_answer_goes_out_when_deadline_and_worker_meet(running: Running) -> None:
    for attempt in range(60):
        running.service.may_answer.clear()
        running.service.answering.clear()
        with running.wire() as wire:
            wire.send(STATUS)
            assert running.service.answering.wait(scaled(5))
            quiescing = running.begin_quiesce(0.003)
            timer = threading.Timer(0.003 - attempt % 4 * 0.0005, running.service.may_answer.set)
            timer.start()
            found = quiescing.result()
            answer = wire.answer()
            timer.join()
            assert (answer.status == 503) == (found.cut == 1)
            running.server.resume()
            if found.cut:
                assert wire.rest() == b""
            else:
                assert wire.ask("GET", "/api/health/live").status == 200


def test_a_worker_writes_nothing_once_the_loop_has_given_its_answer(running: Running) -> None:
    running.service.may_answer.clear()
    with running.wire() as wire:
        wire.send(STATUS)
        assert running.service.answering.wait(scaled(5))
        loop, channel = running.server._loop, running.channels()[0]

        def cut() -> None:
            # The worker answers between the two halves of the cut, while the loop stands still.
            assert channel.cut_off()
            running.service.may_answer.set()
            running.wait_until(lambda: loop.workers.active_count == 0, "the worker to end")
            loop.answer(channel, b"the one answer")

        loop.post(cut)
        assert wire.rest() == b"the one answer"


def test_an_answer_that_has_begun_is_not_cut(running: Running) -> None:
    with running.wire() as wire:
        running.service.may_answer.clear()
        wire.send(STATUS)
        assert running.service.answering.wait(scaled(5))
        channel = running.channels()[0]
        channel.write_soon(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert not channel.cut_off()
        running.service.may_answer.set()
        assert [wire.head()[0] for _ in range(2)] == [100, 200]


def test_a_slow_request_keeps_nobody_else_waiting(images: Images) -> None:
    """Half a request, a connection that was idle, and one that comes while the drain waits for it."""
    old = images.first()
    with old.wire() as slow, old.wire() as idle:
        idle.ask("GET", "/api/health/live")
        slow.send(LIVE[:20])
        old.wait_until(lambda: any(c.half_received for c in old.channels()), "half a request")
        quiescing = old.begin_quiesce()
        old.wait_until(lambda: old.server._loop.each_turn, "the drain to begin")
        idle.send(LIVE)
        with old.wire() as newcomer:
            for wire in (idle, newcomer):
                # Accepting stops for 200 ms, in case the request is quick; then it goes on.
                wire.send(LIVE if wire is newcomer else b"")
                assert wire.answer().headers["x-netclaw-generation"] == "3"
        assert not quiescing.done
        ended_at = time.monotonic()
        slow.send(LIVE[20:])
        assert slow.answer().status == 200
        found = quiescing.result()
        assert found.last_accept >= ended_at, "the gap begins when nobody is waited for any more"
        assert found.cut == 0
        images.after(old, found)
        assert idle.ask("GET", "/api/health/live").headers["x-netclaw-generation"] == "4"


def test_an_idle_connection_is_left_to_the_successor_once_all_is_quick(images: Images) -> None:
    old = images.first()
    with old.wire() as idle:
        idle.ask("GET", "/api/health/live")
        found = old.quiesce()
        idle.send(LIVE)
        images.after(old, found)
        assert idle.answer().headers["x-netclaw-generation"] == "4"


def test_a_reader_that_does_not_read_does_not_hold_the_drain(images: Images) -> None:
    old = images.first()
    session_id = old.new_session()
    for _ in range(20):
        old.service.admit(session_id, "x" * 1_000_000, None)
    with old.wire() as wire:
        wire.send(request("GET", f"/api/sessions/{session_id}/events"))
        old.wait_until(
            lambda: any(c.total_outbufs_len and not c.requests for c in old.channels()),
            "output that is not read",
        )
        found = old.quiesce(0.05)
        assert [kept.lingering for kept in found.kept] == [True]
        assert found.cut == 0


def test_a_stream_is_ended_with_a_resume_token(images: Images) -> None:
    old = images.first()
    session_id = old.new_session()
    with old.wire() as wire:
        wire.listen(session_id)
        old.service.admit(session_id, "hi", None)
        assert wire.hear().id == 1
        found = old.quiesce()
        last = wire.hear()
        assert last.type == "restart"
        assert last.id is None
        assert last.retry_ms is not None
        assert 50 <= last.retry_ms <= 500
        assert last.data == {"generation": 3, "phase": "ready"}
        assert wire.rest() == b""
        assert found.kept == ()
        assert old.server.streams() == 0


def test_a_long_poll_is_answered_at_once_and_its_connection_kept(images: Images) -> None:
    old = images.first()
    session_id = old.new_session()
    with old.wire() as wire:
        wire.send(request("GET", f"/api/sessions/{session_id}/events?wait_s=60"))
        old.wait_until(lambda: old.server.streams() == 1, "the long poll")
        found = old.quiesce()
        assert wire.answer().json == {"events": []}
        assert [kept.lingering for kept in found.kept] == [False]
        images.after(old, found)
        assert wire.ask("GET", "/api/health/live").status == 200


def test_streams_that_come_during_the_drain_are_ended_too(images: Images) -> None:
    old = images.first()
    session_id = old.new_session()
    with old.wire() as held, old.wire() as wire:
        old.service.may_answer.clear()
        stream = request("GET", f"/api/sessions/{session_id}/events", Accept="text/event-stream")
        wire.send(stream[:-2])
        held.send(STATUS)
        assert old.service.answering.wait(scaled(5))
        old.wait_until(lambda: any(c.half_received for c in old.channels()), "half a request")
        quiescing = old.begin_quiesce()
        old.wait_until(lambda: old.server._loop.each_turn, "the drain to begin")
        wire.send(stream[-2:])
        assert wire.head()[0] == 200
        assert wire.hear().type == "restart"
        assert wire.rest() == b""
        old.service.may_answer.set()
        assert held.answer().status == 200
        assert len(quiescing.result().kept) == 1


def test_resume_goes_on_as_if_nothing_had_been(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as idle, running.wire() as other:
        idle.ask("GET", "/api/health/live")
        running.quiesce()
        idle.send(LIVE)
        other.send(LIVE)
        with running.wire() as newcomer:
            newcomer.send(LIVE)
            running.server.resume()
            for wire in (idle, other, newcomer):
                assert wire.answer().status == 200
            newcomer.listen(session_id)
            running.service.admit(session_id, "hi", None)
            assert newcomer.hear().id == 1
            running.quiesce()
            assert newcomer.hear().type == "restart"
            running.server.resume()
        assert idle.ask("GET", "/api/health/live").status == 200


def test_one_connection_is_served_without_any_listener(images: Images) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(scaled(10))
        images.first(listeners={}, kept=[Kept(theirs.detach(), ("rehearsal", 0), "rehearsal")])
        ours.sendall(request("GET", "/api/health/live", Host="any.example", Connection="close"))
        answer = b"".join(iter(lambda: ours.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_load_over_many_images_loses_nothing(images: Images) -> None:
    current = images.first()
    address = current.address
    stop, answered, failures = threading.Event(), [0], list[str]()

    def load(keep: bool) -> None:
        wire = Wire(address)
        try:
            while not stop.is_set():
                answer = wire.ask("GET", "/api/health/live")
                answered[0] += answer.status == 200
                if not keep:
                    wire.close()
                    wire = Wire(address)
        except (OSError, EOFError) as error:
            failures.append(repr(error))
        wire.close()

    threads = [threading.Thread(target=load, args=(keep,)) for keep in (True, True, False)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        before = answered[0]
        wait_for(lambda: answered[0] > before + 20 or failures, 10, "answers")  # noqa: B023
        current = images.after(current, current.quiesce())
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
