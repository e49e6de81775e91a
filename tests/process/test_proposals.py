"""An agent changes the configuration of the daemon that runs it, and reads what became of that."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.counterparts import Call, ChatServer, Reply
from tests.process.client import listens
from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port
from tests.process.proposing import (
    ALLOWED,
    COMMENT,
    check_turn,
    commented,
    outcomes,
    propose,
    reply,
    the_call,
)
from tests.process.talk import (
    SessionEvent,
    accepted,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.process.watcher import StreamWatcher
from tests.waiting import wait_for

Make = Callable[..., Daemon]


def proposing(make: Make, tables: Mapping[str, Any] = ALLOWED, **options: Any) -> Daemon:
    """Return a daemon whose configuration has a comment."""
    daemon = make(tables=dict(tables), **options)
    commented(daemon)
    return daemon.start()


def begun(daemon: Daemon, text: str) -> str:
    """Send a message to a new session; return that."""
    session = new_session(daemon)
    accepted(daemon, session, text)
    return session


def ended(daemon: Daemon, session: str) -> list[SessionEvent]:
    """Return all events at the end of the session's turn."""
    rows = wait_all_ended(daemon, [session])[session]
    check_turn(rows)
    return rows


def run(daemon: Daemon, text: str) -> list[SessionEvent]:
    """Send a message to a new session and return all events at the end of its turn."""
    return ended(daemon, begun(daemon, text))


def written(daemon: Daemon) -> tuple[str, int]:
    """Return the file's text, and what changes with every write."""
    return daemon.config_path.read_text(), daemon.config_path.stat().st_mtime_ns


def test_a_conversation_moves_to_the_port_that_it_asked_for(make_daemon: Make) -> None:
    daemon = proposing(make_daemon)
    session, pid, before, port = new_session(daemon), daemon.pid, daemon.port, free_port()
    with StreamWatcher(daemon, session) as watcher:
        accepted(daemon, session, propose({"daemon.listen": [f"127.0.0.1:{port}"]}))
        wait_for(lambda: listens(port), 20.0, "the new port to listen")
        daemon.port = port
        assert daemon.wait_ready(above=1) == 2
        rows = wait_all_ended(daemon, [session])[session]
        accepted(daemon, session, "/count 3")
        wait_event(daemon, session, "turn.completed", count=2)
        wait_for(lambda: watcher.last_seq > len(rows) + 3, 10.0, "the watcher to see all")
    check_turn(rows)
    assert watcher.seen.faults == []
    assert outcomes(rows) == ["applied"]
    assert f"127.0.0.1:{port}" in daemon.config_path.read_text()
    assert daemon.config_path.read_text().startswith(COMMENT)
    assert "is applied: generation 2 runs with it." in reply(rows)
    assert daemon.pid == pid
    wait_for(lambda: not listens(before), 5.0, "the old port to be refused")
    entry = daemon.ended_restarts()[0]
    assert (entry["trigger"] in ("file", "boot"), entry["cut"]) == (True, 0)
    assert of_type(rows, "config.outcome")[0]["restart_id"] == entry["id"]
    assert of_type(rows, "turn.interrupted")[0]["state"] == "drained"


def test_a_refusal_is_read_and_the_turn_goes_on(make_daemon: Make) -> None:
    daemon = proposing(make_daemon)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        rows = run(daemon, propose({"daemon.listen": [f"127.0.0.1:{daemon.port}", address]}))
        again = run(daemon, propose({"daemon.listen": [f"127.0.0.1:{daemon.port}", address]}))
    told = of_type(rows, "config.outcome")[0]
    entry = daemon.ended_restarts()[0]
    assert (told["outcome"], told["generation"]) == ("refused", 1)
    assert (told["reason"], told["restart_id"]) == (entry["reason"], entry["id"])
    assert address in reply(rows)
    assert of_type(rows, "turn.interrupted") == []
    # What stands in the file and is refused is not written once more.
    assert of_type(again, "tool.finished")[0]["status"] == "error"
    assert "Nothing would change" in reply(again)
    assert address in reply(again)
    # The way out: what was in force before. There is nothing to restart for, and nothing to wait for.
    back = run(daemon, propose({"daemon.listen": [f"127.0.0.1:{daemon.port}"]}))
    assert "no restart" in reply(back)
    assert outcomes(back) == []
    wait_for(lambda: daemon.status()["refusal"] is None, 10.0, "the refusal to end")
    assert daemon.generation() == 1


def test_a_configuration_that_fails_is_rolled_back_and_the_model_told_why(
    make_daemon: Make,
) -> None:
    daemon = proposing(make_daemon, faults=[Fault("raise", "before", "Serve", nth=2)])
    more = f"127.0.0.1:{free_port()}"
    rows = run(daemon, propose({"daemon.listen": [f"127.0.0.1:{daemon.port}", more]}))
    told = of_type(rows, "config.outcome")[0]
    assert (told["outcome"], told["generation"]) == ("rolled-back", 3)
    assert told["reason"] == daemon.ended_restarts()[0]["reason"]
    assert told["reason"] in reply(rows)
    assert daemon.effects().count("Rehearse") == 1, "it was not proposed again"


@pytest.mark.long
def test_a_change_that_was_asked_for_before_a_restart_is_granted_after_it(
    make_daemon: Make,
) -> None:
    daemon = proposing(make_daemon, {})
    session = begun(daemon, propose({"drain.timeout_s": 25}, "slow tools"))
    question = str(wait_event(daemon, session, "approval.requested")["question"])
    before = written(daemon)
    assert "\n+timeout_s = 25" in question
    assert "Reason: slow tools" in question
    daemon.reload(force=True)
    (pending,) = daemon.control("approvals")
    assert written(daemon) == before
    daemon.control("decide", approval_id=pending["id"], granted=True)
    rows = ended(daemon, session)
    assert outcomes(rows) == ["applied"]
    text = daemon.config_path.read_text()
    assert text == before[0] + "\n[drain]\ntimeout_s = 25\n"
    assert daemon.generation() == 3


@pytest.mark.long
def test_what_was_shown_is_written_or_nothing(make_daemon: Make) -> None:
    daemon = proposing(make_daemon, {"drain": {"timeout_s": 20}})
    session = begun(daemon, propose({"drain.timeout_s": 25}))
    wait_event(daemon, session, "approval.requested")
    daemon.write_config(text=COMMENT + daemon.config_text(tables={"drain": {"timeout_s": 21}}))
    daemon.wait_ready(above=1)
    before = written(daemon)
    (pending,) = daemon.control("approvals")
    daemon.control("decide", approval_id=pending["id"], granted=True)
    rows = ended(daemon, session)
    finished = of_type(rows, "tool.finished")[0]
    assert (finished["status"], "has changed since" in finished["text"]) == ("error", True)
    assert written(daemon) == before


def test_an_agent_cannot_end_the_daemon_by_what_it_proposes(make_daemon: Make) -> None:
    tables = {**ALLOWED, "daemon": {"on_invalid_config": "abort"}}
    daemon = proposing(make_daemon, tables)
    before = written(daemon)
    bad: list[dict[str, Any]] = [
        {"daemon.listen": ["0.0.0.0:80"]},
        {"drain.timeout_s": "soon"},
        {"drain.timeout": 20},
        {"daemon": {"listen": []}},
        {"providers.demo.api_key": "sk-verysecret1"},
        {"providers.demo.api_key": "env:NOBODY_HAS_SET_IT"},
        {"providers.demo.kind": None},
        {"drain": 20},
    ]
    calls = " ; ".join(the_call(changes) for changes in bad)
    rows = run(daemon, f"/tools {calls}")
    finished = of_type(rows, "tool.finished")
    assert [row["status"] for row in finished] == ["error"] * len(bad)
    assert written(daemon) == before
    told = reply(rows)
    assert "did you mean drain.timeout_s?" in told
    assert "must be a number from" in told
    assert "is a table" in told
    assert "sk-verysecret1" not in "".join(row["text"] for row in finished)
    assert daemon.generation() == 1
    assert daemon.running.poll() is None


def test_what_the_environment_decides_is_not_proposed_in_vain(make_daemon: Make) -> None:
    variable = "NETCLAW_DRAIN__TIMEOUT_S"
    daemon = proposing(make_daemon, environment={variable: "22"})
    before = written(daemon)
    rows = run(daemon, propose({"drain.timeout_s": 25}))
    assert f"{variable} decides drain.timeout_s" in reply(rows)
    assert written(daemon) == before


@pytest.mark.long
def test_several_changes_of_one_reply_are_all_written_and_each_is_told(make_daemon: Make) -> None:
    daemon = proposing(make_daemon)
    changes = [
        {"drain.timeout_s": 25},
        {"sessions.resume_limit": 5},
        {"drain.model_timeout_s": 10},
    ]
    rows = run(daemon, "/tools " + " ; ".join(the_call(each) for each in changes))
    assert outcomes(rows) == ["applied"] * 3
    text = daemon.config_path.read_text()
    assert text.startswith(COMMENT)
    assert all(f"{key.split('.')[1]} = " in text for each in changes for key in each)


@pytest.mark.long
def test_an_agent_may_change_the_configuration_more_often_than_a_turn_is_resumed(
    make_daemon: Make,
) -> None:
    daemon = proposing(make_daemon, {**ALLOWED, "sessions": {"resume_limit": 1}})
    # One after the other: the demo agent proposes the next once it has read of the one before.
    calls = " ; ".join(the_call({"drain.timeout_s": 20 + n}) for n in range(3))
    rows = run(daemon, f"/each {calls}")
    assert outcomes(rows) == ["applied"] * 3
    assert [row["resumes"] for row in of_type(rows, "turn.resumed")] == [0, 0, 0]
    assert daemon.generation() == 4


@pytest.mark.long
def test_a_turn_that_waits_can_be_cancelled(make_daemon: Make, tmp_path: Any) -> None:
    hold = Fault("hold", "before", "Rehearse", until=tmp_path / "go")
    daemon = proposing(make_daemon, faults=[hold])
    session = begun(daemon, propose({"drain.timeout_s": 25}))
    wait_event(daemon, session, "tool.finished")
    wait_for(lambda: hold.reached, 10.0, "the daemon to have begun with it")
    daemon.control("cancel", session_id=session)
    hold.release()
    assert daemon.wait_ready(above=1) == 2
    last = wait_event(daemon, session, "config.outcome")
    assert (last["turn_id"], last["outcome"]) == (None, "applied")


def test_a_policy_that_denies_leaves_the_file_alone(make_daemon: Make) -> None:
    daemon = proposing(make_daemon, {"tools.config_propose": {"policy": "deny"}})
    before = written(daemon)
    rows = run(daemon, propose({"drain.timeout_s": 25}))
    assert "I am offered no tool config_propose" in reply(rows)
    assert written(daemon) == before


def test_a_real_model_is_told_in_its_own_words(make_daemon: Make) -> None:
    changes = {"drain.timeout_s": 25}
    call = Call("config_propose", {"changes": changes, "reason": "slow tools"})
    with ChatServer(Reply("", calls=[call]), Reply("Good.")) as server:
        model = {"kind": "openai", "base_url": server.base_url, "model": "m"}
        tables = {**ALLOWED, "providers.model": model, "agent": {"provider": "model"}}
        daemon = proposing(make_daemon, tables)
        rows = run(daemon, "Give my tools more time.")
        first, second = server.asked
    assert outcomes(rows) == ["applied"]
    assert reply(rows) == "Good."
    assert "config_propose" in [tool["function"]["name"] for tool in first.body["tools"]]
    told = [m for m in second.body["messages"] if "Your change of the configuration" in str(m)]
    assert len(told) == 1
    assert "(drain.timeout_s) is applied: generation 2" in str(told[0]["content"])


@pytest.mark.long
def test_a_stop_while_a_turn_waits_leaves_the_outcome_to_the_next_start(
    make_daemon: Make, tmp_path: Any
) -> None:
    hold = Fault("hold", "before", "Rehearse", until=tmp_path / "go")
    daemon = proposing(make_daemon, faults=[hold])
    session = begun(daemon, propose({"drain.timeout_s": 25}))
    wait_for(lambda: hold.reached, 10.0, "the daemon to have begun with it")
    daemon.signal(signal.SIGTERM)
    hold.release()
    assert daemon.wait_exit() == 0
    daemon.start()
    rows = ended(daemon, session)
    assert [row["cause"] for row in of_type(rows, "turn.interrupted")] == ["stop"]
    assert outcomes(rows) == ["applied"]


@pytest.mark.long
def test_a_change_that_a_person_replaces_before_it_is_tried_is_superseded(
    make_daemon: Make, tmp_path: Any
) -> None:
    hold = Fault("hold", "before", "Judge", until=tmp_path / "go")
    daemon = proposing(make_daemon, faults=[hold])
    before = daemon.config_path.read_text()
    session = begun(daemon, propose({"drain.timeout_s": 25}))
    wait_for(lambda: hold.reached, 10.0, "the daemon to begin with it")
    daemon.write_config(text=before)
    hold.release()
    rows = ended(daemon, session)
    assert outcomes(rows) == ["superseded"]
    assert "replaced in the file by somebody else" in reply(rows)
    assert daemon.generation() == 1


@pytest.mark.long
def test_a_change_that_somebody_makes_at_the_same_time_is_not_overwritten(
    make_daemon: Make, tmp_path: Any
) -> None:
    hold = Fault("hold", "before", "WriteProposal", until=tmp_path / "go")
    daemon = proposing(make_daemon, faults=[hold])
    session = begun(daemon, propose({"drain.timeout_s": 25}))
    wait_for(lambda: hold.reached, 10.0, "the tool to be about to write")
    daemon.write_config(text=COMMENT + daemon.config_text(tables={"drain": {"timeout_s": 21}}))
    before = written(daemon)
    hold.release()
    rows = ended(daemon, session)
    assert "changed meanwhile by somebody else" in reply(rows)
    assert written(daemon) == before


def test_no_secret_is_in_what_is_told(make_daemon: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = {"kind": "demo", "word_interval_s": 0, "api_key": "env:KEY"}
        tables = {**ALLOWED, "providers.demo": demo}
        daemon = proposing(make_daemon, tables, environment={"KEY": str(port)})
        session = new_session(daemon)
        listen = [f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}"]
        accepted(daemon, session, propose({"daemon.listen": listen}))
        rows = ended(daemon, session)
    told = of_type(rows, "config.outcome")[0]
    assert told["outcome"] == "refused"
    assert "[redacted]" in told["reason"]
    ends = of_type(rows, "tool.finished", "config.outcome", "reply.sent")
    assert not [row for row in ends if str(port) in str({k: row[k] for k in row if k != "at"})]
