"""Parking, resuming and cancelling turns of a real daemon, over its restarts and deaths."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.process.faults import Fault
from tests.process.harness import Daemon
from tests.process.talk import (
    accepted,
    check_history,
    check_ledger,
    events,
    ledger,
    new_session,
    of_type,
    types,
    wait_all_ended,
    wait_event,
)
from tests.process.watcher import StreamWatcher
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def netclaw(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("netclaw"), *arguments],
        env={**os.environ, "NETCLAW_HOME": str(daemon.home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(60.0),
        check=False,
    )


def answer(daemon: Daemon, *arguments: str) -> Any:
    done = netclaw(daemon, *arguments, "--json")
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_a_parked_reply_is_whole_after_restart_and_resume(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    with StreamWatcher(daemon, session) as watcher:
        accepted(daemon, session, "/count 40 0.05")
        wait_for(lambda: watcher.seen.texts, 10.0, "the reply to begin")
        parked = answer(daemon, "sessions", "park", session)
        assert (parked["state"], parked["park_reason"]) == ("parked", "request")
        entry = daemon.reload(force=True)
        assert (entry["outcome"], entry["parked"]) == ("applied", 1)
        assert types(daemon, session)[-1] == "turn.parked", "no start lets it go on"
        answer(daemon, "sessions", "resume", session)
        rows = wait_all_ended(daemon, [session])[session]
        wait_for(lambda: watcher.last_seq == len(rows), 10.0, "the watcher to see all")
    check_history(rows)
    assert of_type(rows, "turn.resumed")[0]["cause"] == "request"
    assert [row["reason"] for row in of_type(rows, "step.retry")] == ["request"]
    assert of_type(rows, "reply.sent")[0]["text"] == " ".join(str(n) for n in range(1, 41))
    assert watcher.seen.faults == []


def test_a_parked_turn_survives_a_sigkill(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 2 1")
    wait_event(daemon, session, "tool.started")
    # Not with netclaw, which may take longer to start than the tool to end.
    daemon.control("park", session_id=session)
    wait_event(daemon, session, "turn.parked")
    daemon.kill()
    daemon.start()
    rows = events(daemon, session)
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["ok"]
    assert rows[-1]["type"] == "turn.parked"
    answer(daemon, "sessions", "resume", session)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    check_ledger(daemon, rows)
    assert len(ledger(daemon)) == 2


def test_a_turn_out_of_resumes_goes_on_when_a_person_says_so(make_daemon: Make) -> None:
    tables = {"sessions": {"resume_limit": 1}}
    daemon = make_daemon(tables=tables).start()
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 1 1 idempotent")
    wait_event(daemon, session, "tool.started")
    for count in (2, 3):
        daemon.kill()
        daemon.start()
        if count == 2:
            wait_event(daemon, session, "tool.started", count=count)
    assert wait_event(daemon, session, "turn.parked")["reason"] == "resume-limit"
    told = netclaw(daemon, "sessions", "resume", session)
    assert (told.returncode, told.stderr) == (0, ""), told
    wait_event(daemon, session, "tool.started", count=3)
    daemon.kill()  # and the new budget holds a crash again
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert [row["cause"] for row in of_type(rows, "turn.resumed")] == ["crash", "request", "crash"]
    assert len(ledger(daemon)) == 1


def test_a_turn_that_waits_for_an_approval_names_it(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, "/ask")
    approval = wait_event(daemon, session, "approval.requested")["approval_id"]
    told = netclaw(daemon, "sessions", "resume", session)
    assert told.returncode == 1
    assert f"waits for the approval {approval}" in told.stderr
    assert f"netclaw approvals grant {approval}" in told.stderr


def test_a_resume_while_the_daemon_drains_is_done_after_the_restart(make_daemon: Make) -> None:
    daemon = make_daemon()
    held = Fault("hold", "before", "Quiesce", until=daemon.home / "go")
    daemon.faults = [held]
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 30 0.05")
    wait_event(daemon, session, "turn.started")
    daemon.control("park", session_id=session)
    wait_event(daemon, session, "turn.parked")
    daemon.control("reload", force=True)
    wait_for(lambda: held.reached, 20.0, "the drain to be held")
    told = netclaw(daemon, "sessions", "resume", session)
    assert (told.returncode, "after the restart" in told.stdout) == (0, True), told
    assert types(daemon, session)[-2:] == ["turn.resumed", "turn.interrupted"]
    held.release()
    daemon.wait_ready(above=1)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert [row["generation"] for row in of_type(rows, "turn.resumed")] == [1, 2]


def test_a_session_is_cleared_of_its_turns(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    turns = [accepted(daemon, session, "/count 100 0.1")["turn_id"] for _ in range(3)]
    wait_event(daemon, session, "turn.started")
    assert "  running" in netclaw(daemon, "sessions", "list").stdout
    answer(daemon, "sessions", "park", session)
    assert "  parked (request)" in netclaw(daemon, "sessions", "list").stdout
    answer(daemon, "sessions", "resume", session)
    first = netclaw(daemon, "sessions", "cancel", session, "--turn", turns[1])
    assert (first.returncode, first.stdout) == (0, f"Cancelled: {turns[1]}.\n")
    found = answer(daemon, "sessions", "cancel", session, "--all")
    assert [turn["id"] for turn in found["turns"]] == [turns[0], turns[2]]
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert len(of_type(rows, "turn.cancelled")) == 3
    assert of_type(rows, "turn.cancelled")[0]["by"] == f"uid {os.getuid()}"
    none = netclaw(daemon, "sessions", "cancel", session)
    assert (none.returncode, "no turn in flight" in none.stderr) == (1, True)
    assert netclaw(daemon, "sessions", "park", "s_none").returncode == 1
