"""Turns, model calls and tools that are in flight when the daemon drains, stops or is killed."""

from __future__ import annotations

from collections.abc import Callable

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
    send,
    types,
    wait_all_ended,
    wait_event,
)
from tests.process.watcher import StreamWatcher
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def numbers(count: int) -> str:
    return " ".join(str(number) for number in range(1, count + 1))


def test_a_model_call_that_ends_in_time_is_not_repeated(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_s": 10}}).start()
    session = new_session(daemon)
    with StreamWatcher(daemon, session) as watcher:
        accepted(daemon, session, "/count 20 0.05")
        wait_for(lambda: watcher.seen.texts, 10.0, "the reply to begin")
        assert daemon.reload(force=True)["outcome"] == "applied"
        rows = wait_all_ended(daemon, [session])[session]
        wait_for(lambda: watcher.last_seq == len(rows), 10.0, "the watcher to see all")
    check_history(rows)
    assert of_type(rows, "step.retry") == []
    assert of_type(rows, "model.completed")[0]["text"] == numbers(20)
    assert watcher.seen.faults == []
    assert watcher.seen.events == rows


def test_a_model_call_that_is_cut_is_repeated_once(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_s": 0.2}}).start()
    session = new_session(daemon)
    with StreamWatcher(daemon, session) as watcher:
        accepted(daemon, session, "/count 40 0.05")
        wait_for(lambda: watcher.seen.texts, 10.0, "the reply to begin")
        entry = daemon.reload(force=True)
        rows = wait_all_ended(daemon, [session])[session]
        wait_for(lambda: watcher.last_seq == len(rows), 10.0, "the watcher to see all")
    check_history(rows)
    assert entry["cut"] == 1
    retry = of_type(rows, "step.retry")
    assert [(row["attempt"], row["reason"]) for row in retry] == [(2, "restart")]
    interrupted = of_type(rows, "turn.interrupted")[0]
    assert (interrupted["cause"], interrupted["restart_id"]) == ("restart", entry["id"])
    assert of_type(rows, "turn.resumed")[0]["generation"] == 2
    assert of_type(rows, "reply.sent")[0]["text"] == numbers(40)
    assert watcher.seen.faults == []
    assert watcher.seen.events == rows


@pytest.mark.parametrize("suffix", ["", " idempotent"], ids=["other", "idempotent"])
def test_a_tool_that_ends_in_time_is_recorded(make_daemon: Make, suffix: str) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, f"/ledger 2 0.6{suffix}")
    wait_event(daemon, session, "tool.started")
    entry = daemon.reload(force=True)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    check_ledger(daemon, rows)
    assert (entry["drained"], entry["cut"]) == (1, 0)
    assert len(ledger(daemon)) == 2
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["ok", "ok"]


def test_a_tool_that_is_ended_at_its_deadline_says_so(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"tool_timeout_s": 0.2}}).start()
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 1 20")
    wait_event(daemon, session, "tool.started")
    assert daemon.reload(force=True)["outcome"] == "applied"
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    check_ledger(daemon, rows)
    assert [row["status"] for row in of_type(rows, "tool.finished")] == ["interrupted"]
    assert ledger(daemon) == []


@pytest.mark.parametrize("suffix", ["", " idempotent"], ids=["other", "idempotent"])
def test_a_tool_in_flight_at_a_sigkill(make_daemon: Make, suffix: str) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, f"/ledger 1 0.5{suffix}")
    call = wait_event(daemon, session, "tool.started")["call_id"]
    daemon.kill()
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    check_ledger(daemon, rows)
    if suffix:
        assert [row["again"] for row in of_type(rows, "tool.started")] == [False, True]
        assert ledger(daemon) == [call]
    else:
        assert [row["call_id"] for row in of_type(rows, "tool.unknown")] == [call]
        assert ledger(daemon) == []
    assert of_type(rows, "turn.resumed")[0]["cause"] == "crash"


def test_a_stop_and_a_start_resume_the_turn(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_at_stop_s": 0.1}}).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 30 0.05")
    wait_event(daemon, session, "turn.started")
    assert daemon.stop() == 0
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "turn.interrupted")[0]["cause"] == "stop"
    assert of_type(rows, "reply.sent")[0]["text"] == numbers(30)


@pytest.fixture
def draining(make_daemon: Make) -> Callable[[str], tuple[Daemon, Fault]]:
    """Make a daemon that is held in its drain, before accepting stops."""

    def make(new_work: str) -> tuple[Daemon, Fault]:
        daemon = make_daemon(tables={"drain": {"new_work": new_work}})
        held = Fault("hold", "before", "Quiesce", until=daemon.home / "go")
        daemon.faults = [held]
        daemon.start()
        return daemon, held

    return make


def drain(daemon: Daemon, held: Fault) -> None:
    daemon.control("reload", force=True)
    wait_for(lambda: held.reached, 20.0, "the drain to be held")


def test_new_work_is_deferred_and_runs_after_the_restart(
    draining: Callable[[str], tuple[Daemon, Fault]],
) -> None:
    daemon, held = draining("defer")
    session = new_session(daemon)
    drain(daemon, held)
    answers = [accepted(daemon, session, f"deferred {n}", key=f"k{n}") for n in range(3)]
    assert all(answer["deferred"] for answer in answers)
    assert types(daemon, session) == ["input.admitted"] * 3
    again = send(daemon, session, "deferred 0", key="k0")
    assert (again.status, again.json["input_id"]) == (200, answers[0]["input_id"])
    held.release()
    daemon.wait_ready(above=1)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    started = of_type(rows, "turn.started")
    assert [row["turn_id"] for row in started] == [answer["turn_id"] for answer in answers]
    assert {row["generation"] for row in started} == {2}


def test_new_work_is_rejected_with_a_time_to_come_back(
    draining: Callable[[str], tuple[Daemon, Fault]],
) -> None:
    daemon, held = draining("reject")
    session, told = new_session(daemon), new_session(daemon)
    first = accepted(daemon, told, "told before", key="k")
    drain(daemon, held)
    repeat = send(daemon, told, "told before", key="k")
    assert (repeat.status, repeat.json) == (200, first), "a repeat is no new work"
    assert send(daemon, told, "another text", key="k").status == 422
    answer = send(daemon, session, "rejected", key="k")
    assert answer.retry_later
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert int(answer.headers["retry-after"]) <= 32
    assert events(daemon, session) == []
    held.release()
    daemon.wait_ready(above=1)
    assert send(daemon, session, "rejected", key="k").status == 202


def test_a_turn_that_waits_for_a_person_does_not_hold_the_drain(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, "/ask")
    wait_event(daemon, session, "approval.requested")
    entry = daemon.reload(force=True)
    assert entry["outcome"] == "applied"
    assert entry["parked"] == 1
    assert entry["drain_s"] < 2.0
    (pending,) = daemon.control("approvals")
    daemon.control("decide", approval_id=pending["id"], granted=True)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "approval.granted")
    assert of_type(rows, "turn.completed")


def test_a_turn_is_resumed_at_most_so_often(make_daemon: Make) -> None:
    tables = {"drain": {"model_timeout_s": 0.05}, "sessions": {"resume_limit": 2}}
    daemon = make_daemon(tables=tables).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 200 0.1")
    wait_event(daemon, session, "turn.started")
    for count in (1, 2):
        daemon.reload(force=True)
        wait_event(daemon, session, "turn.resumed", count=count)
    daemon.reload(force=True)
    assert wait_event(daemon, session, "turn.parked")["reason"] == "resume-limit"
    check_history(events(daemon, session))


def test_who_runs_beside_a_turn_that_ends_the_daemon_is_not_parked_with_it(
    make_daemon: Make,
) -> None:
    daemon = make_daemon().start()
    sessions = [new_session(daemon) for _ in range(3)]
    for session in sessions:
        accepted(daemon, session, "/count 1000 0.1")
        wait_event(daemon, session, "turn.started")
    for count in (1, 2):
        daemon.kill()
        daemon.start()
        for session in sessions:
            wait_event(daemon, session, "step.retry", count=count)
    daemon.kill()
    daemon.start()

    def at_work() -> list[str]:
        return [s for s in sessions if len(of_type(events(daemon, s), "step.retry")) > 2]

    (bad,) = wait_for(at_work, 20.0, "one of them to be at work")
    daemon.kill()
    daemon.start()
    assert wait_event(daemon, bad, "turn.parked")["reason"] == "resume-limit"
    left = [session for session in sessions if session != bad]
    for count in (1, 2):  # one after the other, whatever the order
        (session, *_) = wait_for(lambda: [s for s in at_work() if s in left], 20.0, "the next")
        daemon.control("cancel", session_id=session)
        left.remove(session)
        assert len(left) == 2 - count
    check_history(events(daemon, bad))
