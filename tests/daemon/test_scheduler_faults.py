from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.core.reminders import OccurrenceState
from netclawd.core.session import EventType, SessionId, TurnState
from netclawd.daemon.signals import spawn
from netclawd.errors import DrainingError, StoreFullError
from tests.daemon.desk import HOUR, NOON, Desk
from tests.waiting import scaled, wait_for


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


# -- the clock -------------------------------------------------------------------------------------


def test_a_clock_that_is_put_forward_misses_what_lies_between(desk: Desk) -> None:
    soon, hourly = desk.add(in_s=600), desk.add(every_s=HOUR, missed="skip")
    desk.scheduler.step()
    desk.clock.jump(3.5 * HOUR)
    desk.scheduler.step()
    desk.wait(1)
    assert desk.seen(soon) == [(600, "skipped", 0)]
    assert desk.seen(hourly) == [(3 * HOUR, "skipped", 2)]
    desk.wait(HOUR / 2)
    assert desk.seen(hourly)[1:] == [(4 * HOUR, "started", 0)]


def test_a_clock_that_is_put_back_brings_nothing_twice(desk: Desk) -> None:
    single, hourly = desk.add(in_s=HOUR), desk.add(every_s=HOUR)
    daily = desk.add(cron="30 13 * * *")
    desk.scheduler.step()
    desk.wait(HOUR)
    desk.wait(HOUR / 2)
    desk.wait(HOUR / 2)
    for turn in desk.submitted:
        if not desk.store.turn(turn).state.ended:
            desk.end(turn)
    desk.scheduler.step()
    before = [desk.seen(one) for one in (single, daily)]
    desk.clock.jump(-1.9 * HOUR)
    desk.scheduler.step()
    # What has been is not announced as what comes.
    assert desk.now(daily).next_at == NOON + 25.5 * HOUR
    for _ in range(20):
        desk.wait(HOUR / 10)
        for row in desk.rows(hourly):
            if row.state is OccurrenceState.STARTED and row.turn_id is not None:
                desk.end(row.turn_id)
    assert [desk.seen(one) for one in (single, daily)] == before
    due = [row[0] for row in desk.seen(hourly)]
    assert due == sorted(set(due))


def test_what_repeats_goes_on_at_once_when_the_clock_was_far_ahead(desk: Desk) -> None:
    desk.scheduler.step()
    desk.clock.jump(10 * 366 * 24 * HOUR)
    desk.scheduler.step()
    tea, daily = desk.add(every_s=60), desk.add(cron="0 9 * * *")
    desk.scheduler.step()
    desk.clock.jump(-10 * 366 * 24 * HOUR)
    desk.scheduler.step()
    next_at = desk.now(tea).next_at
    assert next_at is not None
    assert NOON < next_at <= NOON + 60
    assert desk.now(daily).next_at == NOON + 21 * HOUR
    desk.wait(60)
    assert desk.submitted == [desk.turn_of(tea)]


def test_what_repeats_goes_on_at_once_when_the_clock_was_put_right_while_it_was_down(
    desk: Desk,
) -> None:
    before, asleep = desk.add(every_s=HOUR), desk.add(every_s=24 * HOUR)
    desk.restart(1_000 * 24 * HOUR)
    desk.scheduler.step()
    desk.end(desk.turn_of(before))
    tea, daily = desk.add(every_s=60), desk.add(cron="0 9 * * *")
    desk.scheduler.step()
    desk.restart(-1_000 * 24 * HOUR)
    while desk.scheduler.step() == 0.0:
        pass
    due = [desk.now(one).next_at for one in (before, asleep, daily)]
    assert due == [NOON + HOUR, NOON + 24 * HOUR, NOON + 21 * HOUR]
    assert NOON < (desk.now(tea).next_at or 0.0) <= NOON + 60
    desk.wait(HOUR)
    assert desk.seen(before)[0] == (HOUR, "started", 0)


def test_thousands_that_are_planned_anew_hold_up_nothing(desk: Desk) -> None:
    hourly = [desk.add(every_s=HOUR) for _ in range(120)]
    desk.scheduler.step()
    desk.clock.jump(-9.5 * HOUR)
    soon = desk.add(in_s=1)
    desk.clock.pass_time(1)
    # The first look plans some, and starts what is due.
    assert desk.scheduler.step() == 0.0
    assert desk.seen(soon)[0][1] == "started"
    desk.reminders.remove(hourly[-1].id)
    while desk.scheduler.step() == 0.0:
        pass
    assert {desk.now(one).next_at for one in hourly[:-1]} == {NOON - 9 * HOUR}


# -- faults ----------------------------------------------------------------------------------------


class KilledError(Exception):
    """The process ends here."""


class Dying:
    """A store of reminders that is killed before or behind its n-th write; None: never."""

    def __init__(self, real: Any, nth: int | None, when: str) -> None:
        self._real, self._nth, self._when = real, nth, when
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in ("start", "skip", "end", "change"):
            return real

        def write(*arguments: Any) -> Any:
            self.writes += 1
            if self.writes == self._nth and self._when == "before":
                raise KilledError
            answer = real(*arguments)
            if self.writes == self._nth:
                raise KilledError
            return answer

        return write


class Borne:
    """A store whose part for reminders is another one."""

    def __init__(self, store: Any, reminders: Any) -> None:
        self._store, self.reminders = store, reminders

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def story(desk: Desk, dying: Dying) -> None:
    """Two reminders, one of which is late, one missed and one that fails; the process may end anywhere."""
    desk.boot(Borne(desk.store, dying))
    for _ in range(13):
        desk.clock.pass_time(30)
        desk.scheduler.step()
        for turn in desk.store.open_turns():
            desk.end(turn.id, TurnState.FAILED if turn.position % 3 == 0 else TurnState.COMPLETED)


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_death_between_any_two_writes_neither_loses_nor_doubles(
    tmp_path: Path, when: str
) -> None:
    nth, done = 0, False
    while not done:
        nth += 1
        folder = tmp_path / str(nth)
        folder.mkdir()
        desk = Desk(folder)
        try:
            soon, often = desk.add(in_s=45), desk.add(every_s=100)
            dying = Dying(desk.store.reminders, nth, when)
            try:
                story(desk, dying)
                done = True
            except KilledError:
                desk.restart(1.0)
                story(desk, Dying(desk.store.reminders, None, when))
            desk.boot()
            desk.scheduler.step()
            for one in (soon, often):
                rows = desk.rows(one)
                assert {row.state for row in rows} <= {OccurrenceState.DONE, OccurrenceState.FAILED}
                turns = [row.turn_id for row in rows]
                assert len(set(turns)) == len(turns)
            assert [row.due_at - NOON for row in desk.rows(soon)] == [45]
            due = [row.due_at - NOON for row in desk.rows(often)]
            assert due == [100.0 * n for n in range(1, len(due) + 1)]
            assert len(due) >= 3
            # Each turn is of one occurrence, and nothing was admitted besides.
            admitted = [
                e
                for one in (soon, often)
                for e in desk.store.events(one.session_id, 0, 1_000)
                if e.type is EventType.INPUT_ADMITTED
            ]
            assert len(admitted) == len(desk.rows(soon)) + len(desk.rows(often))
        finally:
            desk.close()


def test_an_error_of_the_store_is_no_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tea = desk.add(in_s=1)
    desk.clock.pass_time(1)

    def fail_once(name: str) -> None:
        real, calls = getattr(desk.store.reminders, name), []

        def full(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 1:
                raise StoreFullError("There is no room.", "Make some.")
            return real(*arguments)

        monkeypatch.setattr(desk.store.reminders, name, full)

    for name, state in (("start", "started"), ("end", "done")):
        fail_once(name)
        with pytest.raises(StoreFullError):
            desk.scheduler.step()
        desk.scheduler.step()
        assert desk.seen(tea) == [(1, state, 0)]
        if state == "started":
            desk.end(desk.turn_of(tea))


# -- the thread ------------------------------------------------------------------------------------


@pytest.fixture
def thread(desk: Desk) -> Iterator[threading.Thread]:
    thread = spawn("scheduler", desk.scheduler.run)
    yield thread
    desk.scheduler.close()
    thread.join(scaled(5))
    assert not thread.is_alive()


def test_the_thread_hears_of_ends_and_of_what_is_added(
    desk: Desk, thread: threading.Thread
) -> None:
    # It has nothing to look for: only to be woken makes it look.
    wait_for(lambda: desk.scheduler._since is not None, 5, "its first look")
    tea = desk.add(in_s=1)
    desk.clock.pass_time(1)
    desk.scheduler.look()
    wait_for(lambda: desk.submitted, 5, "the start")
    desk.end(desk.turn_of(tea))
    wait_for(lambda: desk.rows(tea)[0].state is OccurrenceState.DONE, 5, "the end")


def test_a_closed_store_ends_the_thread(desk: Desk, thread: threading.Thread) -> None:
    desk.store.close()
    desk.scheduler.look()
    thread.join(scaled(5))
    assert not thread.is_alive()


def test_the_scheduler_lives_between_the_opening_and_the_closing_of_the_gate(desk: Desk) -> None:
    desk.reminders.open()
    tea = desk.add(in_s=1)
    desk.clock.pass_time(1)
    desk.reminders._look()
    wait_for(lambda: desk.submitted, 5, "the start")
    assert desk.store.session(SessionId(tea.session_id)).turn_state is TurnState.QUEUED
    desk.gate.close(0.0, stopping=False)
    desk.reminders.close()
    desk.reminders.rest()
    with pytest.raises(DrainingError):
        desk.reminders.run(tea.id)
    assert not [t for t in threading.enumerate() if t.name == "scheduler"]
