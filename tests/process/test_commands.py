"""Commands of a real daemon that drains, stops, is killed or cancels: told about as they ended, and gone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers
from tests.process.faults import Fault
from tests.process.harness import Daemon
from tests.process.process_facts import children
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    of_type,
    types,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for

Make = Callable[..., Daemon]

ALLOWED = {"tools.shell": {"policy": "allow"}, "tools.write_file": {"policy": "allow"}}
#: Runs until it is ended by force, in two sessions, and says in a file that it was begun.
STUBBORN = "trap '' TERM; setsid sleep 600 & echo begun >> effect; echo said; sleep 600; sleep 600"


def daemon_with(make_daemon: Make, **tables: Any) -> Daemon:
    return make_daemon(tables={**ALLOWED, **tables}).start()


def ask(daemon: Daemon, session: str, tool: str, **arguments: object) -> None:
    accepted(daemon, session, f"/tool {tool} {json.dumps(arguments)}")


def workspace(daemon: Daemon, session: str) -> Path:
    return daemon.home / "state" / "workspaces" / session


def wait_begun(daemon: Daemon, session: str) -> None:
    wait_for((workspace(daemon, session) / "effect").exists, 10.0, "the command to have begun")


def commands() -> frozenset[int]:
    """Return the processes of this test that carry the mark of a call."""
    mine = leftovers.marked(leftovers.processes(), os.environ[leftovers.MARK])
    found = set()
    for pid in mine:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if b"NETCLAW_CALL=" in environ:
            found.add(pid)
    return frozenset(found)


def effect(daemon: Daemon, session: str) -> str:
    return (workspace(daemon, session) / "effect").read_text()


def test_a_command_is_run_and_its_end_is_told(make_daemon: Make) -> None:
    daemon = daemon_with(make_daemon)
    session = new_session(daemon)
    ask(daemon, session, "shell", command="echo hello; pwd; exit 3")
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    finished = of_type(rows, "tool.finished")[0]
    assert finished["status"] == "error"
    assert finished["text"].startswith("[Exit code 3 after ")
    assert finished["text"].endswith(f"\nhello\n{workspace(daemon, session)}\n")
    wait_for(lambda: children(daemon.pid) == set(), 5.0, "the children to be waited for")


@pytest.mark.long
def test_a_command_that_ends_in_time_is_waited_for(make_daemon: Make) -> None:
    daemon = daemon_with(make_daemon)
    session = new_session(daemon)
    ask(daemon, session, "shell", command="echo begun >> effect; sleep 0.5; echo done")
    wait_begun(daemon, session)
    assert daemon.reload(force=True)["outcome"] == "applied"
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "tool.finished")[0]["text"].endswith("\ndone\n")
    assert effect(daemon, session) == "begun\n"


def test_a_command_in_flight_at_the_deadline_is_ended_whole_and_told_as_interrupted(
    make_daemon: Make,
) -> None:
    daemon = daemon_with(make_daemon, drain={"tool_timeout_s": 0.3})
    session = new_session(daemon)
    ask(daemon, session, "shell", command=STUBBORN)
    wait_begun(daemon, session)
    pid, before = daemon.pid, len(commands())
    assert before >= 3
    entry = daemon.reload(force=True)
    assert (entry["outcome"], entry["cut"]) == ("applied", 1)
    assert commands() == frozenset()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    finished = of_type(rows, "tool.finished")
    assert [row["status"] for row in finished] == ["interrupted"]
    assert finished[0]["text"].startswith("[The daemon ended the command after ")
    assert finished[0]["text"].endswith("\nsaid\n")
    assert "interrupted" in of_type(rows, "reply.sent")[0]["text"], "the model was told"
    assert effect(daemon, session) == "begun\n", "it was not run again"
    assert (daemon.pid, children(daemon.pid)) == (pid, set())
    assert list((daemon.home / "state" / "commands").iterdir()) == []


@pytest.mark.long
def test_a_drain_that_is_over_before_a_command_is_leaves_nothing_of_it(make_daemon: Make) -> None:
    daemon = daemon_with(make_daemon, drain={"tool_timeout_s": 0.5, "timeout_s": 1.0})
    session = new_session(daemon)
    ask(daemon, session, "shell", command=STUBBORN)
    wait_begun(daemon, session)
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert "that a dead daemon left" not in daemon.errors(), "the old image has ended it"
    assert commands() == frozenset()
    wait_for(lambda: children(daemon.pid) == set(), 5.0, "the children to be waited for")
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert effect(daemon, session) == "begun\n"


@pytest.mark.long
def test_a_stop_leaves_nothing_of_a_command(make_daemon: Make) -> None:
    daemon = daemon_with(make_daemon, drain={"tool_timeout_s": 0.2})
    session = new_session(daemon)
    ask(daemon, session, "shell", command=STUBBORN)
    wait_begun(daemon, session)
    assert daemon.stop() == 0
    assert commands() == frozenset()
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["interrupted"]


def test_what_a_killed_daemon_leaves_is_ended_by_the_next_start_and_never_run_again(
    make_daemon: Make,
) -> None:
    daemon, other = daemon_with(make_daemon), daemon_with(make_daemon)
    session, theirs = new_session(daemon), new_session(other)
    for one, its in ((daemon, session), (other, theirs)):
        ask(one, its, "shell", command=STUBBORN)
        wait_begun(one, its)
    both = commands()
    daemon.kill()
    assert commands() == both, "nobody has ended them yet"
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    left = commands()
    assert left < both
    assert len(left) >= 3, "the other daemon's go on"
    check_history(rows)
    assert "tool.unknown" in types(daemon, session)
    assert effect(daemon, session) == "begun\n"
    assert "processes ended that a dead daemon left: " in daemon.errors()
    other.control("cancel", session_id=theirs, turn_id=None)
    wait_for(lambda: not commands(), 10.0, "the other's commands to end")
    wait_event(other, theirs, "turn.cancelled")


def test_a_command_of_a_turn_that_is_cancelled_is_ended(make_daemon: Make) -> None:
    daemon = daemon_with(make_daemon)
    session = new_session(daemon)
    ask(daemon, session, "shell", command=STUBBORN)
    wait_begun(daemon, session)
    daemon.control("cancel", session_id=session)
    wait_for(lambda: not commands(), 10.0, "the command to end")
    wait_event(daemon, session, "turn.cancelled")
    wait_for(lambda: children(daemon.pid) == set(), 5.0, "the children to be waited for")


def test_a_command_can_neither_reach_the_listeners_nor_see_the_secrets(make_daemon: Make) -> None:
    tables = {"providers.demo": {"kind": "demo", "word_interval_s": 0, "api_key": "env:DEMO_WORD"}}
    daemon = make_daemon(
        tables={**ALLOWED, **tables},
        environment={"DEMO_WORD": "correct-horse", "ALSO": "a correct-horse b"},
    ).start()
    session = new_session(daemon)
    daemon.reload(force=True)
    ask(daemon, session, "shell", command="ls /proc/self/fd; env; grep SigBlk /proc/self/status")
    text = of_type(wait_all_ended(daemon, [session])[session], "tool.finished")[0]["text"]
    lines = text.splitlines()
    assert lines[1:5] == ["0", "1", "2", "3"], "3 is the listing's own"
    assert "correct-horse" not in text
    assert not any(line.startswith(("LISTEN_", "NETCLAW_HOME", "ALSO", "DEMO")) for line in lines)
    assert lines[-1] == "SigBlk:\t0000000000000000"


@pytest.mark.long
def test_a_file_is_written_once_however_often_the_daemon_dies(make_daemon: Make) -> None:
    daemon = daemon_with(make_daemon)
    session = new_session(daemon)
    ask(daemon, session, "write_file", path="a/b", content="whole")
    wait_event(daemon, session, "tool.started")
    daemon.kill()
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert (workspace(daemon, session) / "a/b").read_text() == "whole"
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["ok"]
    assert [p.name for p in (workspace(daemon, session) / "a").iterdir()] == ["b"]


@pytest.mark.long
def test_what_runs_in_an_image_that_fails_is_ended_on_the_way_back(make_daemon: Make) -> None:
    """The way back is an execve with the command still running: it stays a child of the same process."""
    daemon = make_daemon(tables={**ALLOWED, "drain": {"tool_timeout_s": 0.3}})
    hold = Fault("hold", "before", "OpenGate", nth=2, until=daemon.home / "go")
    daemon.faults = [hold, Fault("raise", "after", "OpenGate", nth=2)]
    daemon.start()
    pid, session = daemon.pid, new_session(daemon)
    second = {"command": "echo begun >> second; setsid sleep 600 & sleep 600"}
    calls = f"shell {json.dumps({'command': STUBBORN})} ; shell {json.dumps(second)}"
    accepted(daemon, session, f"/each {calls}")
    wait_begun(daemon, session)
    daemon.write_config(tables={"sessions": {"workers": 3}})
    wait_for(lambda: hold.reached, 20.0, "the new image to be held")
    begun = workspace(daemon, session) / "second"
    wait_for(begun.exists, 10.0, "the second command to have begun in the new image")
    hold.release()
    daemon.wait_ready(above=2)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert daemon.pid == pid
    assert "processes ended that a dead daemon left: " in daemon.errors()
    assert commands() == frozenset()
    assert children(pid) == set()
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["interrupted"]
    assert len(of_type(rows, "tool.unknown")) == 1
    assert begun.read_text() == "begun\n"
