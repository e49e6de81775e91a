"""The channel in what a restart may come to: one that fails, one that takes Slack away, one that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from netclawd.core import conversations
from tests.counterparts.slack import Workspace
from tests.counterparts.slack_ledger import Held, Limited
from tests.process.faults import Fault
from tests.process.slack import (
    channel_of,
    check_once,
    connected,
    counted,
    in_slack,
    notices,
    wait_replies,
)
from tests.waiting import wait_for


def test_after_an_execve_that_failed_the_channel_is_there_again_and_nothing_is_lost(
    slack: Workspace, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "DrainTurns", until=tmp_path / "drain")
    refused = Fault("execve", "before", "Exec", errno="EACCES")
    with in_slack(slack, faults=[hold, refused]) as daemon:
        daemon.start()
        connected(daemon, slack)
        daemon.wait_kept()
        before = slack.say("ada", "general", "/count 3")
        daemon.control("reload", force=True)
        wait_for(lambda: hold.reached, 15.0, daemon.errors)
        during = slack.say("ada", "general", "/count 4")
        wait_for(lambda: notices(slack, during), 10.0, "the sentence")
        hold.release()
        wait_for(lambda: daemon.restarts()[0]["outcome"] == "failed", 15.0, daemon.errors)
        connected(daemon, slack)
        after = slack.say("ada", "general", "/count 5")
        expected = {before: counted(3), during: counted(4), after: counted(5)}
        wait_replies(slack, daemon, expected)
        check_once(slack, expected)
        assert notices(slack, during) == [conversations.DEFERRED]
        assert daemon.generation() == 1


def test_what_waits_for_a_channel_that_was_taken_away_is_sent_once_that_is_back(
    slack: Workspace,
) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        slack.fault("chat.postMessage", Limited(after_s=60))
        said = slack.say("ada", "general", "/count 3")
        wait_for(lambda: channel_of(daemon)["pending"] == 1, 10.0, "the reply to wait")
        settings = daemon.tables.pop("slack")
        daemon.write_config()
        daemon.wait_ready(above=1)
        wait_for(lambda: channel_of(daemon).get("state") == "absent", 10.0, "Slack to be gone")
        assert channel_of(daemon)["pending"] == 1
        daemon.tables["slack"] = settings
        daemon.write_config()
        daemon.wait_ready(above=2)
        (waiting,) = daemon.control("outbox")
        daemon.control("retry_outgoing", message_id=waiting["id"])
        wait_replies(slack, daemon, {said: counted(3)})
        check_once(slack, {said: counted(3)})


@pytest.mark.long
def test_a_slack_that_does_not_answer_holds_no_restart(slack: Workspace) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        daemon.wait_kept()
        held = Held()
        slack.fault("chat.postMessage", held)
        said = slack.say("ada", "general", "/count 3")
        wait_for(held.reached.is_set, 10.0, "the post")
        record = daemon.reload(force=True)
        assert record["drain_s"] < 5.0
        held.release()
        wait_replies(slack, daemon, {said: counted(3)})
        check_once(slack, {said: counted(3)})
