from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.core.reminders import OccurrenceState, ReminderState
from netclawd.core.schedule import MOST_COUNTED
from netclawd.core.session import TurnState
from netclawd.errors import ConflictError, DrainingError, NotFoundError
from tests.daemon.desk import HOUR, NOON, Desk

PROVE = os.environ.get("NETCLAW_PROVE") == "1"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


# -- starts ----------------------------------------------------------------------------------------


def test_what_is_due_starts_once(desk: Desk) -> None:
    tea = desk.add(in_s=30)
    desk.wait(29.9)
    assert desk.submitted == []
    desk.wait(0.1)
    desk.wait(10)
    assert desk.seen(tea) == [(30, "started", 0)]
    assert desk.submitted == [desk.turn_of(tea)]
    assert desk.text_of(desk.turn_of(tea)) == "Reminder: tea"
    desk.end(desk.turn_of(tea))
    desk.wait(1)
    assert desk.seen(tea) == [(30, "done", 0)]
    assert desk.now(tea).state is ReminderState.DONE


def test_what_repeats_starts_each_time(desk: Desk) -> None:
    tea = desk.add(every_s=HOUR)
    for _ in range(3):
        desk.wait(HOUR)
        desk.end(desk.turn_of(tea))
        desk.wait(1)
        desk.clock.pass_time(-1)
    assert desk.seen(tea) == [(n * HOUR, "done", 0) for n in (1, 2, 3)]
    assert desk.now(tea).next_at == NOON + 4 * HOUR


def test_it_looks_again_when_something_is_due(desk: Desk) -> None:
    assert desk.scheduler.step() > HOUR / 2
    desk.add(in_s=1.5)
    assert desk.scheduler.step() == pytest.approx(1.5)
    assert desk.wait(1.0) == pytest.approx(0.5)
    desk.add(in_s=900)
    # The clock may jump.
    desk.wait(0.5)
    assert desk.scheduler.step() <= 2.0


@pytest.mark.parametrize(
    ("missed", "rows", "late"),
    [
        ("skip", [(3 * HOUR, "skipped", 2)], False),
        ("once", [(2 * HOUR, "skipped", 1), (3 * HOUR, "done", 0)], True),
        ("all", [(2 * HOUR, "skipped", 1), (3 * HOUR, "done", 0)], True),
    ],
)
def test_what_was_missed_goes_by_policy(
    desk: Desk, missed: str, rows: list[Any], late: bool
) -> None:
    tea = desk.add(every_s=HOUR, missed=missed)
    desk.restart(3.5 * HOUR)
    run_dry(desk)
    assert desk.seen(tea) == rows
    assert desk.now(tea).next_at == NOON + 4 * HOUR
    if late:
        told = desk.text_of(desk.turn_of(tea))
        assert "comes 30 minutes late: it was missed." in told
        assert "The 2 before it were skipped." in told
    assert all(row.reason for row in desk.rows(tea) if row.state is OccurrenceState.SKIPPED)


def test_all_that_was_missed_comes_one_after_the_other(desk: Desk) -> None:
    tea = desk.add(every_s=60, missed="all")
    desk.restart(310)
    desk.scheduler.step()
    assert desk.seen(tea) == [(60, "started", 0)]
    run_dry(desk)
    assert desk.seen(tea) == [(60 * n, "done", 0) for n in range(1, 6)]


def test_what_came_in_a_short_restart_is_on_time(desk: Desk) -> None:
    tea = desk.add(in_s=10, missed="skip")
    desk.restart(60)
    desk.scheduler.step()
    assert desk.seen(tea) == [(10, "started", 0)]
    assert desk.text_of(desk.turn_of(tea)) == "Reminder: tea"


def test_what_is_too_late_is_recorded_and_done(desk: Desk) -> None:
    tea = desk.add(in_s=10, max_late_s=600)
    desk.restart(HOUR)
    desk.scheduler.step()
    assert desk.seen(tea) == [(10, "skipped", 0)]
    assert "later than 10 minutes" in desk.rows(tea)[0].reason
    assert desk.now(tea).state is ReminderState.DONE


def test_nothing_starts_while_the_gate_is_closed(desk: Desk) -> None:
    tea = desk.add(in_s=10)
    desk.gate.close(0.0, stopping=False)
    assert desk.wait(11) > 60
    with pytest.raises(DrainingError):
        desk.scheduler.run_now(tea)
    assert desk.seen(tea) == []
    desk.gate.open()
    desk.boot()
    desk.scheduler.step()
    assert desk.seen(tea) == [(10, "started", 0)]


def test_the_closing_of_the_gate_is_heeded_between_two_starts(desk: Desk) -> None:
    for _ in range(3):
        desk.add(in_s=10)
    desk.submitted = Listening(lambda: desk.gate.close(0.0, stopping=False))
    desk.wait(10)
    assert len(desk.submitted) == 1


class Listening(list[Any]):
    """A list that says when something is appended."""

    def __init__(self, heard: Callable[[], None]) -> None:
        super().__init__()
        self._heard = heard

    def append(self, item: Any) -> None:
        super().append(item)
        self._heard()


# -- many ------------------------------------------------------------------------------------------


def run_dry(desk: Desk, ended: int = 0) -> int:
    """End each turn that starts, until none does; return the most that ran at a time."""
    most = 0
    desk.scheduler.step()
    while running := desk.submitted[ended:]:
        most = max(most, len(running))
        desk.end(running[0])
        ended += 1
        desk.scheduler.step()
    return most


def test_thousands_that_are_due_at_once_run_a_few_at_a_time_and_each_once(desk: Desk) -> None:
    number = 10_000 if PROVE else 60
    teas = [desk.add(f"tea {n}", missed="skip", in_s=10) for n in range(number)]
    desk.clock.pass_time(10)
    assert run_dry(desk) == desk.max_running
    texts = [desk.text_of(turn) for turn in desk.submitted]
    assert sorted(texts) == sorted(f"Reminder: tea {n}" for n in range(number))
    assert {desk.now(tea).state for tea in teas} == {ReminderState.DONE}


def test_what_was_missed_holds_up_nothing_that_is_on_time(desk: Desk) -> None:
    missed = [desk.add(f"{n}", "skip", cron="*/5 * * * *") for n in range(60)]
    desk.store.close()
    desk.clock.pass_time(7 * 24 * HOUR - 3 * 60)
    desk.store = desk._open()
    desk.add("on time", in_s=60)
    desk.clock.pass_time(63)
    skipped: list[int] = []
    desk.submitted = Listening(lambda: skipped.append(sum(len(desk.seen(one)) for one in missed)))
    desk.boot()
    assert desk.scheduler.step() == 0.0, "there is more"
    assert desk.text_of(desk.submitted[0]) == "Reminder: on time"
    assert skipped == [0]
    while desk.scheduler.step() == 0.0:
        pass
    assert {row.state.value for one in missed for row in desk.rows(one)} == {"skipped"}
    assert {row.skipped for one in missed for row in desk.rows(one)} == {MOST_COUNTED}


def test_what_was_missed_and_what_is_on_time_each_have_a_place(desk: Desk) -> None:
    missed = {desk.add(f"missed {n}", in_s=10).id for n in range(9)}
    desk.restart(HOUR / 2)
    desk.scheduler.step()
    on_time = [desk.add(f"on time {n}", in_s=1) for n in range(9)]
    assert len(desk.submitted) == desk.max_running - 1
    desk.wait(1)
    assert desk.seen(on_time[0]) == [(HOUR / 2 + 1, "started", 0)]
    ended = len(desk.submitted)
    for turn in desk.submitted[:ended]:
        desk.end(turn)
        desk.scheduler.step()
    # Those on time go first, and leave one place.
    running = [desk.text_of(turn) for turn in desk.submitted[-desk.max_running :]]
    assert sorted(text.split()[1] for text in running) == ["missed", "on", "on", "on"]
    run_dry(desk, ended)
    assert {desk.now(one).state for one in on_time} == {ReminderState.DONE}
    assert {desk.store.reminders.reminder(one).state for one in missed} == {ReminderState.DONE}


def test_who_waits_hours_for_others_still_runs_and_says_so(desk: Desk) -> None:
    desk.max_running = 1
    desk.boot()
    first, second = desk.add("first", in_s=10), desk.add("second", in_s=10, missed="skip")
    desk.scheduler.step()
    desk.wait(10)
    desk.clock.pass_time(5 * HOUR)
    desk.end(desk.turn_of(first))
    desk.scheduler.step()
    assert desk.seen(second) == [(10, "started", 0)]
    assert "others were due as well" in desk.text_of(desk.turn_of(second))


def test_what_keeps_an_occurrence_is_told(desk: Desk) -> None:
    first = desk.add("first", in_s=10)
    second = desk.add("second", in_s=10, session_id=first.session_id)
    desk.wait(10)

    def waits() -> list[str]:
        return [one.waits_for for one in desk.store.reminders.open_occurrences()]

    assert waits() == ["", "turn-before"]
    desk.end(desk.turn_of(first), TurnState.PARKED)
    assert waits() == ["approval", "approval"]
    desk.end(desk.turn_of(first))
    assert [desk.rows(one)[0].waits_for for one in (first, second)] == ["", ""]


def test_who_waits_for_a_person_holds_nobody_up(desk: Desk) -> None:
    desk.max_running = 1
    desk.boot()
    first, second = desk.add("first", in_s=10), desk.add("second", in_s=10)
    desk.wait(10)
    desk.end(desk.turn_of(first), TurnState.PARKED)
    desk.scheduler.step()
    assert desk.seen(second) == [(10, "started", 0)]
    # After a restart it is as parked as before.
    third = desk.add("third", in_s=1)
    desk.end(desk.turn_of(second))
    desk.restart()
    desk.wait(1)
    assert desk.seen(third) == [(11, "started", 0)]
    assert desk.seen(first) == [(10, "started", 0)]


def test_an_interval_that_is_shorter_than_its_run_skips_in_one_row(desk: Desk) -> None:
    tea = desk.add(every_s=1)
    desk.wait(1)
    for _ in range(10):
        desk.wait(0.99)
    assert desk.seen(tea) == [(1, "started", 0)]
    desk.end(desk.turn_of(tea))
    desk.scheduler.step()
    assert desk.seen(tea) == [(1, "done", 0), (10, "skipped", 8)]
    assert "still under way" in desk.rows(tea)[1].reason
    desk.wait(0.2)
    assert desk.seen(tea)[2:] == [(11, "started", 0)]


def test_others_are_not_held_up_by_one_that_is_due_while_it_runs(desk: Desk) -> None:
    slow = desk.add(every_s=1)
    desk.wait(1)
    other = desk.add(in_s=5)
    desk.wait(4.9)
    assert desk.scheduler.step() == pytest.approx(0.1)
    desk.wait(0.1)
    assert desk.seen(other) == [(6, "started", 0)]
    assert desk.seen(slow) == [(1, "started", 0)]


# -- failures --------------------------------------------------------------------------------------


def test_five_failures_in_a_row_pause_it(desk: Desk) -> None:
    tea = desk.add(every_s=HOUR)
    for n in range(1, 6):
        assert desk.now(tea).state is ReminderState.ACTIVE
        desk.wait(HOUR)
        desk.end(desk.turn_of(tea), TurnState.FAILED, "The kettle is broken.")
        desk.scheduler.step()
        assert desk.now(tea).failures == n
    paused = desk.now(tea)
    assert paused.state is ReminderState.PAUSED
    assert "5 times in a row" in paused.reason
    assert "The kettle is broken." in paused.reason
    assert [row.reason for row in desk.rows(tea)] == ["The kettle is broken."] * 5
    desk.wait(10 * HOUR)
    assert len(desk.submitted) == 5
    resumed = desk.reminders.resume(tea.id)
    assert (resumed.state, resumed.failures) == (ReminderState.ACTIVE, 0)
    assert resumed.next_at == NOON + 16 * HOUR


def test_only_a_failure_counts_and_a_success_ends_the_row(desk: Desk) -> None:
    tea = desk.add(every_s=HOUR)
    ends = [
        (TurnState.FAILED, 1),
        (TurnState.FAILED, 2),
        (TurnState.CANCELLED, 2),
        (TurnState.FAILED, 3),
        (TurnState.COMPLETED, 0),
        (TurnState.FAILED, 1),
    ]
    for state, failures in ends:
        desk.wait(HOUR)
        desk.end(desk.turn_of(tea), state)
        desk.scheduler.step()
        assert desk.now(tea).failures == failures
    states = [row.state.value for row in desk.rows(tea)]
    assert states == ["failed", "failed", "cancelled", "failed", "done", "failed"]


@pytest.mark.parametrize("state", [TurnState.INTERRUPTED, TurnState.PARKED, None])
def test_a_restart_counts_as_nothing(desk: Desk, state: TurnState | None) -> None:
    tea = desk.add(every_s=HOUR)
    desk.wait(HOUR)
    turn = desk.turn_of(tea)
    for _ in range(6):
        if state is not None:
            desk.end(turn, state)
        desk.restart(1.0)
        desk.scheduler.step()
    assert desk.seen(tea) == [(HOUR, "started", 0)]
    assert desk.now(tea).failures == 0
    assert desk.submitted == [turn]
    desk.end(turn)
    desk.scheduler.step()
    assert desk.seen(tea) == [(HOUR, "done", 0)]


def test_an_end_that_nobody_saw_is_found_at_the_next_start(desk: Desk) -> None:
    tea = desk.add(in_s=10)
    desk.wait(10)
    desk.end(desk.turn_of(tea), TurnState.FAILED, "Why.")
    desk.restart(500)
    desk.scheduler.step()
    assert desk.seen(tea) == [(10, "failed", 0)]
    assert desk.rows(tea)[0].reason == "Why."
    # A single time that has failed is done: there is nothing to pause.
    assert desk.now(tea).state is ReminderState.DONE


# -- people ----------------------------------------------------------------------------------------


def test_a_person_runs_one_now_beside_its_schedule(desk: Desk) -> None:
    tea = desk.add(every_s=HOUR)
    desk.clock.pass_time(60)
    started = desk.scheduler.run_now(desk.now(tea))
    assert started.due_at == NOON + 60
    assert desk.submitted == [started.turn_id]
    with pytest.raises(ConflictError, match="runs already"):
        desk.scheduler.run_now(tea)
    assert desk.now(tea).next_at == NOON + HOUR
    desk.end(desk.turn_of(tea))
    desk.wait(HOUR)
    assert desk.seen(tea) == [(60, "done", 0), (HOUR, "started", 0)]


def test_a_paused_one_runs_when_asked_and_a_done_one_does_not(desk: Desk) -> None:
    tea = desk.add(in_s=10)
    desk.reminders.pause(tea.id)
    desk.wait(100)
    assert desk.submitted == []
    desk.scheduler.run_now(desk.now(tea))
    desk.end(desk.turn_of(tea))
    desk.scheduler.step()
    assert desk.now(tea).state is ReminderState.PAUSED
    other = desk.add(in_s=10)
    desk.wait(10)
    desk.end(desk.turn_of(other))
    desk.scheduler.step()
    with pytest.raises(ConflictError, match="it is done"):
        desk.scheduler.run_now(desk.now(other))


@pytest.mark.parametrize("act", ["pause", "remove"])
def test_one_that_is_held_back_as_it_is_due_does_not_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    tea = desk.add(every_s=HOUR)
    real = desk.store.reminders.due

    def due(*arguments: Any) -> Any:
        found = real(*arguments)
        if found and act == "pause":
            desk.reminders.pause(tea.id)
        elif found:
            desk.reminders.remove(tea.id)
        return found

    monkeypatch.setattr(desk.store.reminders, "due", due)
    desk.clock.pass_time(HOUR)
    desk.scheduler.step()
    monkeypatch.undo()
    desk.wait(HOUR)
    assert (desk.submitted, desk.rows(tea)) == ([], [])
    if act == "pause":
        assert desk.now(tea).state is ReminderState.PAUSED


def test_one_that_is_removed_while_it_runs_ends_quietly(desk: Desk) -> None:
    tea = desk.add(every_s=1)
    desk.wait(1)
    turn = desk.turn_of(tea)
    desk.reminders.remove(tea.id)
    desk.wait(5)
    desk.end(turn)
    desk.wait(5)
    assert [row.state.value for row in desk.rows(tea)] == ["done"]
    assert desk.submitted == [turn]
    with pytest.raises(NotFoundError):
        desk.now(tea)


def test_what_no_longer_makes_sense_is_paused_with_its_reason(desk: Desk) -> None:
    tea, other = desk.add(cron="0 13 * * *"), desk.add(every_s=HOUR)
    spoil(desk, tea.id, '{"kind": "cron", "zone": "Mars/Olympus", "cron": "0 13 * * *"}')
    desk.wait(HOUR)
    assert desk.now(tea).state is ReminderState.PAUSED
    assert "Mars/Olympus" in desk.now(tea).reason
    assert desk.seen(other) == [(HOUR, "started", 0)]


def spoil(desk: Desk, reminder_id: str, schedule: str) -> None:
    """Write into the store what an older release, or another host, has left there."""
    desk.stores[-1]._submit(
        lambda db, _: db.execute(
            "UPDATE reminders SET schedule = ? WHERE id = ?", (schedule, reminder_id)
        )
    )
