"""A real daemon in a Slack workspace, as an operator sees it: the channel, its sessions, what is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.counterparts.slack import Workspace
from tests.counterparts.slack_ledger import Refuse
from tests.process.harness import Daemon
from tests.waiting import wait_for


@pytest.fixture
def slack() -> Iterator[Workspace]:
    with Workspace() as workspace:
        yield workspace


@pytest.fixture
def daemon(slack: Workspace) -> Iterator[Daemon]:
    table = slack.settings(app_token="env:APP", bot_token="env:BOT")
    secrets = {"APP": slack.app_token, "BOT": slack.bot_token}
    with Daemon(tables={"slack": table}, environment=secrets) as one:
        yield one.start()


@pytest.fixture
def netclaw(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
    return CommandLine()


def wait_for_channel(daemon: Daemon, state: str) -> None:
    def there() -> bool:
        return [one["state"] for one in daemon.status()["channels"]] == [state]

    wait_for(there, 10, f"the channel to be {state}")


def outbox(netclaw: CommandLine, state: str) -> dict[str, Any]:
    """Wait for the one message that is not sent to be in this state."""

    def found() -> dict[str, Any] | None:
        return next((m for m in netclaw.json("outbox", "list") if m["state"] == state), None)

    message = wait_for(found, 10, f"a message that is {state}")
    assert message is not None
    return message


def test_what_slack_refuses_is_seen_mended_and_sent(
    daemon: Daemon, netclaw: CommandLine, slack: Workspace
) -> None:
    wait_for_channel(daemon, "connected")
    slack.always("chat.postMessage", Refuse("channel_not_found"))
    asked = slack.say("ada", "general", "/count 3 0")
    failed = outbox(netclaw, "failed")
    shown = netclaw("status").stdout
    assert "  channel        slack: connected for " in shown
    assert ", 1 failed\n" in shown
    assert "  outbox         1 failed: `netclaw outbox list` says what to do\n" in shown
    assert f"`netclaw outbox retry {failed['id']}`" in netclaw("outbox", "list").stdout
    (session,) = netclaw.json("sessions", "list")["sessions"]
    assert (session["channel"], session["alias"]) == ("slack", failed["route"])
    slack.always("chat.postMessage", None)
    assert netclaw("outbox", "retry", failed["id"]).exit_code == 0
    wait_for(lambda: not netclaw.json("outbox", "list"), 10, "the reply to be sent")
    assert [message.text for message in slack.answers(asked)] == ["1 2 3"]
    assert netclaw("outbox", "list").stdout == "All that was to be sent is.\n"
    assert netclaw("status").exit_code == 0


def test_a_channel_that_is_down_is_degraded(
    daemon: Daemon, netclaw: CommandLine, slack: Workspace
) -> None:
    wait_for_channel(daemon, "connected")
    slack.always("apps.connections.open", Refuse("invalid_auth"))
    slack.drop_sockets()
    wait_for_channel(daemon, "refused")
    result = netclaw("status")
    assert result.exit_code == 1
    assert "  channel        slack: refused by the platform, " in result.stdout
    assert "  degraded       The channel slack is refused: " in result.stdout
