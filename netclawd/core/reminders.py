"""Reminders: when each is due, and what becomes of what was missed.

Pure. The store has one row for each reminder with the instant that comes next, and one for each
occurrence, unique by reminder and due time; an occurrence is started in the transaction that admits its
input, so that none runs twice. Instants are wall clock, seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NewType

from netclawd.core.session import AdmitInput, SessionId, TurnId
from netclawd.core.values import as_map, field, frozen

ReminderId = NewType("ReminderId", str)

#: Of a text, characters.
LONGEST_TEXT = 8_000


class ScheduleKind(StrEnum):
    ONCE = "once"
    INTERVAL = "interval"
    CRON = "cron"


@frozen
class Schedule:
    """When a reminder is due."""

    kind: ScheduleKind
    #: IANA name of the time zone that local times are meant in.
    zone: str
    #: ONCE: the instant; INTERVAL: the instant that the intervals are counted from.
    at: float = 0.0
    #: INTERVAL: seconds.
    every_s: float = 0.0
    #: CRON: five fields.
    cron: str = ""


class Missed(StrEnum):
    """What becomes of occurrences that could not start in time."""

    SKIP = "skip"
    #: The newest of them runs.
    ONCE = "once"
    ALL = "all"


class ReminderState(StrEnum):
    ACTIVE = "active"
    #: By a person, or after :data:`netclawd.core.budgets.REMINDER_FAILURES` failures in a row.
    PAUSED = "paused"
    #: Nothing is due any more.
    DONE = "done"
    REMOVED = "removed"


#: An occurrence waits for the end of the turn before its own.
TURN_BEFORE = "turn-before"


class OccurrenceState(StrEnum):
    #: Its input is admitted; its turn has not ended.
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    #: Its turn was cancelled by a person.
    CANCELLED = "cancelled"
    #: It did not run, for the reason that it says.
    SKIPPED = "skipped"


@frozen
class NewReminder:
    """A reminder as it is asked for; one of ``in_s``, ``at``, ``every_s`` and ``cron`` is set."""

    text: str
    #: Seconds from now.
    in_s: float | None = None
    #: ISO 8601, local in ``zone`` unless it has an offset; or HH:MM, the next one there.
    at: str | None = None
    every_s: float | None = None
    cron: str | None = None
    #: IANA name, empty: the host's.
    zone: str = ""
    missed: Missed = Missed.ONCE
    max_late_s: float = 3_600.0
    #: The session that it speaks in, None: one of its own.
    session_id: SessionId | None = None


@frozen
class Reminder:
    id: ReminderId
    text: str
    schedule: Schedule
    missed: Missed
    #: Seconds that a missed occurrence may be late and still run.
    max_late_s: float
    session_id: SessionId
    #: Whether the session was made for it.
    own_session: bool
    #: Who asked for it, as the input of the session's channel says it; empty for an operator.
    origin: Mapping[str, str]
    state: ReminderState
    #: Why it is paused, empty when it isn't.
    reason: str
    #: Failures in a row.
    failures: int
    created_at: float
    #: Peer, client or turn that made it, for people.
    created_by: str
    #: The next instant that it is due, None when there is none.
    next_at: float | None


@frozen
class Occurrence:
    reminder_id: ReminderId
    due_at: float
    state: OccurrenceState
    #: Due times before this one that were skipped with it.
    skipped: int = 0
    turn_id: TurnId | None = None
    started_at: float | None = None
    ended_at: float | None = None
    #: Why it was skipped or failed.
    reason: str = ""
    #: What keeps a STARTED one from going on: a :class:`~netclawd.core.session.ParkReason` in its session, or
    #: :data:`TURN_BEFORE`; empty: it goes on.
    waits_for: str = ""


@frozen
class StartOccurrence:
    """Start one: its record, its input and the next due time, in one transaction."""

    reminder_id: ReminderId
    due_at: float
    input: AdmitInput
    #: What the reminder is due next, None: never, and it is DONE.
    next_at: float | None
    #: Occurrences that are skipped with it.
    skipped: tuple[Occurrence, ...] = field(default_factory=tuple)
    #: It runs because a person asked: the schedule stays as it is.
    by_request: bool = False


@frozen
class Skip:
    """Start nothing of a reminder until its next due time."""

    reminder_id: ReminderId
    #: What does not run.
    occurrences: tuple[Occurrence, ...]
    #: None: never, and it is DONE.
    next_at: float | None


def as_json(reminder: Reminder, occurrences: Sequence[Occurrence] = ()) -> dict[str, Any]:
    """Return it as HTTP, the control socket and ``--json`` show it, with these occurrences."""
    shown = as_map(reminder)
    del shown["origin"]
    return {**shown, "occurrences": [occurrence_as_json(one) for one in occurrences]}


def under_way_of(found: Iterable[Occurrence]) -> Mapping[ReminderId, Sequence[Occurrence]]:
    """Return what is under way, by its reminder: of each there is one at most."""
    return {one.reminder_id: (one,) for one in found}


def occurrence_as_json(occurrence: Occurrence) -> dict[str, Any]:
    shown = as_map(occurrence)
    del shown["reminder_id"]
    return shown
