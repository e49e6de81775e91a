"""What people, the API and an agent may ask of reminders, and the scheduler's life beside the gate's."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netclawd.core.reminders import (
    NewReminder,
    Occurrence,
    Reminder,
    ReminderId,
    ReminderState,
    Schedule,
    ScheduleKind,
)
from netclawd.core.schedule import first_due, next_due, read_schedule
from netclawd.core.session import ParkReason, SessionId
from netclawd.daemon.image import Image
from netclawd.daemon.remind_tool import RemindTool
from netclawd.daemon.scheduler import Scheduler, Surroundings
from netclawd.daemon.signals import spawn
from netclawd.errors import (
    ConflictError,
    KeyReusedError,
    NotFoundError,
    StoreClosedError,
    StoreError,
)

if TYPE_CHECKING:
    from netclawd.core.listing import ReminderPage
    from netclawd.ports.reminders import Calendar, ReminderStore

_log = logging.getLogger("netclawd.reminders")

#: The scheduler is in one call of the store at most.
_REST_S = 5.0
#: Reminders that the status names.
_NAMED = 3


class Reminders:
    """Implements :class:`netclawd.ports.reminders.Reminders`."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._calendar: Calendar | None = None
        self._scheduler: Scheduler | None = None
        self._thread: threading.Thread | None = None
        self.tool = RemindTool(self, lambda turn: image.the_store().turn(turn).origin)

    # -- the scheduler's life; on the main thread ------------------------------------------------

    def open(self) -> None:
        """Start reminders from now on: the gate has opened."""
        image = self._image
        scheduler = Scheduler(
            Surroundings(
                store=image.the_store(),
                clock=image.parts.clock,
                ids=image.parts.ids,
                calendar=self._the_calendar(),
                is_gate_open=lambda: image.gate.state.open,
                submit=image.the_engine().submit,
                max_running=image.settings.reminders_max_running,
            )
        )
        image.broadcast.watch(scheduler)
        self._scheduler = scheduler
        self._thread = spawn("scheduler", scheduler.run)

    def close(self) -> None:
        """Start none any more: the gate has closed."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.close()
            self._image.broadcast.unwatch(scheduler)

    def rest(self) -> None:
        """Wait until the scheduler's thread has ended, which :meth:`close` has asked for."""
        if self._thread is not None:
            self._thread.join(_REST_S)

    def _the_calendar(self) -> Calendar:
        if self._calendar is None:
            self._calendar = self._image.parts.make_calendar()
        return self._calendar

    # -- what may be asked -----------------------------------------------------------------------

    def add(
        self,
        new: NewReminder,
        by: str,
        origin: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Reminder:
        if key is not None and (known := self.added(key)) is not None:
            if not _is_the_same(new, known):
                raise KeyReusedError(
                    "The key was used for another reminder.", "Use a new key for each reminder."
                )
            return known
        parts, calendar = self._image.parts, self._the_calendar()
        now = parts.clock.wall()
        schedule = self.judge(new, now)
        reminder = Reminder(
            id=_id_of(key) if key is not None else ReminderId(parts.ids.new("rem")),
            text=new.text.strip(),
            schedule=schedule,
            missed=new.missed,
            max_late_s=new.max_late_s,
            session_id=new.session_id or SessionId(parts.ids.new("s")),
            own_session=new.session_id is None,
            origin=origin or {},
            state=ReminderState.ACTIVE,
            reason="",
            failures=0,
            created_at=now,
            created_by=by,
            next_at=first_due(schedule, now, calendar.cron),
        )
        if not self._store.add(reminder):
            # Somebody was quicker with the same key; or it was removed.
            return self.show(reminder.id)
        _log.info("reminder added: %s", schedule.kind.value, extra=_ids(reminder))
        self._look()
        return reminder

    def judge(self, new: NewReminder, now: float | None = None) -> Schedule:
        """Return when it would be due; BadRequestError says what is wrong with it."""
        calendar = self._the_calendar()
        if now is None:
            now = self._image.parts.clock.wall()
        return read_schedule(new, now, calendar.host_zone(), calendar.cron)

    def added(self, key: str) -> Reminder | None:
        """Return what was added under a key, None when nothing was, or it was removed."""
        try:
            return self._store.reminder(_id_of(key))
        except NotFoundError:
            return None

    def page(self, *, all_: bool, cursor: str | None, limit: int) -> ReminderPage:
        return self._store.page(all_=all_, cursor=cursor, limit=limit)

    def of_session(self, session_id: SessionId) -> tuple[Reminder, ...]:
        """Return the active and paused reminders of a session."""
        return self._store.of_session(session_id)

    def show(self, reminder_id: ReminderId) -> Reminder:
        return self._store.reminder(reminder_id)

    def occurrences(self, reminder_id: ReminderId, limit: int) -> tuple[Occurrence, ...]:
        return self._store.occurrences(reminder_id, limit)

    def open_occurrences(self) -> tuple[Occurrence, ...]:
        return self._store.open_occurrences()

    def pause(self, reminder_id: ReminderId) -> Reminder:
        reminder = self._not_done(reminder_id)
        if reminder.state is ReminderState.PAUSED:
            return reminder
        return self._change(reminder, ReminderState.PAUSED, "Somebody has paused it.", None)

    def resume(self, reminder_id: ReminderId) -> Reminder:
        """As the port has it; what was due meanwhile did not come, but for a single time: it was missed."""
        reminder = self._not_done(reminder_id)
        if reminder.state is ReminderState.ACTIVE:
            return reminder
        schedule, now = reminder.schedule, self._image.parts.clock.wall()
        once = schedule.kind is ScheduleKind.ONCE
        next_at = schedule.at if once else next_due(schedule, now, self._the_calendar().cron)
        return self._change(reminder, ReminderState.ACTIVE, "", next_at)

    def run(self, reminder_id: ReminderId) -> Occurrence:
        reminder, scheduler = self.show(reminder_id), self._scheduler
        if scheduler is None:
            gate = self._image.gate
            raise gate.refusal(self._image.parts.clock.monotonic())
        return scheduler.run_now(reminder)

    def remove(self, reminder_id: ReminderId) -> Reminder:
        return self._change(self.show(reminder_id), ReminderState.REMOVED, "", None)

    def _not_done(self, reminder_id: ReminderId) -> Reminder:
        reminder = self.show(reminder_id)
        if reminder.state is ReminderState.DONE:
            raise ConflictError(
                f"The reminder {reminder_id} is done: it is not due any more.", "Add a new one."
            )
        return reminder

    def _change(
        self, reminder: Reminder, state: ReminderState, reason: str, next_at: float | None
    ) -> Reminder:
        changed = self._store.change(reminder.id, state, reason, next_at)
        _log.info("reminder %s", state.value, extra=_ids(changed))
        self._look()
        return changed

    @property
    def _store(self) -> ReminderStore:
        return self._image.the_store().reminders

    def _look(self) -> None:
        scheduler = self._scheduler
        if scheduler is not None:
            scheduler.look()


def status(image: Image) -> dict[str, Any]:
    """Return what the status says of reminders; zeros while the store can't tell."""
    store = image.store  # Read once: the arbiter may take it away.
    try:
        if store is None:
            raise StoreClosedError("The session store is closed.")
        counts = store.reminders.count()
        under_way = {one.reminder_id: one for one in store.reminders.open_occurrences()}
        now = image.parts.clock.wall()
        # What comes due while it runs is skipped.
        coming = [
            one
            for one in store.reminders.due(math.inf, _NAMED + len(under_way))
            if one.id not in under_way or (one.next_at or now) > now
        ]
    except StoreError:
        return {"active": 0, "paused": 0, "under_way": 0, "waiting": 0, "next": []}
    return {
        "active": counts.get(ReminderState.ACTIVE, 0),
        "paused": counts.get(ReminderState.PAUSED, 0),
        "under_way": len(under_way),
        "waiting": sum(one.waits_for in [*ParkReason] for one in under_way.values()),
        "next": [
            {"id": one.id, "text": one.text, "next_at": one.next_at} for one in coming[:_NAMED]
        ],
    }


def _id_of(key: str) -> ReminderId:
    """Return the id of what is asked for under a key, the same each time."""
    return ReminderId(f"rem_{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}")


def _is_the_same(new: NewReminder, known: Reminder) -> bool:
    """Whether a reminder may have come of this request; a time is one that counts from when it came."""
    schedule = known.schedule
    every_s = round(new.every_s, 3) if new.every_s is not None else 0.0
    asked = (
        new.text.strip(),
        new.missed,
        new.max_late_s,
        every_s,
        " ".join((new.cron or "").split()),
    )
    return asked == (
        known.text,
        known.missed,
        known.max_late_s,
        schedule.every_s,
        schedule.cron,
    )


def _ids(reminder: Reminder) -> dict[str, str]:
    return {"REMINDER_ID": reminder.id, "SESSION_ID": reminder.session_id}
