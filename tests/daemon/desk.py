"""A desk of reminders on a real store, with clocks that the test moves; turns end when the test says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from netclawd.adapters.cron import CroniterCron
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.reminders import Missed, NewReminder, Occurrence, Reminder
from netclawd.core.session import (
    AdmitInput,
    Change,
    EventType,
    InputId,
    NewEvent,
    ParkReason,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.settings import NewWork
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.gate import Gate
from netclawd.daemon.reminders import Reminders
from netclawd.daemon.scheduler import Scheduler, Surroundings
from netclawd.ports import Store
from tests.daemon import paper_parts
from tests.daemon.engines import Numbers

#: 2026-11-28, 12:00 UTC.
NOON = 1_795_867_200.0
HOUR = 3_600.0


class Clock(paper_parts.Clock):
    """Wall and monotonic time; both move with :meth:`pass_time`, the wall alone with :meth:`jump`."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_s = NOON

    def jump(self, seconds: float) -> None:
        self.wall_s += seconds


class Calendar:
    cron = CroniterCron()

    def host_zone(self) -> str:
        return "UTC"


class Desk:
    def __init__(self, folder: Path, max_running: int = 4) -> None:
        self.path = str(folder / "netclawd.db")
        self.clock, self.ids = Clock(), Numbers()
        self.max_running = max_running
        self.gate = Gate(NewWork.DEFER)
        self.gate.open()
        self.broadcast = Broadcast()
        self.submitted: list[TurnId] = []
        self.stores: list[SqliteStore] = []
        self.store: Store = self._open()
        self.reminders = Reminders(cast(Any, self._image()))
        self.scheduler = self.boot()

    def _open(self) -> SqliteStore:
        store = SqliteStore.open(self.path)
        store.on_commit(lambda session, seq: self.broadcast.on_commit(session, seq))
        self.stores.append(store)
        self.generation = store.begin_generation(self.clock.wall(), None)
        return store

    def _image(self) -> SimpleNamespace:
        parts = SimpleNamespace(clock=self.clock, ids=self.ids, make_calendar=Calendar)
        return SimpleNamespace(
            parts=parts,
            gate=self.gate,
            broadcast=self.broadcast,
            settings=SimpleNamespace(reminders_max_running=self.max_running),
            the_store=lambda: self.store,
            the_engine=lambda: SimpleNamespace(submit=self._submit),
        )

    def _submit(self, turn_id: TurnId, session_id: SessionId) -> None:
        assert self.store.turn(turn_id).session_id == session_id
        self.submitted.append(turn_id)

    def boot(self, store: Any = None) -> Scheduler:
        """Begin anew, as the next generation does; the scheduler before is forgotten."""
        self.broadcast = Broadcast()
        around = Surroundings(
            store or self.store,
            self.clock,
            self.ids,
            Calendar(),
            lambda: self.gate.state.open,
            self._submit,
            self.max_running,
        )
        self.scheduler = Scheduler(around)
        self.broadcast.watch(self.scheduler)
        return self.scheduler

    def restart(self, down_s: float = 0.0) -> None:
        """Close the store, let time pass, open it again."""
        self.store.close()
        self.clock.pass_time(down_s)
        self.store = self._open()
        self.boot()

    def close(self) -> None:
        self.reminders.close()
        self.reminders.rest()
        for store in self.stores:
            store.close()

    # -- what people do --------------------------------------------------------------------------

    def add(self, text: str = "tea", missed: str = "once", **fields: Any) -> Reminder:
        return self.reminders.add(NewReminder(text, missed=Missed(missed), **fields), "test")

    def wait(self, seconds: float) -> float:
        """Let time pass, and the scheduler look once."""
        self.clock.pass_time(seconds)
        return self.scheduler.step()

    def rows(self, reminder: Reminder) -> list[Occurrence]:
        """Return its occurrences, the oldest first."""
        return [*reversed(self.store.reminders.occurrences(reminder.id, 100))]

    def seen(self, reminder: Reminder) -> list[tuple[float, str, int]]:
        """Return its occurrences: seconds after noon, state, how many more were skipped with it."""
        return [(one.due_at - NOON, one.state.value, one.skipped) for one in self.rows(reminder)]

    def now(self, reminder: Reminder) -> Reminder:
        return self.store.reminders.reminder(reminder.id)

    # -- what turns come to ----------------------------------------------------------------------

    def turn_of(self, reminder: Reminder) -> TurnId:
        """Return the turn of its newest occurrence."""
        turn_id = self.rows(reminder)[-1].turn_id
        assert turn_id is not None
        return turn_id

    def text_of(self, turn_id: TurnId) -> str:
        return str(self.store.turn_events(turn_id)[0].data["text"])

    def end(self, turn_id: TurnId, state: TurnState = TurnState.COMPLETED, why: str = "") -> None:
        """End a turn in one commit."""
        types = {
            TurnState.COMPLETED: EventType.TURN_COMPLETED,
            TurnState.FAILED: EventType.TURN_FAILED,
            TurnState.CANCELLED: EventType.TURN_CANCELLED,
            TurnState.INTERRUPTED: EventType.TURN_INTERRUPTED,
            TurnState.PARKED: EventType.TURN_PARKED,
        }
        lease = self.store.lease(turn_id, self.generation)
        event = NewEvent(types[state], {"slug": "test", "reason": why})
        park = ParkReason.APPROVAL if state is TurnState.PARKED else None
        self.store.commit(Change(lease, (event,), state, park), self.clock.wall())

    def say(self, session_id: SessionId, origin: Mapping[str, str]) -> TurnId:
        """Admit an input of a person."""
        turn_id = TurnId(self.ids.new("t"))
        new = AdmitInput(
            session_id, InputId(self.ids.new("i")), turn_id, "hello", None, False, origin
        )
        self.store.admit(new, self.clock.wall())
        return turn_id
