"""``netclaw outbox``: what is stuck, why, and what to type."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.outgoing import NewOutgoing, Outgoing, OutgoingId, OutgoingKind
from netclawd.core.session import OutboxState, SessionId, TurnId
from tests.cli.conftest import CommandLine
from tests.service_double import ServiceDouble

Messages = list[Outgoing]


def message(name: str, state: OutboxState, **more: Any) -> Outgoing:
    now = time.time()
    values: dict[str, Any] = {
        "id": OutgoingId(name),
        "channel": "slack",
        "route": "T1/C1/1700.1",
        "kind": OutgoingKind.REPLY,
        "state": state,
        "text": "It is\x1b done.",
        "version": 1,
        "receipts": (),
        "session_id": SessionId("s_1"),
        "turn_id": TurnId(name),
        "requester": "U1",
        "error": "",
        "attempts": 0,
        "at": now - 500,
        "changed_at": now - 3_630,
        "due_at": now - 301,
        "expires_at": None,
    }
    return Outgoing(**(values | more))


@pytest.fixture
def kept(server: ControlServer, service: ServiceDouble) -> Messages:
    """A message in each state."""
    error = {"error": "Slack knows no such channel. Invite the app.", "attempts": 2}
    service.messages += [
        message("t_sent", OutboxState.SENT),
        message("t_dropped", OutboxState.DROPPED),
        message("t_waits", OutboxState.PENDING, due_at=time.time() + 3_630, **error),
        message("t_lost", OutboxState.AMBIGUOUS, receipts=("1700.2",)),
        message("t_failed", OutboxState.FAILED, **error),
    ]
    return service.messages


def test_what_has_not_arrived_is_listed_with_what_to_type(run: CommandLine, kept: Messages) -> None:
    shown = run("outbox", "list").stdout
    assert "\x1b" not in shown
    head, *rows = shown.splitlines()
    assert head.split() == ["MESSAGE", "KIND", "STATE", "SINCE", "TRIES", "TO", "TEXT"]
    assert [row.split()[0] for row in rows[:3]] == ["t_waits", "t_lost", "t_failed"]
    assert "pending    1 h ago  2      slack T1/C1/1700.1  It is\\x1b done." in rows[0]
    why = "Slack knows no such channel. Invite the app."
    assert rows[3:] == [
        f"t_waits: tried again in 1 h: {why}",
        "t_lost: nobody knows whether it has arrived. Look into the conversation: if it is not there, "
        "`netclaw outbox retry t_lost` sends it; if it is, `netclaw outbox drop t_lost` ends the matter.",
        f"t_failed: not delivered: {why} `netclaw outbox retry t_failed` sends it again, "
        "`netclaw outbox drop t_failed` gives it up.",
    ]


def test_all_is_what_was_sent_or_dropped_too(run: CommandLine, kept: Messages) -> None:
    assert [each["id"] for each in run.json("outbox", "list", "--all")] == [m.id for m in kept]
    (lost,) = (each for each in run.json("outbox", "list") if each["id"] == "t_lost")
    assert (lost["state"], lost["receipts"], lost["text"]) == (
        "ambiguous",
        ["1700.2"],
        "It is\x1b done.",
    )
    assert "--limit 10" in run("outbox", "list", "--limit", "2").stdout


def test_an_empty_outbox_says_so(run: CommandLine, kept: Messages) -> None:
    kept.clear()
    assert run("outbox", "list").stdout == "All that was to be sent is.\n"
    assert run("outbox", "list", "--all").stdout == "The outbox is empty.\n"
    assert run.json("outbox", "list") == []


def test_a_retry_and_a_drop_say_what_they_have_done(run: CommandLine, kept: Messages) -> None:
    named = "a reply to slack T1/C1/1700.1 (It is\\x1b done.)"
    assert run("outbox", "retry", "t_failed").stdout == (
        f"To be sent now: t_failed, {named}. `netclaw outbox list` shows it until it is.\n"
    )
    assert run("outbox", "drop", "t_lost").stdout == (
        f"Dropped: t_lost, {named}. It will not be sent any more. "
        "1 part of it that arrived stays there.\n"
    )
    assert run.json("outbox", "drop", "t_failed")["state"] == "dropped"
    kept.append(message("t_said", OutboxState.FAILED, kind=OutgoingKind.SAID, text=""))
    what = "t_said, part of a reply to slack T1/C1/1700.1 (no text)"
    assert run("outbox", "drop", "t_said").stdout.startswith(f"Dropped: {what}. It will not be")
    result = run("outbox", "drop", "t_none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no message t_none" in result.stderr


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_without_a_daemon_nothing_is_changed(run: CommandLine, command: str) -> None:
    assert run("outbox", command, "t_lost").exit_code == 3


def test_without_a_daemon_the_store_is_read(run: CommandLine, home: Path) -> None:
    (home / "state").mkdir()
    store = SqliteStore.open(str(home / "state" / "netclawd.db"))
    notice = NewOutgoing(
        OutgoingId("n_1"), "slack", "T1/C1/1.0", OutgoingKind.NOTICE, "I was restarted."
    )
    store.outgoing.put([notice], 1_700_000_000.0)
    store.close()
    shown = run("outbox", "list")
    assert "slack T1/C1/1.0  I was restarted." in shown.stdout
    assert "no daemon runs, so nothing is delivered; `netclaw daemon start`" in shown.stderr
    (found,) = run.json("outbox", "list")
    assert (found["id"], found["state"], found["session_id"]) == ("n_1", "pending", None)
