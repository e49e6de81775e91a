"""A daemon that is in a Slack workspace, and the judgement by the workspace's own ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from netclawd.core import conversations
from tests.counterparts.slack import Workspace
from tests.counterparts.slack_ledger import Message
from tests.process.faults import Fault
from tests.process.harness import Daemon
from tests.waiting import wait_for

#: Sentences about a restart, of which a conversation hears one at most for each.
NOTICES = {
    conversations.DEFERRED,
    conversations.REJECTED,
    conversations.DEFERRED_AT_STOP,
    conversations.REJECTED_AT_STOP,
    conversations.LATE,
}


def in_slack(
    slack: Workspace,
    *,
    faults: Sequence[Fault] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Daemon:
    """Make a daemon (not started) that is in a workspace; everybody may talk to it, ``settings`` aside."""
    tokens = {"app_token": "env:SLACK_APP_TOKEN", "bot_token": "env:SLACK_BOT_TOKEN"}
    return Daemon(
        faults=faults,
        tables={"slack": {**slack.settings(), **tokens, **settings}, **(tables or {})},
        environment={"SLACK_APP_TOKEN": slack.app_token, "SLACK_BOT_TOKEN": slack.bot_token},
    )


def counted(number: int) -> str:
    """Return what the agent answers to ``/count NUMBER``: who counts differently was answered by another."""
    return " ".join(str(n) for n in range(1, number + 1))


def replies(slack: Workspace, message: Message) -> list[str]:
    """Return what the agent has said in a thread, sentences about restarts aside."""
    return [m.text for m in slack.answers(message) if m.text not in NOTICES]


def notices(slack: Workspace, message: Message) -> list[str]:
    return [m.text for m in slack.answers(message) if m.text in NOTICES]


def wait_replies(
    slack: Workspace, daemon: Daemon, expected: Mapping[Message, str], timeout_s: float = 20.0
) -> None:
    """Wait until the thread of each message has its reply, and every event is acknowledged."""

    def answered() -> bool:
        whole = all(text in replies(slack, message) for message, text in expected.items())
        return whole and not slack.unacknowledged

    def missing() -> str:
        silent = [m.text for m, text in expected.items() if text not in replies(slack, m)]
        waiting = [e.payload["event"]["type"] for e in slack.unacknowledged]
        return f"answers to {silent}; not acknowledged: {waiting}\n{daemon.errors()}"

    wait_for(answered, timeout_s, missing)


def check_once(slack: Workspace, expected: Mapping[Message, str]) -> None:
    """Assert that each of these threads, one message each, has its reply once and nothing besides."""
    assert {m.text: replies(slack, m) for m in expected} == {
        m.text: [t] for m, t in expected.items()
    }


def check_notices(slack: Workspace, messages: Sequence[Message], restarts: int) -> None:
    """Assert that no conversation has heard more sentences than there were restarts."""
    heard = Counter({m.thread: len(notices(slack, m)) for m in messages})
    assert all(count <= restarts for count in heard.values()), heard


def connected(daemon: Daemon, slack: Workspace) -> None:
    """Wait until the daemon has an open socket, and says so."""
    wait_for(lambda: slack.open_sockets, 15.0, lambda: f"a socket\n{daemon.errors()}")
    wait_for(
        lambda: channel_of(daemon).get("state") == "connected",
        10.0,
        lambda: f"the channel to be connected: {channel_of(daemon)}",
    )


def channel_of(daemon: Daemon) -> dict[str, Any]:
    """Return what the status says of Slack, nothing before it is there."""
    found = [c for c in daemon.status().get("channels", []) if c["name"] == "slack"]
    return dict(found[0]) if found else {}
