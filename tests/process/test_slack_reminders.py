"""Reminders of a conversation in Slack: in its thread, once, and only while who asked may talk."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.counterparts.slack import Workspace
from tests.counterparts.slack_ledger import Message
from tests.process.faults import TRACE
from tests.process.harness import Daemon
from tests.process.slack import connected, counted, in_slack, replies, wait_replies
from tests.process.test_reminders import Calendar
from tests.waiting import wait_for

pytestmark = pytest.mark.long


def ask_for_a_reminder(slack: Workspace, daemon: Daemon) -> tuple[Message, dict[str, Any]]:
    """Have the agent set one in 100 s; return what was said for it, and the reminder."""
    asked = {"action": "add", "text": "/count 3", "in_s": 100}
    said = slack.say("ada", "general", f"/tool remind {json.dumps(asked)}")
    wait_for(lambda: replies(slack, said), 15.0, lambda: f"an answer\n{daemon.errors()}")
    (made,) = daemon.control("reminders")["reminders"]
    return said, made


def test_a_reminder_of_a_thread_comes_into_its_thread_once(slack: Workspace) -> None:
    with in_slack(slack, faults=[TRACE]) as daemon:
        calendar = Calendar(daemon)
        daemon.start()
        connected(daemon, slack)
        said, first = ask_for_a_reminder(slack, daemon)
        # An operator's goes into the same thread.
        other = calendar.add("/count 4", in_s=200, session_id=first["session_id"])
        assert daemon.reload(force=True)["outcome"] == "applied"
        calendar.put_forward(100)
        calendar.wait_done(first["id"])
        wait_replies(slack, daemon, {said: counted(3)})
        daemon.kill()
        calendar.put_forward(100)
        daemon.start()
        calendar.wait_done(other)
        wait_replies(slack, daemon, {said: counted(4)})
        assert replies(slack, said)[1:] == [counted(3), counted(4)]
        assert daemon.stop() == 0


def test_who_may_not_talk_any_more_is_reminded_of_nothing(slack: Workspace) -> None:
    with in_slack(slack, faults=[TRACE]) as daemon:
        calendar = Calendar(daemon)
        daemon.start()
        connected(daemon, slack)
        said, made = ask_for_a_reminder(slack, daemon)
        assert daemon.stop() == 0
        daemon.tables["slack"] = {**daemon.tables["slack"], "allow_users": ["UNOBODY"]}
        daemon.write_config()
        calendar.put_forward(100)
        daemon.start()
        calendar.wait_done(made["id"])
        dropped = wait_for(
            lambda: [m for m in daemon.control("outbox", all=True) if m["state"] == "dropped"],
            15.0,
            lambda: f"a dropped reply: {daemon.control('outbox', all=True)}\n{daemon.errors()}",
        )
        assert dropped[0]["error"]
        assert counted(3) not in replies(slack, said)
        assert daemon.stop() == 0
