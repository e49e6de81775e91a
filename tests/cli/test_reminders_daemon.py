"""Reminders of a real daemon, by the command line and over HTTP: what one sets the other knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.process.harness import Daemon
from tests.waiting import wait_for

#: Due in years, so that a test alone says when it runs.
NEVER_YET = ("--at", "2099-01-01T08:00", "--tz", "Europe/Berlin")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as one:
        yield one.start()


@pytest.fixture
def netclaw(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
    return CommandLine()


def run_to_the_end(netclaw: CommandLine, reminder_id: str) -> dict[str, Any]:
    """Start it, and return the occurrence once that has ended."""
    assert netclaw("reminders", "run", reminder_id).exit_code == 0

    def ended() -> dict[str, Any] | None:
        (one, *_) = netclaw.json("reminders", "show", reminder_id)["occurrences"]
        return None if one["state"] == "started" else one

    found = wait_for(ended, 10, "the end of the occurrence")
    assert found is not None
    return found


def test_a_reminder_that_is_run_speaks_in_its_session(netclaw: CommandLine) -> None:
    shown = netclaw("reminders", "add", *NEVER_YET, "look at the oven").stdout
    assert "due 2099-01-01 08:00 Europe/Berlin, in " in shown
    reminder_id = shown.split()[1].rstrip(",")
    one = run_to_the_end(netclaw, reminder_id)
    assert (one["state"], one["reason"]) == ("done", "")
    session = netclaw.json("reminders", "show", reminder_id)["session_id"]
    assert "look at the oven" in netclaw("sessions", "show", session).stdout
    assert "  done  " in netclaw("reminders", "show", reminder_id).stdout
    assert "look at the oven" in netclaw("status").stdout


def test_what_one_side_changes_the_other_sees(netclaw: CommandLine, daemon: Daemon) -> None:
    body = {"text": "count", "cron": "0 8 1 1 *", "tz": "Asia/Tokyo"}
    first, again = (
        daemon.ask("/api/reminders", method="POST", data=body, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    made = first.json
    assert (first.status, again.json) == (201, made)
    assert netclaw("reminders", "pause", made["id"]).exit_code == 0
    path = f"/api/reminders/{made['id']}"
    assert daemon.ask(path).json["state"] == "paused"
    assert daemon.ask(f"{path}/resume", method="POST").json["next_at"] == made["next_at"]
    assert netclaw("reminders", "remove", made["id"]).stdout.startswith("Removed: ")
    assert daemon.ask(path).status == 404


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--at", "25:00"), "25:00"),
        (("--at", "2001-01-01T08:00"), "2001"),
        (("--cron", "0 8 * *"), "4 fields and needs 5"),
        (("--cron", "0 0 30 2 *"), "0 0 30 2 *"),
        (("--in", "30s", "--tz", "Mars/Olympus"), "Mars/Olympus"),
        (("--in", "30s", "--session", "s_none"), "s_none"),
        (("--in", "0s"), "more than 0 s"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_to_do(
    netclaw: CommandLine, options: tuple[str, ...], words: str
) -> None:
    result = netclaw("reminders", "add", *options, "look")
    what, remedy = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in what
    assert remedy.strip()
