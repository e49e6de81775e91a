"""A write to the configuration file moves a serving daemon to another address."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable

import pytest

from tests.process.client import ask, listens, read_answer
from tests.process.harness import Daemon, free_port, full_or
from tests.process.talk import accepted, new_session
from tests.waiting import scaled, wait_for

#: A retired address is refused this long after the new generation is ready, at the latest.
REFUSED_WITHIN_S = 3.0


def wait_refused(port: int) -> None:
    wait_for(lambda: not listens(port), REFUSED_WITHIN_S, f"port {port} to be refused")


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed over", "in place"])
def test_a_write_moves_the_daemon_under_the_same_pid(daemon: Daemon, in_place: bool) -> None:
    old_port, pid, before = daemon.port, daemon.pid, daemon.generation()
    daemon.port = free_port()
    daemon.write_config(in_place=in_place)

    assert daemon.wait_ready(above=before) == before + 1
    assert daemon.status()["pid"] == pid
    wait_refused(old_port)
    wait_for(
        lambda: daemon.status()["addresses"] == [f"127.0.0.1:{daemon.port}"],
        REFUSED_WITHIN_S,
        "the retired address to be named no longer",
    )
    entry = daemon.ended_restarts()[0]
    assert entry["outcome"] == "applied"
    # A write before the watcher was up is found by the comparison at boot.
    assert entry["trigger"] in ("file", "boot")
    assert entry["changed_keys"] == ["daemon.listen"]
    assert entry["gap_ms"] > 0
    assert f"serving on 127.0.0.1:{daemon.port}: netclawd" in daemon.errors()
    wait_for(
        lambda: f"listeners retired: 127.0.0.1:{old_port}\n" in daemon.errors(),
        REFUSED_WITHIN_S,
        "the retirement to be logged",
    )


def test_the_daemon_moves_again_and_again(daemon: Daemon) -> None:
    for _ in range(full_or(3, 20)):
        old_port, before = daemon.port, daemon.generation()
        daemon.move_to(free_port())
        daemon.wait_ready(above=before)
        wait_refused(old_port)


def test_an_address_that_is_added_leaves_the_others_alone(daemon: Daemon) -> None:
    before, six = daemon.generation(), free_port("::1")
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"[::1]:{six}"])

    daemon.wait_ready(above=before)
    assert ask(six, "/api/health/live", host="::1").status == 200
    daemon.write_config()
    daemon.wait_ready(above=before + 1)
    wait_for(lambda: not listens(six, "::1"), REFUSED_WITHIN_S, "[::1] to be refused")
    assert daemon.ask("/api/health/live").status == 200


def test_the_last_content_wins(daemon: Daemon) -> None:
    ports = [free_port() for _ in range(4)]
    for port in ports:
        daemon.move_to(port)

    daemon.wait_ready(above=1)
    wait_for(
        lambda: daemon.status()["addresses"] == [f"127.0.0.1:{ports[-1]}"],
        10.0,
        "the last address to be the only one",
    )
    wait_for(
        lambda: not any(listens(port) for port in ports[:-1]),
        REFUSED_WITHIN_S,
        "the addresses in between to be refused",
    )


def test_a_kept_connection_outlives_the_address_it_came_in_by(daemon: Daemon) -> None:
    old_port, before = daemon.port, daemon.generation()
    connection = http.client.HTTPConnection("127.0.0.1", old_port, timeout=scaled(10.0))
    try:
        connection.request("GET", "/api/health/live")
        assert read_answer(connection.getresponse()).status == 200
        daemon.move_to(free_port())
        daemon.wait_ready(above=before)
        wait_refused(old_port)
        connection.request("GET", "/api/health/live")
        assert read_answer(connection.getresponse()).generation == before + 1
    finally:
        connection.close()


def test_a_request_half_sent_to_the_old_address_is_answered(daemon: Daemon) -> None:
    session, before = new_session(daemon), daemon.generation()
    body = json.dumps({"text": "across the move"}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=scaled(10.0))
    try:
        connection.putrequest("POST", f"/api/sessions/{session}/messages")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:5])
        daemon.move_to(free_port())
        # While it is half received the old image waits for it, until its deadline.
        wait_for(
            lambda: (
                ask(daemon.port, "/api/status").json["phase"] == "draining"
                if listens(daemon.port)
                else daemon.control("status")["phase"] != "ready"
            ),
            10.0,
            "the drain to begin",
        )
        connection.send(body[5:])
        assert read_answer(connection.getresponse()).status == 202
    finally:
        connection.close()
    daemon.wait_ready(above=before)


def test_nothing_that_changes_nothing_restarts(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon().start()
    before = daemon.generation()
    daemon.write_config(text="# a comment\n" + daemon.config_text())

    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.generation() == before
    assert accepted(daemon, new_session(daemon), "hello")["deferred"] is False


def test_the_journal_tells_the_whole_story(daemon: Daemon) -> None:
    begun = time.time()
    entry = daemon.reload(force=True)

    assert entry["outcome"] == "applied"
    assert entry["trigger"] == "control"
    assert f"pid {os.getpid()}" in entry["actor"]
    assert entry["new_generation"] == entry["generation"] + 1
    assert begun - 1 <= entry["requested_at"] <= entry["ended_at"] <= time.time() + 1
