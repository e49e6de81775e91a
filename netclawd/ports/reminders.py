"""What reminders need of the world, and what people, the API and an agent may ask of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from netclawd.core.listing import ReminderPage
from netclawd.core.reminders import (
    NewReminder,
    Occurrence,
    Reminder,
    ReminderId,
    ReminderState,
    Skip,
    StartOccurrence,
)
from netclawd.core.schedule import Cron
from netclawd.core.session import Admitted, SessionId


class Calendar(Protocol):
    """What due times are computed with."""

    @property
    def cron(self) -> Cron: ...
    def host_zone(self) -> str:
        """Return the IANA name of the host's time zone."""


class ReminderStore(Protocol):
    """Durable reminders; a part of the store, with its promises (:class:`netclawd.ports.Store`)."""

    def add(self, reminder: Reminder) -> bool:
        """Add a reminder, and its session where that is its own; False when the id is there already.

        NotFoundError when the session it is for does not exist.
        """

    def reminder(self, reminder_id: ReminderId) -> Reminder:
        """Return one that was not removed, or raise NotFoundError."""

    def reminders(self, *, all_: bool) -> tuple[Reminder, ...]:
        """Return those that are ACTIVE, PAUSED, or DONE with an occurrence under way, next due first;
        ``all_``: all that are DONE or REMOVED, too."""

    def page(self, *, all_: bool, cursor: str | None, limit: int) -> ReminderPage:
        """Return a page of those; BadRequestError for a cursor that isn't ours."""

    def of_session(self, session_id: SessionId) -> tuple[Reminder, ...]:
        """Return the ACTIVE and PAUSED reminders of a session."""

    def count(self) -> dict[ReminderState, int]: ...

    def due(self, now: float, limit: int, since: float = -math.inf) -> tuple[Reminder, ...]:
        """Return ACTIVE reminders that are due by ``now``, the longest due first; ``math.inf``: also those to
        come. None that was due before ``since``."""

    def planned_ahead(self, now: float) -> tuple[ReminderId, ...]:
        """Return ACTIVE reminders that were made, or had an occurrence, after an instant that is still to
        come: the clock was ahead then."""

    def overdue(self, before: float) -> int:
        """Count ACTIVE reminders that were due before an instant."""

    def start(self, start: StartOccurrence, at: float) -> Admitted | None:
        """Start an occurrence whole: its record, its input, the next due time.

        None, with nothing written, when that occurrence is there already, or the reminder isn't ACTIVE
        (``by_request``: nor PAUSED).
        """

    def skip(self, skips: Sequence[Skip]) -> None:
        """Record what does not run, and the next due times, in one transaction; nothing of one that isn't
        ACTIVE."""

    def open_occurrences(self) -> tuple[Occurrence, ...]:
        """Return what is STARTED, oldest first."""

    def end(self, occurrence: Occurrence, failures: int, pause: str) -> None:
        """Record how a STARTED one ended and the failures in a row; ``pause``: pause the reminder for
        this reason, empty not to."""

    def occurrences(self, reminder_id: ReminderId, limit: int) -> tuple[Occurrence, ...]:
        """Return the newest ones, newest first."""

    def change(
        self, reminder_id: ReminderId, state: ReminderState, reason: str, next_at: float | None
    ) -> Reminder:
        """Pause, resume or remove; a resumed one has no failures. NotFoundError."""


class Reminders(Protocol):
    """What may be asked of the daemon about reminders; from any thread.

    NotFoundError for one that isn't there, BadRequestError for what can't be meant.
    """

    def add(
        self,
        new: NewReminder,
        by: str,
        origin: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Reminder:
        """Set a reminder; ``by`` is who asks, for people.

        The same ``key`` again sets nothing and returns what was set under it; KeyReusedError when that says
        something else.
        """

    def added(self, key: str) -> Reminder | None:
        """Return what was added under a key, None when nothing was, or it was removed."""

    def page(self, *, all_: bool, cursor: str | None, limit: int) -> ReminderPage:
        """Return a page of those that are ACTIVE, PAUSED, or DONE with an occurrence under way; ``all_``: all
        that are DONE or REMOVED, too."""

    def show(self, reminder_id: ReminderId) -> Reminder: ...

    def occurrences(self, reminder_id: ReminderId, limit: int) -> Sequence[Occurrence]:
        """Return the newest ones, newest first."""

    def open_occurrences(self) -> Sequence[Occurrence]:
        """Return what is STARTED, of all of them."""

    # ConflictError where its state doesn't allow that.
    def pause(self, reminder_id: ReminderId) -> Reminder: ...
    def resume(self, reminder_id: ReminderId) -> Reminder: ...

    def run(self, reminder_id: ReminderId) -> Occurrence:
        """Start it now, besides its schedule; DrainingError while the gate is closed."""

    def remove(self, reminder_id: ReminderId) -> Reminder:
        """Take it away and return it as it is then."""
