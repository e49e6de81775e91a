"""The tool ``remind``: an agent asks to be told something later, in the conversation that it is in.

The reminder's id comes from the session, the turn and the call, so that a call which is made again after
a crash adds nothing. Who the turn answers is kept with it: what the reminder comes to is delivered as an
answer to that person.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from netclawd.core import remind
from netclawd.core.reminders import NewReminder, Reminder, ReminderId, ReminderState, ScheduleKind
from netclawd.core.schedule import in_words, shown_time
from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus, TurnId
from netclawd.core.values import replace
from netclawd.core.words import shown
from netclawd.errors import ConflictError, NetclawError, NotFoundError
from netclawd.ports import Cancel

if TYPE_CHECKING:
    from netclawd.daemon.reminders import Reminders


class RemindTool:
    """Implements :class:`netclawd.ports.Tool`."""

    name = remind.NAME
    description = remind.DESCRIPTION
    parameters: Mapping[str, Any] = remind.PARAMETERS

    def __init__(
        self, reminders: Reminders, origin_of: Callable[[TurnId], Mapping[str, str]]
    ) -> None:
        self._reminders = reminders
        self._origin_of = origin_of
        #: Held from the count of a session's reminders until there is one more.
        self._lock = threading.Lock()

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def close(self) -> None:
        return

    def describe(self, call: ToolCall) -> str:
        match call.arguments.get("action"):
            case "list":
                return "List the reminders of this conversation."
            case "remove":
                return f"Remove the reminder {shown(call.arguments.get('id'))}."
        when = [
            f"{key} {shown(call.arguments[key])}"
            for key in ("in_s", "at", "every_s", "cron", "tz", "missed", "max_late_s")
            if call.arguments.get(key) is not None
        ]
        return f"Remind this conversation, {', '.join(when)}:\n{call.arguments.get('text', '')}"

    def refusal(self, call: ToolCall) -> str | None:
        try:
            match remind.read_action(call.arguments):
                case NewReminder() as new:
                    self._reminders.judge(new)
        except NetclawError as error:
            return str(error)
        return None

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        if cancel.is_set():
            return ToolOutcome(ToolStatus.INTERRUPTED, "Nothing was done.")
        try:
            match remind.read_action(call.arguments):
                case NewReminder() as new:
                    text = self._add(new, call, context)
                case remind.Remove(id=reminder_id):
                    text = self._remove(reminder_id, context)
                case _:
                    text = self._list(context)
        except NetclawError as error:
            return ToolOutcome(ToolStatus.ERROR, str(error))
        return ToolOutcome(ToolStatus.OK, text)

    def _add(self, new: NewReminder, call: ToolCall, context: CallContext) -> str:
        reminders = self._reminders
        key = f"call {context.session_id} {context.turn_id} {call.id}"
        with self._lock:
            if (known := reminders.added(key)) is not None:
                return self._told(known)
            there = len(reminders.of_session(context.session_id))
            if there >= remind.MOST_OF_A_SESSION:
                raise ConflictError(
                    f"This conversation has {there} reminders, and there may be no more.",
                    "Remove one first.",
                )
            added = reminders.add(
                replace(new, session_id=context.session_id),
                f"turn {context.turn_id}",
                self._origin_of(context.turn_id),
                key,
            )
        return self._told(added)

    def _remove(self, reminder_id: ReminderId, context: CallContext) -> str:
        ours = {one.id for one in self._reminders.of_session(context.session_id)}
        if reminder_id in ours:
            self._reminders.remove(reminder_id)
        elif not context.again:
            raise NotFoundError(
                f"This conversation has no reminder {shown(reminder_id)}.", "List them."
            )
        return "Removed."

    def _list(self, context: CallContext) -> str:
        found = self._reminders.of_session(context.session_id)
        lines = [f"{self._told(one)}\n  {one.text}" for one in found]
        return "\n".join(lines) or "There is none."

    def _told(self, reminder: Reminder) -> str:
        schedule, head = reminder.schedule, f"{reminder.id} ({reminder.state})"
        if reminder.state is ReminderState.PAUSED:
            return f"{head}: {reminder.reason}"
        if reminder.next_at is None:
            return f"{head}."
        due = f"{shown_time(reminder.next_at, schedule.zone)}"
        match schedule.kind:
            case ScheduleKind.ONCE:
                return f"{head}, once: {due}."
            case ScheduleKind.INTERVAL:
                return f"{head}, each {in_words(schedule.every_s)}: next {due}."
        return f"{head}, cron {schedule.cron}: next {due}."
