"""``netclaw reminders``: what is asked of the daemon, and how its answers are worded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.reminders import (
    Missed,
    NewReminder,
    Occurrence,
    OccurrenceState,
    ReminderId,
    ReminderState,
    Schedule,
    ScheduleKind,
)
from netclawd.core.session import SessionId, TurnId
from netclawd.core.values import replace
from netclawd.errors import DrainingError
from tests.cli.conftest import CommandLine
from tests.reminders_double import NOW, RemindersDouble
from tests.service_double import ServiceDouble

FIRST = ReminderId("rem_1")
CRON = Schedule(ScheduleKind.CRON, "Europe/Berlin", cron="0 8 * * 1-5")


@pytest.fixture
def kept(server: ControlServer, service: ServiceDouble) -> RemindersDouble:
    """What the daemon that answers has."""
    return service.reminders


# -- add -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--in", "30s"], NewReminder("look", in_s=30.0)),
        (["--at", "08:00"], NewReminder("look", at="08:00")),
        (["--every", "1h30m"], NewReminder("look", every_s=5_400.0)),
        (["--cron", "0 8 * * *"], NewReminder("look", cron="0 8 * * *")),
        (
            [
                "--at=2026-11-29T08:00",
                "--tz=Asia/Tokyo",
                "--missed=all",
                "--max-late=2d",
                "--session=s",
            ],
            NewReminder(
                "look",
                at="2026-11-29T08:00",
                zone="Asia/Tokyo",
                missed=Missed.ALL,
                max_late_s=172_800.0,
                session_id=SessionId("s"),
            ),
        ),
    ],
)
def test_each_option_reaches_the_daemon(
    run: CommandLine, kept: RemindersDouble, options: list[str], asked: NewReminder
) -> None:
    assert run("reminders", "add", *options, "look").exit_code == 0
    ((said, _),) = kept.keys.values()
    assert said == asked


def test_what_was_set_is_said_with_its_time_in_its_zone(
    run: CommandLine, kept: RemindersDouble
) -> None:
    shown = run("reminders", "add", "--in", "30s", "look")
    assert shown.stdout.startswith("Set: rem_1, due 2023-11-14 23:13:50 Europe/Berlin, due for "), (
        shown
    )
    shown = run("reminders", "add", "--every", "1h", "--session", "ses_9", "look")
    assert shown.stdout.startswith("Set: rem_2, every 1h; due 2023-11-15 00:13:20 Europe/Berlin")
    assert "in the session ses_9;" in shown.stdout
    assert kept.all[FIRST].created_by.startswith("uid ")


def test_json_has_the_reminder_without_whom_the_channel_knows(
    run: CommandLine, kept: RemindersDouble
) -> None:
    made = run.json("reminders", "add", "--in", "30s", "look")
    assert (made["id"], made["occurrences"]) == ("rem_1", [])
    assert made["schedule"]["kind"] == "once"
    assert "origin" not in made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["look"], "Say when: --in 30s, --at 08:00, --every 1h or --cron '0 8 * * *'"),
        (["--in", "30s", "--cron", "* * * * *", "look"], "--in and --cron exclude each other"),
        (["--in", "30", "look"], "say the unit: 30s, 30m, 30h or 30d"),
        (["--every", "soon\x1b", "look"], "'soon\\x1b' is no duration"),
        (["--in", "30s", "  "], "TEXT is empty"),
        (["--in", "30s"], "Missing argument 'TEXT'"),
        (["--in", "30s", "--session", "", "look"], "--session is empty"),
        (["--at", "8:00", "--tz", "", "look"], "--tz is empty"),
        (["--in", "30s", "--missed", "never", "look"], "'never' is not one of"),
    ],
)
def test_what_can_not_be_meant_is_a_wrong_usage_and_asks_nobody(
    run: CommandLine, kept: RemindersDouble, arguments: list[str], words: str
) -> None:
    result = run("reminders", "add", *arguments)
    assert (result.exit_code, kept.all) == (2, {})
    assert words in result.stderr


def test_what_the_daemon_refuses_is_told_with_what_to_do(
    run: CommandLine, kept: RemindersDouble
) -> None:
    result = run("reminders", "add", "--at", "yesterday", "look")
    assert result.exit_code == 1
    what, remedy = result.stderr.splitlines()
    assert "yesterday" in what
    assert remedy.startswith("  Give a time such as ")


def test_a_restart_is_waited_for_and_sets_it_once(run: CommandLine, kept: RemindersDouble) -> None:
    kept.refusal = DrainingError("Restarting.", retry_after_s=0)
    assert run("reminders", "add", "--in", "30s", "look").exit_code == 0
    assert len(kept.all) == len(kept.keys) == 1, "under a key, so that it may be asked again"


# -- list and show -------------------------------------------------------------------------------


def test_reminders_are_listed_the_next_due_first(run: CommandLine, kept: RemindersDouble) -> None:
    assert run("reminders", "list").stdout.startswith("No reminder is set. ")
    soon, later = time.time() + 301, time.time() + 7_500
    kept.put(CRON, "later\n\x1b[2J" + "x" * 100)
    kept.change(FIRST, next_at=later)
    kept.put(Schedule(ScheduleKind.ONCE, "UTC", at=soon), "soon")
    kept.put(CRON, "gone")
    kept.remove(ReminderId("rem_3"))
    head, *rows = run("reminders", "list").stdout.splitlines()
    assert head.split() == ["REMINDER", "NEXT", "SCHEDULE", "STATE", "TEXT"]
    assert [row.split()[0] for row in rows] == ["rem_2", "rem_1"]
    assert "UTC, in 5 min" in rows[0]
    assert "Europe/Berlin, in 2 h " in rows[1]
    assert "  cron 0 8 * * 1-5  active  later \\x1b[2Jxxx" in rows[1]
    assert len(run("reminders", "list", "--all").stdout.splitlines()) == 4


def test_with_json_each_carries_its_occurrences(run: CommandLine, kept: RemindersDouble) -> None:
    kept.put(CRON, "look")
    kept.run(FIRST)
    (found,) = run.json("reminders", "list")
    (one,) = found["occurrences"]
    assert one == {
        "due_at": NOW + 1,
        "state": "started",
        "skipped": 0,
        "turn_id": "trn_1",
        "started_at": NOW + 1,
        "ended_at": None,
        "reason": "",
        "waits_for": "",
    }


def test_more_than_a_page_is_listed_whole(run: CommandLine, kept: RemindersDouble) -> None:
    for number in range(450):
        kept.put(Schedule(ScheduleKind.ONCE, "UTC", at=NOW + number % 7), "look")
    found = [each["id"] for each in run.json("reminders", "list")]
    assert sorted(found) == sorted(kept.all)


def test_one_that_failures_have_paused_says_what_to_do(
    run: CommandLine, kept: RemindersDouble
) -> None:
    kept.put(CRON, "look")
    paused = {"state": ReminderState.PAUSED, "failures": 5, "next_at": None}
    kept.change(FIRST, reason="It failed 5 times in a row.", **paused)
    *_, row, trouble = run("reminders", "list").stdout.splitlines()
    assert "paused, 5 failures" in row
    assert trouble == (
        "rem_1 is paused: It failed 5 times in a row. "
        "Once that is mended: `netclaw reminders resume rem_1`."
    )


def test_a_reminder_is_shown_with_what_became_of_it(
    run: CommandLine, kept: RemindersDouble
) -> None:
    kept.put(CRON, "look\nat it", new=NewReminder("look", max_late_s=0.0))
    shown = run("reminders", "show", FIRST).stdout
    assert "so far    it has not been due yet" in shown
    assert "runs late, at most 1 min\n" in shown, "that is on time"
    kept.change(FIRST, max_late_s=3600.0)
    kept.run(FIRST)
    kept.ran[FIRST] += [
        Occurrence(
            FIRST,
            NOW + 60,
            OccurrenceState.FAILED,
            turn_id=TurnId("trn_2"),
            started_at=NOW + 240,
            ended_at=NOW + 245,
            reason="No model.",
        ),
        Occurrence(FIRST, NOW + 300, OccurrenceState.SKIPPED, skipped=4, reason="Too late."),
    ]
    kept.change(FIRST, failures=1)
    shown = run("reminders", "show", FIRST).stdout
    first, now, *rest = shown.splitlines()
    assert first == "Reminder rem_1 is active, due next once its turn has ended"
    assert now.startswith("  now       it began ")
    assert now.endswith(" ago and is under way")
    facts, _, occurrences = "\n".join(rest).partition("\n\n")
    assert facts.splitlines()[:5] == [
        "  text      look",
        "            at it",
        "  schedule  cron 0 8 * * 1-5, in Europe/Berlin",
        "  missed    the newest that could not be started in time runs late, at most 1 h",
        "  session   ses_of_1, its own: `netclaw sessions show ses_of_1`",
    ]
    assert "  failures  1 in a row; 5 pause it" in facts
    assert [" ".join(line.split()) for line in occurrences.splitlines()] == [
        "DUE STATE STARTED TOOK TURN WHY",
        "2023-11-14 23:18:20 Europe/Berlin skipped - - - Too late. 4 before it were skipped too.",
        "2023-11-14 23:14:20 Europe/Berlin failed 3 min late 5 s trn_2 No model.",
        "2023-11-14 23:13:21 Europe/Berlin under way on time - trn_1 -",
    ]


@pytest.mark.parametrize(
    ("waits_for", "listed", "shown"),
    [
        ("", "active, under way", "and is under way"),
        ("approval", "active, waits for an approval", "approval: `netclaw approvals list`"),
        ("request", "active, parked", "and is parked: `netclaw sessions show ses_of_1` says why"),
        ("turn-before", "active, waits for the turn before", "the turn before it in its session"),
    ],
)
def test_what_an_occurrence_waits_for_is_said(
    run: CommandLine, kept: RemindersDouble, waits_for: str, listed: str, shown: str
) -> None:
    kept.put(CRON, "look")
    kept.run(FIRST)
    kept.ran[FIRST][0] = replace(kept.ran[FIRST][0], waits_for=waits_for)
    assert listed in run("reminders", "list").stdout
    assert shown in run("reminders", "show", FIRST).stdout.splitlines()[1]
    kept.change(FIRST, state=ReminderState.DONE, next_at=None)
    assert f" {listed.removeprefix('active, ')} " in run("reminders", "list", "--all").stdout


def test_a_zone_that_this_host_lacks_is_shown_in_utc(
    run: CommandLine, kept: RemindersDouble
) -> None:
    kept.put(Schedule(ScheduleKind.ONCE, "Mars/Olympus", at=NOW), "look")
    assert "2023-11-14 22:13:20 UTC" in run("reminders", "list").stdout


# -- changes -------------------------------------------------------------------------------------


def test_each_change_says_what_it_has_done(run: CommandLine, kept: RemindersDouble) -> None:
    kept.put(CRON, "look")
    assert run("reminders", "pause", FIRST).stdout == (
        "Paused: rem_1 (look). `netclaw reminders resume rem_1` lets it go on.\n"
    )
    assert "go on     `netclaw reminders resume rem_1`" in run("reminders", "show", FIRST).stdout
    assert run("reminders", "resume", FIRST).stdout.startswith(
        "Goes on: rem_1 (look), cron 0 8 * * 1-5; due 2023-11-14 23:14:20 Europe/Berlin"
    )
    assert run("reminders", "run", FIRST).stdout == (
        "Started: rem_1 (look). It speaks in the session ses_of_1: "
        "`netclaw sessions show ses_of_1`.\n"
    )
    assert run.json("reminders", "run", FIRST)["occurrences"][0]["state"] == "started"
    assert run("reminders", "remove", FIRST).stdout == (
        "Removed: rem_1 (look). The session ses_of_1 stays.\n"
    )
    assert run("reminders", "remove", FIRST).exit_code == 1


# -- without a daemon ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["add", "--in", "30s", "look"], ["pause", "x"], ["run", "x"]])
def test_without_a_daemon_nothing_is_changed(run: CommandLine, command: list[str]) -> None:
    result = run("reminders", *command)
    assert result.exit_code == 3
    assert "Start one: `netclaw daemon start`" in result.stderr


def test_without_a_daemon_the_store_is_read(run: CommandLine, home: Path) -> None:
    (home / "state").mkdir()
    store = SqliteStore.open(str(home / "state" / "netclawd.db"))
    store.reminders.add(RemindersDouble().put(CRON, "look"))
    store.close()
    shown = run("reminders", "list")
    assert "rem_1" in shown.stdout
    assert "no daemon runs, so nothing is started; `netclaw daemon start`" in shown.stderr
    assert run("reminders", "show", FIRST).stdout.startswith("Reminder rem_1 is active, due next ")
    (found,) = run.json("reminders", "list")
    assert (found["id"], found["occurrences"]) == ("rem_1", [])
    assert run("reminders", "show", "rem_2").exit_code == 1
