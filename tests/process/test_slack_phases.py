"""A message that comes in any phase of the daemon is answered exactly once, by the workspace's ledger.

One restart is held at each of its steps, and somebody says something at each; so is a stop, a start, and a
death. Nobody says anything again.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from netclawd.core import conversations
from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Message
from tests.process.faults import Fault
from tests.process.harness import Daemon, full_or
from tests.process.slack import (
    NOTICES,
    check_notices,
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


#: Where a restart is held, in order: the gate is closed, turns have ended, the store is closed, before
#: execve; in the new image before it has its listeners, before it serves, while it warms up.
STEPS = (
    ("before", "DrainTurns", 1),
    ("before", "Quiesce", 1),
    ("before", "Settle", 1),
    ("before", "Exec", 1),
    ("before", "ClaimListeners", 2),
    ("before", "Serve", 2),
    ("before", "WarmUp", 2),
    ("before", "OpenGate", 2),
)


#: Between two pairs of messages, seconds.
PACE_S = 0.15


class Talk:
    """People who say what is answered by a number of words of their own."""

    def __init__(self, slack: Workspace) -> None:
        self._slack = slack
        self.expected: dict[Message, str] = {}

    def say(self, *, direct: bool = False, thread: Message | None = None) -> Message:
        number = len(self.expected) + 1
        channel = DIRECT if direct else "general"
        said = self._slack.say("ada", channel, f"/count {number}", thread)
        self.expected[said] = counted(number)
        return said


def talk_through_restart(talk: Talk, thread: Message, daemon: Daemon) -> None:
    """Have people say something in many places until a next generation serves."""
    before = daemon.generation()
    daemon.control("reload", force=True)

    def restarted() -> bool:
        talk.say(direct=len(talk.expected) % 4 == 0)
        talk.say(thread=thread)
        return daemon.wait_ready() > before

    wait_for(restarted, 20.0, lambda: f"the restart\n{daemon.errors()}", interval_s=PACE_S)


def wait_reached(fault: Fault, daemon: Daemon) -> None:
    wait_for(lambda: fault.reached, 15.0, lambda: f"{fault.effect}\n{daemon.errors()}")


def wait_told(slack: Workspace, messages: Sequence[Message]) -> None:
    """Wait until each of these conversations has heard a sentence."""
    wait_for(lambda: all(notices(slack, m) for m in messages), 10.0, "a sentence to each")


def spoke_on(talk: Talk, thread: Message, daemon: Daemon, generation: int) -> bool:
    """Have two people say something; return whether a generation above this one serves by now."""
    talk.say(direct=len(talk.expected) % 4 == 0)
    talk.say(thread=thread)
    return daemon.wait_ready() > generation


def held(folder: Path) -> list[Fault]:
    return [
        Fault("hold", when, effect, nth, until=folder / f"{effect}-{nth}")
        for when, effect, nth in STEPS
    ]


@pytest.mark.parametrize("mode", ["defer", "reject"])
def test_a_message_in_any_phase_of_a_restart_is_answered_once(
    slack: Workspace, mode: str, tmp_path: Path
) -> None:
    talk, faults = Talk(slack), held(tmp_path)
    with in_slack(slack, faults=faults, tables={"drain": {"new_work": mode}}) as daemon:
        daemon.start()
        connected(daemon, slack)
        ready = talk.say()
        wait_replies(slack, daemon, talk.expected)
        daemon.control("reload", force=True)
        closed: list[Message] = []
        for fault in faults:
            wait_reached(fault, daemon)
            said = talk.say(direct=len(talk.expected) % 2 == 0)
            if fault.effect in ("DrainTurns", "Quiesce"):
                closed += [said, talk.say(thread=ready)]
                wait_told(slack, closed)
            fault.release()
        daemon.wait_ready(above=1)
        refused = closed if mode == "reject" else []
        expected = {m: text for m, text in talk.expected.items() if m not in refused}
        wait_replies(slack, daemon, expected)
        threads = {m: t for m, t in expected.items() if m.thread != ready.thread}
        check_once(slack, threads)
        check_notices(slack, list(talk.expected), restarts=1)
        in_thread = [text for m, text in expected.items() if m.thread == ready.thread]
        assert replies(slack, ready) == in_thread
        sentence = conversations.REJECTED if refused else conversations.DEFERRED
        assert {text for m in closed for text in notices(slack, m)} == {sentence}
        assert all(replies(slack, m) == [] for m in refused if m.thread != ready.thread)


def test_what_is_said_while_no_daemon_runs_is_answered_once_there_is_one(slack: Workspace) -> None:
    talk = Talk(slack)
    with in_slack(slack) as daemon:
        talk.say(direct=True)
        daemon.start()
        wait_replies(slack, daemon, talk.expected)
        assert daemon.stop() == 0
        talk.say()
        daemon.start()
        wait_replies(slack, daemon, talk.expected)
        daemon.kill()
        talk.say(direct=True)
        daemon.start()
        wait_replies(slack, daemon, talk.expected)
        check_once(slack, talk.expected)
        check_notices(slack, list(talk.expected), restarts=0)


def test_ten_restarts_under_a_stream_of_messages_answer_each_once(slack: Workspace) -> None:
    restarts = full_or(2, 10)
    talk = Talk(slack)
    with in_slack(slack) as daemon:
        daemon.start()
        connected(daemon, slack)
        thread = talk.say()
        for _ in range(restarts):
            talk_through_restart(talk, thread, daemon)
        wait_replies(slack, daemon, talk.expected, timeout_s=30.0)
        alone = {m: t for m, t in talk.expected.items() if m.thread != thread.thread}
        check_once(slack, alone)
        in_thread = [t for m, t in talk.expected.items() if m.thread == thread.thread]
        assert sorted(replies(slack, thread)) == sorted(in_thread)
        check_notices(slack, list(talk.expected), restarts)
        assert len(notices(slack, thread)) <= restarts


def test_a_turn_that_was_cut_goes_on_in_its_thread_unasked(slack: Workspace) -> None:
    with in_slack(slack, tables={"drain": {"timeout_s": 1}}) as daemon:
        daemon.start()
        connected(daemon, slack)
        said = slack.say("ada", "general", "/count 20 0.15")
        wait_for(lambda: slack.answers(said), 10.0, lambda: f"its first words\n{daemon.errors()}")
        assert daemon.reload(force=True)["outcome"] == "applied"
        wait_replies(slack, daemon, {said: counted(20)})
        check_once(slack, {said: counted(20)})
        (reply,) = [m for m in slack.answers(said) if m.text not in NOTICES]
        gaps = [b - a for (a, _), (b, _) in zip(reply.history, reply.history[1:], strict=False)]
        assert len(gaps) >= 2
        # The last one shows the whole reply, when there is one.
        assert all(gap > 0.9 for gap in gaps[:-1])
        assert notices(slack, said) == []


@pytest.mark.parametrize("mode", ["defer", "reject"])
def test_what_is_said_during_a_stop_is_told_of_it(
    slack: Workspace, mode: str, tmp_path: Path
) -> None:
    talk, hold = Talk(slack), Fault("hold", "before", "DrainTurns", until=tmp_path / "drain")
    with in_slack(slack, faults=[hold], tables={"drain": {"new_work": mode}}) as daemon:
        daemon.start()
        connected(daemon, slack)
        daemon.signal(signal.SIGTERM)
        wait_reached(hold, daemon)
        said = [talk.say(), talk.say(direct=True)]
        wait_told(slack, said)
        hold.release()
        assert daemon.wait_exit() == 0
        later = talk.say()
        daemon.start()
        expected = talk.expected if mode == "defer" else {later: talk.expected[later]}
        wait_replies(slack, daemon, expected)
        check_once(slack, expected)
        defer, reject = conversations.DEFERRED_AT_STOP, conversations.REJECTED_AT_STOP
        assert {text for m in said for text in notices(slack, m)} == {
            defer if mode == "defer" else reject
        }
        check_notices(slack, list(talk.expected), restarts=1)


@pytest.mark.prove
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_reply_that_is_late_after_a_restart_is_announced_once(slack: Workspace, how: str) -> None:
    with in_slack(slack, tables={"drain": {"timeout_s": 1}}) as daemon:
        daemon.start()
        connected(daemon, slack)
        late, quick = (slack.say("ada", "general", f"/count {n} 0.5") for n in (34, 12))
        wait_for(lambda: slack.answers(late), 10.0, lambda: f"its first words\n{daemon.errors()}")
        daemon.interrupt(how)
        wait_replies(slack, daemon, {late: counted(34), quick: counted(12)}, timeout_s=40.0)
        check_once(slack, {late: counted(34), quick: counted(12)})
        assert notices(slack, late) == [conversations.LATE]
        assert notices(slack, quick) == []
