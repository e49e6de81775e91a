"""Re-execs under every kind of connection: none is refused or reset at an address that stays."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack

from tests.process.client import ask, read_answer
from tests.process.faults import Fault
from tests.process.harness import Daemon, full_or
from tests.process.load import Target, ask_over, check_nothing_lost, under_load
from tests.process.talk import check_history, events, new_session, of_type, wait_all_ended
from tests.process.watcher import StreamWatcher
from tests.waiting import scaled, wait_for

REEXECS = full_or(8, 100)


def test_reexecs_under_load_lose_nothing(daemon: Daemon) -> None:
    pid, session = daemon.pid, new_session(daemon)
    target = Target(daemon.port, session)
    with ExitStack() as stack:
        watchers = [stack.enter_context(StreamWatcher(daemon, session)) for _ in range(2)]
        ledgers = stack.enter_context(under_load(target, at_most_s=3.0 * REEXECS + 30))
        for number in range(REEXECS):
            entry = daemon.reload(force=True)
            assert (entry["outcome"], entry["new_generation"]) == ("applied", number + 2)
        # Every client goes on for a moment after the last one.
        seen = [ledger.counts["ok"] for ledger in ledgers]
        wait_for(
            lambda: all(
                ledger.counts["ok"] > count for ledger, count in zip(ledgers, seen, strict=True)
            ),
            10.0,
            "every client to be served by the last generation",
        )
    check_nothing_lost(ledgers)
    assert daemon.status()["pid"] == pid

    rows = wait_all_ended(daemon, [session], timeout_s=60.0)[session]
    check_history(rows)
    admitted = {row["input_id"] for row in of_type(rows, "input.admitted")}
    for ledger in ledgers:
        for answer in ledger.acknowledged.values():
            assert answer["input_id"] in admitted, f"{ledger.name}: an acknowledged input is lost"
    for watcher in watchers:
        assert watcher.seen.faults == []
        assert watcher.seen.joins >= REEXECS
        assert watcher.seen.events == rows[: len(watcher.seen.events)]


def test_connections_made_inside_the_gap_are_served(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    frozen = Fault("hold", "before", "Image", nth=2, until=daemon.home / "thaw")
    daemon.faults = [frozen]
    daemon.start()
    session = new_session(daemon)
    kept = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=scaled(15.0))
    kept.request("GET", "/api/health/live")
    assert read_answer(kept.getresponse()).generation == 1
    silent = socket.create_connection(("127.0.0.1", daemon.port), scaled(15.0))
    asked = daemon.control("reload", force=True)
    wait_for(lambda: frozen.reached, 20.0, "the new image to be frozen before it does anything")

    newcomers = [
        socket.create_connection(("127.0.0.1", daemon.port), scaled(15.0)) for _ in range(50)
    ]
    try:
        for newcomer in newcomers[::2]:
            newcomer.sendall(b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        body = json.dumps({"text": "sent into the gap"}).encode()
        kept.request("POST", f"/api/sessions/{session}/messages", body)
        frozen.release()

        assert read_answer(kept.getresponse()).status == 202
        assert ask_over(silent).generation == 2
        for number, newcomer in enumerate(newcomers):
            if number % 2:
                assert ask_over(newcomer).generation == 2
            else:
                response = http.client.HTTPResponse(newcomer)
                response.begin()
                assert read_answer(response).generation == 2
    finally:
        kept.close()
        for connection in (silent, *newcomers):
            connection.close()
    daemon.wait_ready(above=1)
    assert daemon.restarts()[0]["id"] == asked["restart_id"]
    rows = wait_all_ended(daemon, [session])[session]
    assert [row["text"] for row in of_type(rows, "input.admitted")] == ["sent into the gap"]


def test_a_body_that_is_too_slow_is_answered_503_and_not_reset(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon(tables={"drain": {"request_timeout_s": 0.2}}).start()
    session = new_session(daemon)
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=scaled(15.0))
    try:
        connection.putrequest("POST", f"/api/sessions/{session}/messages")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"text": "')
        assert daemon.reload(force=True)["outcome"] == "applied"
        # More of the body, which nobody will read any more, must not turn the answer into a reset.
        connection.send(b"x" * 100)
        answer = read_answer(connection.getresponse())
    finally:
        connection.close()
    assert answer.retry_later
    assert answer.headers["connection"].lower() == "close"
    assert events(daemon, session) == []


def test_health_and_reads_are_answered_through_the_drain(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    held = Fault("hold", "before", "Quiesce", until=daemon.home / "go")
    daemon.faults = [held]
    daemon.start()
    session = new_session(daemon)
    daemon.control("reload", force=True)
    wait_for(lambda: held.reached, 20.0, "the drain to be held before accepting stops")

    assert daemon.ask("/api/health/live").status == 200
    ready = daemon.ask("/api/health/ready")
    assert ready.retry_later
    assert ready.json["phase"] == "draining"
    assert daemon.ask(f"/api/sessions/{session}").status == 200
    assert daemon.status()["gate"] == "closed"
    held.release()
    daemon.wait_ready(above=1)
    assert ask(daemon.port, "/api/health/ready").json["phase"] in ("ready", "rehearsing")
