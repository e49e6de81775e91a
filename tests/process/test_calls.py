"""Calls that run beside each other, and questions that nobody answers, in a real daemon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.process.client import ControlRefusedError
from tests.process.harness import Daemon
from tests.process.talk import (
    accepted,
    check_history,
    check_ledger,
    ledger,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def test_a_restart_in_the_middle_keeps_what_ends_in_time_and_ends_the_rest(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(tables={"drain": {"tool_timeout_s": 1.0}}).start()
    session = new_session(daemon)
    accepted(daemon, session, '/tools ledger {"seconds": 0.4} ; ledger {"seconds": 60} ; clock')
    wait_event(daemon, session, "tool.started", count=3)
    entry = daemon.reload(force=True)
    assert (entry["outcome"], entry["cut"]) == ("applied", 1)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    check_ledger(daemon, rows)
    quick, slow, clock = (call["id"] for call in of_type(rows, "model.completed")[0]["calls"])
    ends = {row["call_id"]: row["status"] for row in of_type(rows, "tool.finished")}
    assert ends == {quick: "ok", slow: "interrupted", clock: "ok"}
    assert ledger(daemon) == [quick]
    assert len(of_type(rows, "tool.started")) == 3
    assert "[interrupted]" in of_type(rows, "reply.sent")[0]["text"]
    assert of_type(rows, "step.retry") == []


def test_a_question_that_nobody_answers_in_time_is_denied(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"approvals": {"timeout_s": 1}}).start()
    session = new_session(daemon)
    accepted(daemon, session, '/tools confirm {"question": "May I?"} ; clock')
    asked = wait_event(daemon, session, "approval.requested")
    assert (asked["name"], asked["question"]) == ("confirm", "May I?")
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    (expired,) = of_type(rows, "approval.expired")
    assert (expired["approval_id"], expired["by"]) == (asked["approval_id"], "")
    assert "Nobody answered in time" in of_type(rows, "reply.sent")[0]["text"]
    with pytest.raises(ControlRefusedError) as refused:
        daemon.control("decide", approval_id=asked["approval_id"], granted=True)
    assert (refused.value.slug, "expired" in str(refused.value)) == ("conflict", True)


def test_a_shorter_time_counts_from_the_restart_that_brings_it(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, "/ask May I?")
    wait_event(daemon, session, "approval.requested")
    (pending,) = daemon.control("approvals")
    assert pending["expires_at"] == pending["asked_at"] + 86_400
    assert (pending["name"], pending["session_id"]) == ("confirm", session)
    daemon.write_config(tables={"approvals": {"timeout_s": 1}})
    daemon.wait_ready(above=1)
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "approval.expired")
    assert of_type(rows, "turn.resumed")[0]["cause"] == "approval"
