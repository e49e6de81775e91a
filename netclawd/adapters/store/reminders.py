# ruff: noqa: S608 - only lists of columns of this module are put in; every value is bound
"""Reminders and their occurrences: the store's part of :mod:`netclawd.ports.reminders`.

Invariants: an occurrence is unique by its reminder and due time, and its input is admitted in the
transaction that starts it; a reminder that is not ACTIVE is not due, whatever its row says; of those
occurrences that have ended the newest :data:`KEPT` are kept, so that an interval of a second fills no
disk. What is due is found through one index: the others cost nothing.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from netclawd.adapters.store import reads, rows, schema, writes
from netclawd.adapters.store.readers import Readers
from netclawd.adapters.store.writer import Submit, Written
from netclawd.core.listing import ReminderPage, cursor_after, place_of
from netclawd.core.reminders import (
    TURN_BEFORE,
    Missed,
    Occurrence,
    OccurrenceState,
    Reminder,
    ReminderId,
    ReminderState,
    Schedule,
    ScheduleKind,
    Skip,
    StartOccurrence,
)
from netclawd.core.session import API, Admitted, SessionId
from netclawd.core.values import replace
from netclawd.errors import NotFoundError

#: Occurrences of a reminder that are kept once they have ended.
KEPT = 100

_REMINDER = """SELECT r.id, r.text, r.schedule, r.missed, r.max_late_s, s.id, r.own_session, r.origin,
    r.state, r.reason, r.failures, r.created_at, r.created_by, r.next_at
    FROM reminders r JOIN sessions s ON s.n = r.session"""
_BY_STATE = _REMINDER.replace("reminders r", "reminders r INDEXED BY reminders_by_state")
# Also those that are done but for the turn of their last occurrence.
_OF_INTEREST = """(r.state IN ('active', 'paused') OR r.state = 'done' AND r.n IN
    (SELECT o.reminder FROM occurrences o INDEXED BY occurrences_open WHERE o.state = 'started'))"""
_LISTED = f"""{_BY_STATE} WHERE {_OF_INTEREST}
    ORDER BY r.next_at IS NULL, r.next_at, r.n"""
_ALL = f"{_REMINDER} ORDER BY r.next_at IS NULL, r.next_at, r.n"
_PLACE = "r.next_at IS NULL, ifnull(r.next_at, r.created_at), r.id"
_PAGE, _PAGE_OF_ALL = (
    f"""{question} ({_PLACE}) > (?, ?, ?) ORDER BY {_PLACE} LIMIT ?"""
    for question in (f"{_BY_STATE} WHERE {_OF_INTEREST} AND", f"{_REMINDER} WHERE")
)
_OF_SESSION = f"""{_REMINDER.replace("reminders r", "reminders r INDEXED BY reminders_by_session")}
    WHERE r.session = (SELECT n FROM sessions WHERE id = ?) AND r.state IN ('active', 'paused')
    ORDER BY r.next_at IS NULL, r.next_at, r.n"""
_DUE = (
    f"{_BY_STATE} WHERE r.state = 'active' AND r.next_at BETWEEN ? AND ? ORDER BY r.next_at LIMIT ?"
)
_COUNT = """SELECT state, count(*) FROM reminders INDEXED BY reminders_by_state
    GROUP BY state"""

_AHEAD = """SELECT r.id FROM reminders r INDEXED BY reminders_by_state
    WHERE r.state = 'active' AND r.next_at > ?1 AND (r.created_at > ?1 OR EXISTS
        (SELECT 1 FROM occurrences o WHERE o.reminder = r.n AND o.due_at > ?1))"""
_OVERDUE = """SELECT count(*) FROM reminders INDEXED BY reminders_by_state
    WHERE state = 'active' AND next_at < ?"""

# Of a session only the first open turn goes on.
_WAITS_FOR = f"""CASE WHEN o.state = 'started' THEN (SELECT
    CASE WHEN f.state = 'parked' THEN f.park_reason
        WHEN f.position < t.position THEN '{TURN_BEFORE}' ELSE '' END
    FROM turns f WHERE f.session = t.session AND f.state NOT IN ('completed', 'failed', 'cancelled')
    ORDER BY f.position LIMIT 1) END"""
_OCCURRENCE = f"""SELECT r.id, o.due_at, o.state, o.skipped, t.id, o.started_at, o.ended_at, o.reason,
    ifnull({_WAITS_FOR}, '')
    FROM occurrences o JOIN reminders r ON r.n = o.reminder LEFT JOIN turns t ON t.position = o.turn"""
_OPEN = f"""{_OCCURRENCE.replace("occurrences o", "occurrences o INDEXED BY occurrences_open")}
    WHERE o.state = 'started' ORDER BY o.n"""
_NEWEST = f"""{_OCCURRENCE} WHERE o.reminder = (SELECT n FROM reminders WHERE id = ?)
    ORDER BY o.due_at DESC LIMIT ?"""


class SqliteReminders:
    """The ``ReminderStore`` port; ``there`` is False in a store, opened for reading only, of an older
    release."""

    def __init__(self, submit: Submit, readers: Readers, *, there: bool) -> None:
        self._submit = submit
        self._readers = readers
        self._there = there

    def add(self, reminder: Reminder) -> bool:
        """Add a reminder, and its session where that is its own; False when the id is there already."""
        return self._submit(lambda db, _: _add(db, reminder))

    def reminder(self, reminder_id: ReminderId) -> Reminder:
        if not self._there:
            raise _no_reminder(reminder_id)
        with self._readers.lend() as db:
            return _reminder(db, reminder_id)

    def reminders(self, *, all_: bool) -> tuple[Reminder, ...]:
        return self._select(_ALL if all_ else _LISTED)

    def page(self, *, all_: bool, cursor: str | None, limit: int) -> ReminderPage:
        question = _PAGE_OF_ALL if all_ else _PAGE
        found = self._select(question, *place_of(cursor), limit + 1)
        more = cursor_after(found[limit - 1]) if len(found) > limit else None
        return ReminderPage(found[:limit], more)

    def of_session(self, session_id: SessionId) -> tuple[Reminder, ...]:
        return self._select(_OF_SESSION, session_id)

    def count(self) -> dict[ReminderState, int]:
        if not self._there:
            return {}
        with self._readers.lend() as db:
            return {ReminderState(state): n for state, n in db.execute(_COUNT).fetchall()}

    def due(self, now: float, limit: int, since: float = -math.inf) -> tuple[Reminder, ...]:
        return self._select(_DUE, since, now, limit)

    def planned_ahead(self, now: float) -> tuple[ReminderId, ...]:
        if not self._there:
            return ()
        with self._readers.lend() as db:
            return tuple(ReminderId(found) for (found,) in db.execute(_AHEAD, (now,)).fetchall())

    def overdue(self, before: float) -> int:
        if not self._there:
            return 0
        with self._readers.lend() as db:
            return int(db.execute(_OVERDUE, (before,)).fetchone()[0])

    def start(self, start: StartOccurrence, at: float) -> Admitted | None:
        """Start an occurrence whole: its record, its input, the next due time."""
        data = writes.admission(start.input)
        return self._submit(lambda db, written: _start(db, written, start, data, at))

    def skip(self, skips: Sequence[Skip]) -> None:
        """Record what does not run, and the next due times; nothing of one that isn't ACTIVE."""

        def work(db: sqlite3.Connection, _: Written) -> None:
            for skip in skips:
                _skip(db, skip)

        self._submit(work)

    def open_occurrences(self) -> tuple[Occurrence, ...]:
        if not self._there:
            return ()
        with self._readers.lend() as db:
            return tuple(_as_occurrence(row) for row in db.execute(_OPEN).fetchall())

    def end(self, occurrence: Occurrence, failures: int, pause: str) -> None:
        """Record how a STARTED one ended, and what that means for its reminder."""
        self._submit(lambda db, _: _end(db, occurrence, failures, pause))

    def occurrences(self, reminder_id: ReminderId, limit: int) -> tuple[Occurrence, ...]:
        if not self._there:
            return ()
        limit = max(0, min(limit, reads.MOST))
        with self._readers.lend() as db:
            found = db.execute(_NEWEST, (reminder_id, limit)).fetchall()
            return tuple(_as_occurrence(row) for row in found)

    def change(
        self, reminder_id: ReminderId, state: ReminderState, reason: str, next_at: float | None
    ) -> Reminder:
        """Pause, resume or remove; a resumed one has no failures."""
        return self._submit(lambda db, _: _change(db, reminder_id, state, reason, next_at))

    def _select(self, question: str, *values: object) -> tuple[Reminder, ...]:
        if not self._there:
            return ()
        with self._readers.lend() as db:
            return tuple(_as_reminder(row) for row in db.execute(question, values).fetchall())


# -- work of the writer ------------------------------------------------------------------------------


def _add(db: sqlite3.Connection, new: Reminder) -> bool:
    if db.execute("SELECT 1 FROM reminders WHERE id = ?", (new.id,)).fetchone() is not None:
        return False
    place = db.execute("SELECT n FROM sessions WHERE id = ?", (new.session_id,)).fetchone()
    if place is None:
        if not new.own_session:
            raise reads.no_session(new.session_id)
        writes.create_session(db, new.session_id, new.created_at, API)
    db.execute(
        """INSERT INTO reminders (id, text, schedule, missed, max_late_s, session, own_session,
            origin, state, reason, failures, created_at, created_by, next_at)
            VALUES (?, ?, ?, ?, ?, (SELECT n FROM sessions WHERE id = ?), ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            *(new.id, rows.clean(new.text)),
            _encode_schedule(new.schedule),
            *(new.missed, new.max_late_s, new.session_id, new.own_session),
            *(rows.encode(new.origin), new.state, new.reason, new.failures),
            *(new.created_at, new.created_by, new.next_at),
        ),
    )
    return True


def _start(
    db: sqlite3.Connection, written: Written, start: StartOccurrence, data: str, at: float
) -> Admitted | None:
    runnable = [ReminderState.ACTIVE]
    if start.by_request:
        runnable.append(ReminderState.PAUSED)
    place = _place(db, start.reminder_id, runnable)
    if place is None:
        return None
    started = OccurrenceState.STARTED
    new = Occurrence(start.reminder_id, start.due_at, started, started_at=at)
    if not _insert(db, place, new):
        return None
    admitted = writes.admit(db, written, start.input, data, at)
    db.execute(
        """UPDATE occurrences SET turn = (SELECT position FROM turns WHERE id = ?)
            WHERE reminder = ? AND due_at = ?""",
        (admitted.turn_id, place, start.due_at),
    )
    for skipped in start.skipped:
        _insert(db, place, skipped)
    if not start.by_request:
        _set_next(db, place, start.next_at)
    _forget(db, place)
    return admitted


def _skip(db: sqlite3.Connection, skip: Skip) -> None:
    place = _place(db, skip.reminder_id, [ReminderState.ACTIVE])
    if place is None:
        return
    for skipped in skip.occurrences:
        _insert(db, place, skipped)
    _set_next(db, place, skip.next_at)
    _forget(db, place)


def _end(db: sqlite3.Connection, ended: Occurrence, failures: int, pause: str) -> None:
    place = _place(db, ended.reminder_id, list(ReminderState))
    done = db.execute(
        """UPDATE occurrences SET state = ?, ended_at = ?, reason = ?
            WHERE reminder = ? AND due_at = ? AND state = 'started'""",
        (ended.state, ended.ended_at, ended.reason, place, ended.due_at),
    )
    if not done.rowcount:
        return
    _count(db, ended.state, 1)
    db.execute("UPDATE reminders SET failures = ? WHERE n = ?", (failures, place))
    if pause:
        db.execute(
            """UPDATE reminders SET state = 'paused', reason = ?, next_at = NULL
                WHERE n = ? AND state = 'active'""",
            (pause, place),
        )


def _change(
    db: sqlite3.Connection,
    reminder_id: ReminderId,
    state: ReminderState,
    reason: str,
    next_at: float | None,
) -> Reminder:
    before = _reminder(db, reminder_id)
    failures = 0 if state is ReminderState.ACTIVE else before.failures
    db.execute(
        "UPDATE reminders SET state = ?, reason = ?, next_at = ?, failures = ? WHERE id = ?",
        (state, reason, next_at, failures, reminder_id),
    )
    return replace(before, state=state, reason=reason, next_at=next_at, failures=failures)


def _place(
    db: sqlite3.Connection, reminder_id: ReminderId, states: Sequence[ReminderState]
) -> int | None:
    """Return the place of a reminder in one of these states; None when it is in another, or nowhere."""
    found = db.execute("SELECT n, state FROM reminders WHERE id = ?", (reminder_id,)).fetchone()
    return None if found is None or found[1] not in states else int(found[0])


def _insert(db: sqlite3.Connection, place: int, new: Occurrence) -> bool:
    """Write an occurrence; False when there is one of that time."""
    done = db.execute(
        """INSERT INTO occurrences (reminder, due_at, state, skipped, started_at, ended_at, reason)
            VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (reminder, due_at) DO NOTHING""",
        (
            *(place, new.due_at, new.state, new.skipped),
            *(new.started_at, new.ended_at, new.reason),
        ),
    )
    if done.rowcount == 1 and new.state is OccurrenceState.SKIPPED:
        _count(db, new.state, 1 + new.skipped)
    return done.rowcount == 1


def _count(db: sqlite3.Connection, state: OccurrenceState, more: int) -> None:
    """Add to how many occurrences ever ended so: of the rows only the newest are kept."""
    db.execute(
        """INSERT INTO meta VALUES (?, ?)
            ON CONFLICT (key) DO UPDATE SET value = value + excluded.value""",
        (f"{schema.OCCURRENCES}{state}", more),
    )


def _set_next(db: sqlite3.Connection, place: int, next_at: float | None) -> None:
    state = ReminderState.ACTIVE if next_at is not None else ReminderState.DONE
    db.execute("UPDATE reminders SET next_at = ?, state = ? WHERE n = ?", (next_at, state, place))


def _forget(db: sqlite3.Connection, place: int) -> None:
    db.execute(
        """DELETE FROM occurrences WHERE reminder = ? AND state <> 'started' AND due_at <=
            (SELECT due_at FROM occurrences WHERE reminder = ? AND state <> 'started'
            ORDER BY due_at DESC LIMIT 1 OFFSET ?)""",
        (place, place, KEPT),
    )


# -- rows ----------------------------------------------------------------------------------------------


def _reminder(db: sqlite3.Connection, reminder_id: ReminderId) -> Reminder:
    found = db.execute(f"{_REMINDER} WHERE r.id = ?", (reminder_id,)).fetchone()
    if found is None:
        raise _no_reminder(reminder_id)
    reminder = _as_reminder(found)
    if reminder.state is ReminderState.REMOVED:
        raise _no_reminder(reminder_id, " any more: it was removed")
    return reminder


def _no_reminder(reminder_id: ReminderId, why: str = "") -> NotFoundError:
    return NotFoundError(
        f"There is no reminder {reminder_id}{why}.", "List them: netclaw reminders list."
    )


def _encode_schedule(schedule: Schedule) -> str:
    return rows.encode(
        {
            "kind": schedule.kind,
            "zone": schedule.zone,
            "at": schedule.at,
            "every_s": schedule.every_s,
            "cron": schedule.cron,
        }
    )


def _as_reminder(row: rows.Row) -> Reminder:
    reminder_id, text, schedule, missed, max_late_s, session_id, own, origin, *more = row
    state, reason, failures, created_at, created_by, next_at = more
    fields = rows.decode(schedule)
    return Reminder(
        id=reminder_id,
        text=text,
        schedule=Schedule(**{**fields, "kind": ScheduleKind(fields["kind"])}),
        missed=Missed(missed),
        max_late_s=max_late_s,
        session_id=session_id,
        own_session=bool(own),
        origin=rows.decode(origin),
        state=ReminderState(state),
        reason=reason,
        failures=failures,
        created_at=created_at,
        created_by=created_by,
        next_at=next_at,
    )


def _as_occurrence(row: rows.Row) -> Occurrence:
    reminder_id, due_at, state, *more = row
    return Occurrence(reminder_id, due_at, OccurrenceState(state), *more)
