"""Reminders in memory: what :class:`netclawd.ports.reminders.Reminders` says, where nothing is ever due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netclawd.adapters.cron import CroniterCron
from netclawd.core.listing import ReminderPage, cursor_after, place_of
from netclawd.core.reminders import (
    NewReminder,
    Occurrence,
    OccurrenceState,
    Reminder,
    ReminderId,
    ReminderState,
    Schedule,
)
from netclawd.core.schedule import read_schedule
from netclawd.core.session import SessionId, TurnId
from netclawd.core.values import replace
from netclawd.errors import KeyReusedError, NotFoundError

#: Its time stands still: 2023-11-14 23:13:20 in Berlin.
NOW = 1_700_000_000.0


class RemindersDouble:
    def __init__(self) -> None:
        self.all: dict[ReminderId, Reminder] = {}
        self.ran: dict[ReminderId, list[Occurrence]] = {}
        self.keys: dict[str, tuple[NewReminder, ReminderId]] = {}
        #: What is raised by the next change.
        self.refusal: Exception | None = None

    def add(
        self,
        new: NewReminder,
        by: str,
        origin: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Reminder:
        self._refuse()
        if key in self.keys:
            said, known = self.keys[key or ""]
            if said != new:
                raise KeyReusedError("The key was used for another reminder.")
            return self.all[known]
        schedule = read_schedule(new, NOW, "Europe/Berlin", CroniterCron())
        reminder = self.put(schedule, new.text, by, new=new)
        if key is not None:
            self.keys[key] = new, reminder.id
        return reminder

    def added(self, key: str) -> Reminder | None:
        return self.all[self.keys[key][1]] if key in self.keys else None

    def put(
        self, schedule: Schedule, text: str, by: str = "uid 0", *, new: NewReminder | None = None
    ) -> Reminder:
        """Have one."""
        new = new or NewReminder(text)
        number = len(self.all) + 1
        reminder = Reminder(
            id=ReminderId(f"rem_{number}"),
            text=text,
            schedule=schedule,
            missed=new.missed,
            max_late_s=new.max_late_s,
            session_id=new.session_id or SessionId(f"ses_of_{number}"),
            own_session=new.session_id is None,
            origin={"secret": "of the channel"},
            state=ReminderState.ACTIVE,
            reason="",
            failures=0,
            created_at=NOW,
            created_by=by,
            next_at=schedule.at + schedule.every_s or NOW + 60 * number,
        )
        self.all[reminder.id] = reminder
        self.ran[reminder.id] = []
        return reminder

    def page(self, *, all_: bool, cursor: str | None, limit: int) -> ReminderPage:
        shown = (ReminderState.ACTIVE, ReminderState.PAUSED)
        found = [each for each in self.all.values() if all_ or each.state in shown]
        places = sorted((place_of(cursor_after(each)), each) for each in found)
        behind = place_of(cursor)
        rest = [each for place, each in places if place > behind]
        more = cursor_after(rest[limit - 1]) if len(rest) > limit else None
        return ReminderPage(tuple(rest[:limit]), more)

    def show(self, reminder_id: ReminderId) -> Reminder:
        found = self.all.get(reminder_id)
        if found is None or found.state is ReminderState.REMOVED:
            raise NotFoundError(f"There is no reminder {reminder_id}.", "See the list.")
        return found

    def occurrences(self, reminder_id: ReminderId, limit: int) -> Sequence[Occurrence]:
        return self.ran[reminder_id][::-1][:limit]

    def open_occurrences(self) -> Sequence[Occurrence]:
        started = OccurrenceState.STARTED
        return [one for of_it in self.ran.values() for one in of_it if one.state is started]

    def pause(self, reminder_id: ReminderId) -> Reminder:
        return self.change(
            reminder_id, state=ReminderState.PAUSED, reason="By a person.", next_at=None
        )

    def resume(self, reminder_id: ReminderId) -> Reminder:
        changes = {"state": ReminderState.ACTIVE, "reason": "", "failures": 0}
        return self.change(reminder_id, next_at=NOW + 60, **changes)

    def run(self, reminder_id: ReminderId) -> Occurrence:
        self._refuse()
        self.show(reminder_id)
        number = len(self.ran[reminder_id]) + 1
        one = Occurrence(
            reminder_id,
            NOW + number,
            OccurrenceState.STARTED,
            turn_id=TurnId(f"trn_{number}"),
            started_at=NOW + number,
        )
        self.ran[reminder_id].append(one)
        return one

    def remove(self, reminder_id: ReminderId) -> Reminder:
        return self.change(reminder_id, state=ReminderState.REMOVED, next_at=None)

    def change(self, reminder_id: ReminderId, **changes: object) -> Reminder:
        self._refuse()
        self.all[reminder_id] = replace(self.show(reminder_id), **changes)
        return self.all[reminder_id]

    def _refuse(self) -> None:
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
