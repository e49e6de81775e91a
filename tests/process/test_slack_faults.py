"""Slack that redelivers, reorders, breaks off, refuses and says nonsense: each message is answered once.

What nothing but a person can mend is shown to one, and is not tried in a storm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netclawd.core.outgoing import OutgoingKind
from netclawd.core.session import OutboxState
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Cut, Limited, Message, Page, Refuse
from tests.counterparts.slack_ledger import Fault as FaultOf
from tests.process.faults import Fault
from tests.process.harness import PROVE, Daemon
from tests.process.slack import (
    channel_of,
    check_once,
    connected,
    counted,
    in_slack,
    notices,
    replies,
    wait_replies,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long


def outbox(daemon: Daemon) -> dict[str, Any]:
    """Return the messages of the outbox by the thread that they belong to."""
    return {m["route"].rsplit("/", 1)[-1]: m for m in daemon.control("outbox", all=True)}


def answers_to(daemon: Daemon, user: str) -> list[Any]:
    """Return the replies of the outbox to somebody."""
    rows = daemon.control("outbox", all=True)
    return [m for m in rows if (m["requester"], m["kind"]) == (user, OutgoingKind.REPLY)]


def state_of(daemon: Daemon, message: Message) -> str:
    return str(outbox(daemon).get(message.thread, {}).get("state", "none"))


def wait_state(
    daemon: Daemon, message: Message, state: OutboxState, timeout_s: float = 15.0
) -> Any:
    """Wait until what answers a message is in a state; return it."""
    wait_for(
        lambda: state_of(daemon, message) == state,
        timeout_s,
        lambda: f"{state}: {outbox(daemon)}\n{daemon.errors()}",
    )
    return outbox(daemon)[message.thread]


def test_whatever_comes_over_the_socket_each_message_is_answered_once(slack: Workspace) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        slack.send_raw("no JSON")
        slack.send_raw('{"type": []}')
        strange = [slack.send({"type": kind, "payload": {}}) for kind in ("slash_commands", "new")]
        expected: dict[Message, str] = {}
        slack.hold()
        for number, channel in enumerate(("general", DIRECT, "random"), 1):
            expected[slack.say("ada", channel, f"/count {number}")] = counted(number)
        slack.release(lambda events: events[::-1])
        wait_replies(slack, daemon, expected)
        for message in expected:
            slack.repeat(message)
        slack.disconnect()
        wait_for(lambda: len(slack.sockets) == 2, 10.0, "the next socket")
        first, second = slack.sockets
        wait_for(lambda: first.closed_at, 10.0, "the first one to be left")
        assert first.closed_at is not None
        assert second.opened_at < first.closed_at
        slack.fault("socket", Cut())
        if PROVE:  # The pauses grow.
            slack.fault("apps.connections.open", Page(), Page(200), Limited(1))
        slack.drop_sockets()
        expected[slack.say("ada", "general", "/count 4")] = counted(4)
        wait_replies(slack, daemon, expected, timeout_s=90.0)
        check_once(slack, expected)
        assert all(delivery and delivery.acknowledged_at for delivery in strange)
        assert channel_of(daemon)["state"] == "connected"


def test_whatever_a_post_is_answered_with_it_is_there_once(slack: Workspace) -> None:
    faults: dict[str, FaultOf] = {
        "limited": Limited(1),
        "500": Page(),
        "HTML": Page(200),
        "lost on its way": Cut(),
        "lost on the way back": Cut(performed=True),
        "late": Cut(late_s=1.0),
    }
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        slack.fault("chat.postMessage", *faults.values())
        expected = {
            slack.say("ada", "general", f"/count {number}"): counted(number)
            for number in range(1, len(faults) + 1)
        }
        wait_replies(slack, daemon, expected, timeout_s=40.0)
        check_once(slack, expected)
        wait_for(lambda: not daemon.control("outbox"), 10.0, "all to be sent")
        assert len(slack.posts) == len(expected)
        limited, after = slack.called("chat.postMessage")[:2]
        assert after.at - limited.at >= 1.0


def test_what_only_a_person_can_mend_is_shown_and_sent_once_mended(slack: Workspace) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        slack.fault("chat.postMessage", Refuse("channel_not_found"))
        refused = slack.say("ada", "general", "/count 3")
        failed = wait_state(daemon, refused, OutboxState.FAILED)
        assert "channel_not_found" in failed["error"]
        slack.fault("chat.postMessage", Cut(performed=True))
        slack.always("conversations.replies", Refuse("missing_scope"))
        doubtful = slack.say("ada", "general", "/count 4")
        ambiguous = wait_state(daemon, doubtful, OutboxState.AMBIGUOUS)
        assert "missing_scope" in ambiguous["error"]
        told = channel_of(daemon)
        assert (told["failed"], told["ambiguous"]) == (1, 1)
        daemon.control("retry_outgoing", message_id=failed["id"])
        wait_replies(slack, daemon, {refused: counted(3)})
        daemon.control("drop_outgoing", message_id=ambiguous["id"])
        check_once(slack, {refused: counted(3), doubtful: counted(4)})


def test_a_long_answer_comes_in_parts_that_slack_takes(slack: Workspace) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        slack.fault("chat.postMessage", Refuse("msg_too_long"))
        said = slack.say("ada", "general", "/count 3000")
        wait_for(lambda: replies(slack, said), 20.0, "an answer")
        wait_state(daemon, said, OutboxState.SENT)
        parts = replies(slack, said)
        assert " ".join(parts).split() == counted(3000).split()
        assert len(parts) > 1
        assert len(slack.posts) == len(parts)


def test_a_token_that_slack_refuses_is_no_reason_to_storm(slack: Workspace) -> None:
    slack.always("apps.connections.open", Refuse("invalid_auth"))
    with in_slack(slack) as daemon:
        daemon.start()
        wait_for(lambda: channel_of(daemon).get("state") == "refused", 10.0, "it to be refused")
        assert "invalid_auth" in channel_of(daemon)["trouble"]
        assert daemon.status()["degraded"]
        said = slack.say("ada", "general", "/count 2")
        slack.always("apps.connections.open", None)
        assert daemon.reload(force=True)["outcome"] == "applied"
        wait_replies(slack, daemon, {said: counted(2)})
        assert len(slack.called("apps.connections.open")) == 2
        check_once(slack, {said: counted(2)})


@pytest.mark.prove
def test_a_token_that_is_taken_back_keeps_what_waits_for_the_next_one(slack: Workspace) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        slack.always("chat.postMessage", Refuse("token_revoked"))
        waits = slack.say("ada", "general", "/count 3")
        wait_for(lambda: channel_of(daemon)["state"] == "refused", 10.0, "it to be refused")
        assert "token_revoked" in channel_of(daemon)["trouble"]
        tries = len(slack.called("chat.postMessage"))
        slack.always("chat.postMessage", None)
        assert daemon.reload(force=True)["outcome"] == "applied"
        wait_replies(slack, daemon, {waits: counted(3)})
        check_once(slack, {waits: counted(3)})
        assert len(slack.called("chat.postMessage")) == tries + 1


def test_who_may_not_talk_is_told_so_once(slack: Workspace) -> None:
    ada, general = slack.user("ada"), slack.channel("general")
    with in_slack(slack, allow_users=[ada], allow_channels=[general]) as daemon:
        daemon.start()
        connected(daemon, slack)
        turned_away = [
            slack.say("eve", "general", "/count 9"),
            slack.say("eve", DIRECT, "/count 9"),
            slack.say("ada", "random", "/count 9"),
        ]
        heard = slack.say("ada", "general", "/count 2")
        wait_replies(slack, daemon, {heard: counted(2)})
        wait_for(
            lambda: all(len(replies(slack, m)) == 1 for m in turned_away),
            10.0,
            lambda: f"one sentence each: {[replies(slack, m) for m in turned_away]}",
        )
        again = [slack.say("eve", "general", "/count 9"), slack.say("eve", DIRECT, "/count 9")]
        assert all("I'm not set up to" in replies(slack, m)[0] for m in turned_away)
        wait_for(lambda: not slack.unacknowledged, 10.0, "all to be acknowledged")
        wait_for(lambda: not daemon.control("outbox"), 10.0, "all to be sent")
        assert [replies(slack, m) for m in again] == [[], []]


def test_who_is_taken_off_the_list_before_the_answer_is_not_answered(
    slack: Workspace, tmp_path: Path
) -> None:
    ada, bob = slack.user("ada"), slack.user("bob")
    hold = Fault("hold", "before", "DrainTurns", until=tmp_path / "drain")
    with in_slack(slack, faults=[hold], allow_users=[ada, bob]) as daemon:
        daemon.start()
        connected(daemon, slack)
        daemon.wait_kept()
        daemon.tables["slack"] = {**daemon.tables["slack"], "allow_users": [ada]}
        daemon.write_config()
        daemon.control("reload")
        wait_for(lambda: hold.reached, 15.0, daemon.errors)
        said = {slack.say(name, "general", "/count 5"): name for name in ("ada", "bob")}
        wait_for(lambda: all(notices(slack, m) for m in said), 10.0, "a sentence to each")
        hold.release()
        daemon.wait_ready(above=1)
        from_ada, from_bob = said
        wait_replies(slack, daemon, {from_ada: counted(5)})
        wait_for(
            lambda: [m["state"] for m in answers_to(daemon, bob)] == [OutboxState.DROPPED],
            15.0,
            lambda: f"the answer to be dropped: {answers_to(daemon, bob)}",
        )
        assert "not set up to talk with you" in answers_to(daemon, bob)[0]["error"]
        assert replies(slack, from_bob) == []


def test_a_question_has_buttons_and_outlives_a_restart(slack: Workspace) -> None:
    ada = slack.user("ada")
    with in_slack(slack, allow_users=[ada]) as daemon:
        daemon.start()
        connected(daemon, slack)
        said = slack.say("ada", "general", "/ask May I?")

        wait_for(
            lambda: any(m.buttons for m in slack.answers(said)),
            10.0,
            lambda: f"the question\n{daemon.errors()}",
        )
        (asked,) = [m for m in slack.answers(said) if m.buttons]
        assert "May I?" in asked.text
        pressed = slack.press("eve", asked, "Grant")
        assert pressed is not None
        wait_for(lambda: slack.whispers("eve"), 10.0, "a word to who may not press it")
        assert asked.buttons
        assert daemon.reload(force=True)["outcome"] == "applied"
        connected(daemon, slack)
        slack.press("ada", asked, "Grant")
        wait_for(lambda: not asked.buttons, 10.0, lambda: f"the buttons to go\n{daemon.errors()}")
        wait_for(
            lambda: any(m.text.startswith("The answer is here") for m in slack.answers(said)),
            10.0,
            lambda: f"the reply: {replies(slack, said)}\n{daemon.errors()}",
        )
        assert len(slack.answers(said)) == 2
        assert len(slack.answers(said)) == len([m for m in slack.posts if not m.only_for])


@pytest.mark.prove
def test_a_socket_that_has_fallen_silent_is_replaced(slack: Workspace) -> None:
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        slack.sockets[0].silence()
        said = slack.say("ada", "general", "/count 3")
        wait_replies(slack, daemon, {said: counted(3)}, timeout_s=45.0)
        check_once(slack, {said: counted(3)})
        assert len(slack.sockets) == 2
