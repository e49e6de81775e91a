"""The thread ``scheduler``: starts reminders that are due, and sees how their turns end.

The schedule is in the store; memory has only which occurrences are under way, and that is read from the
store at each start. It follows the wall clock, which may jump, by a look every few seconds. Invariants:

- An occurrence starts in the one transaction that records it and admits its input. Crash: before it
  the occurrence is still due, behind it the next start finds the queued turn; never both.
- Of a reminder one occurrence is under way at a time; of all of them ``reminders.max_running``, without
  those that wait for a person.
- What is on time is not held up by what was missed, and the other way round: while both wait each has a
  place of its own. With one place in all it is for what is on time.
- Nothing starts while the gate is closed. What passed it just before is a turn that the engine keeps
  for the next generation.
- Only a turn that failed is a failure: what a restart or a person does to it is none.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from netclawd.core.budgets import REMINDER_FAILURES, REMINDER_ON_TIME_S
from netclawd.core.notices import Notice
from netclawd.core.reminders import (
    Occurrence,
    OccurrenceState,
    Reminder,
    ReminderId,
    ReminderState,
    ScheduleKind,
    Skip,
    StartOccurrence,
)
from netclawd.core.schedule import (
    Verdict,
    how_many,
    in_words,
    input_text,
    judge_due,
    judge_overrun,
    next_due,
    skipped_row,
)
from netclawd.core.session import (
    AdmitInput,
    Delta,
    InputId,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.values import frozen, replace
from netclawd.errors import (
    BadRequestError,
    ConflictError,
    DrainingError,
    NetclawError,
    NotFoundError,
    StoreClosedError,
)
from netclawd.ports import Clock, Ids, Store

if TYPE_CHECKING:
    from netclawd.ports.reminders import Calendar, ReminderStore

_log = logging.getLogger("netclawd.reminders")

#: The wall clock may jump: look at it this often while anything is to come.
_LOOK_S = 2.0
#: Without anything to come: :meth:`Scheduler.look` comes first.
_IDLE_S = 3_600.0
#: After an error of the store.
_RETRY_S = 5.0
#: After a defect, or without a descriptor.
_DEFECT_S = 30.0
#: The wall clock has jumped when it and the monotonic one part by so much between two looks, seconds.
_JUMP_S = 10.0
#: Reminders that are read at once.
_BATCH = 50
#: What was missed is judged for so long at once, seconds.
_PORTION_S = 0.1
#: Occurrences that are looked through for what has been due before the clock was put back.
_REMEMBERED = 100

_ENDS = {
    TurnState.COMPLETED: OccurrenceState.DONE,
    TurnState.FAILED: OccurrenceState.FAILED,
    TurnState.CANCELLED: OccurrenceState.CANCELLED,
}


@frozen
class Surroundings:
    """What the scheduler works with, between an opening of the gate and its closing."""

    store: Store
    clock: Clock
    ids: Ids
    calendar: Calendar
    is_gate_open: Callable[[], bool]
    #: Tells the engine of an admitted turn.
    submit: Callable[[TurnId, SessionId], None]
    max_running: int


class _UnderWay:
    """An occurrence whose turn has not ended."""

    __slots__ = ("blocked", "missed", "occurrence", "session_id")

    def __init__(self, occurrence: Occurrence, session_id: SessionId, *, missed: bool) -> None:
        self.occurrence = occurrence
        self.session_id = session_id
        #: Whether it was missed, and is caught up on.
        self.missed = missed
        #: Its session waits for a person.
        self.blocked = False


@frozen
class _Running:
    #: Of these an occurrence is under way.
    known: frozenset[ReminderId]
    #: Those that wait for no person, and those of them that were missed.
    number: int
    missed: int


class Scheduler:
    """Implements :class:`netclawd.ports.Watch`. :meth:`step` is the thread's, all else is anybody's."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._store: ReminderStore = surroundings.store.reminders
        self._wake = threading.Event()
        self._closed = False
        #: Held from the look whether a reminder runs to the record that it does.
        self._starting = threading.Lock()
        self._under_way: dict[ReminderId, _UnderWay] | None = None
        #: Guards the two below; nothing is called while it is held.
        self._lock = threading.Lock()
        #: Sessions of what is under way, and those of them in which something was committed.
        self._sessions: frozenset[SessionId] = frozenset()
        self._changed: set[SessionId] = set()
        #: What was due before this instant was late when somebody came to look; None before the first look.
        self._since: float | None = None
        #: Wall clock without the monotonic one, at the last look.
        self._offset = 0.0
        #: What is to be planned anew since the clock was put back.
        self._to_plan: deque[ReminderId] = deque()

    # -- from other threads --------------------------------------------------------------------

    def look(self) -> None:
        """Look again: a reminder has changed."""
        self._wake.set()

    def close(self) -> None:
        """Start nothing any more, and let the thread end."""
        self._closed = True
        self._wake.set()

    def on_events(self, session_id: SessionId, last_seq: int) -> None:  # noqa: ARG002 - the port's
        with self._lock:
            if session_id not in self._sessions:
                return
            self._changed.add(session_id)
        self._wake.set()

    def on_delta(self, delta: Delta) -> None:
        del delta

    def run_now(self, reminder: Reminder) -> Occurrence:
        """Start an occurrence beside the schedule, by request."""
        around, now = self._around, self._around.clock.wall()
        with self._starting:
            self._refuse_to_start(reminder.id)
            verdict = Verdict(round(now, 3), False, None, 0, "", None)
            if self._start(reminder, verdict, now, by_request=True) is None:
                state = around.store.reminders.reminder(reminder.id).state
                raise ConflictError(
                    f"The reminder {reminder.id} can't run: it is {state}.", "Add a new one."
                )
            started = self._known()[reminder.id].occurrence
        self._wake.set()
        return started

    def _refuse_to_start(self, reminder_id: ReminderId) -> None:
        if self._closed or not self._around.is_gate_open():
            raise DrainingError(
                "The daemon is restarting.", "Ask again in a moment.", retry_after_s=1
            )
        if reminder_id in self._known():
            raise ConflictError(
                f"The reminder {reminder_id} runs already.", "Wait for the end of that turn."
            )

    # -- the thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """Follow the schedule until :meth:`close`."""
        while True:
            self._wake.clear()
            if self._closed:
                return
            try:
                pause_s = self.step()
            except StoreClosedError:
                return
            except NetclawError as error:
                _log.warning("reminders wait, trying again: %s", error.what)
                pause_s = _RETRY_S
            except Exception:  # noqa: BLE001 - a defect met by one reminder must not silence all
                _log.exception("the scheduler met a defect, trying again")
                pause_s = _DEFECT_S
            self._wake.wait(pause_s)

    def step(self) -> float:
        """Do what is to be done now; return seconds until there is more."""
        now = self._around.clock.wall()
        self._follow_clock(now)
        self._settle()
        if self._closed or not self._around.is_gate_open():
            return _IDLE_S
        self._plan_anew(now)
        pause_s = self._start_due(now)
        return 0.0 if self._to_plan else pause_s

    def _follow_clock(self, now: float) -> None:
        offset = now - self._around.clock.monotonic()
        jump_s, self._offset = offset - self._offset, offset
        if self._since is None:
            self._since = now
            # The clock was ahead when the daemon ended, and was put back before it began.
            self._to_plan.extend(self._store.planned_ahead(now))
        elif abs(jump_s) >= _JUMP_S:
            way = "forward" if jump_s > 0 else "back"
            _log.info("the clock was put %s by %s", way, in_words(abs(jump_s)))
            self._since = now
            if jump_s < 0:
                # What repeats goes on now, not when the clock is there again.
                self._to_plan.extend(one.id for one in self._store.reminders(all_=False))

    def _plan_anew(self, now: float) -> None:
        """Plan some of those anew that wait for it: thousands must not hold up what is due."""
        for _ in range(min(_BATCH, len(self._to_plan))):
            try:
                self._plan_one_anew(self._to_plan[0], now)
            except (NotFoundError, BadRequestError):
                pass  # Removed; or paused once it is due.
            self._to_plan.popleft()

    def _plan_one_anew(self, reminder_id: ReminderId, now: float) -> None:
        reminder, cron = self._store.reminder(reminder_id), self._around.calendar.cron
        if reminder.schedule.kind is ScheduleKind.ONCE or reminder.next_at is None:
            return
        before = {one.due_at for one in self._store.occurrences(reminder_id, _REMEMBERED)}
        due = next_due(reminder.schedule, now, cron)
        while due in before:
            due = next_due(reminder.schedule, due, cron)
        if due is not None and due < reminder.next_at:
            self._store.skip([Skip(reminder_id, (), due)])

    # -- ends ----------------------------------------------------------------------------------

    def _known(self) -> dict[ReminderId, _UnderWay]:
        """Return what is under way, after a start as the store has it."""
        if self._under_way is None:
            found = {}
            for occurrence in self._store.open_occurrences():
                assert occurrence.turn_id is not None
                session_id = self._around.store.turn(occurrence.turn_id).session_id
                late_s = (occurrence.started_at or 0.0) - occurrence.due_at
                missed = late_s > REMINDER_ON_TIME_S
                found[occurrence.reminder_id] = _UnderWay(occurrence, session_id, missed=missed)
            self._under_way = found
            self._listen(*(one.session_id for one in found.values()))
        return self._under_way

    def _listen(self, *changed: SessionId) -> None:
        """Hear of the sessions of what is under way; look at these even so."""
        sessions = frozenset(one.session_id for one in self._known().values())
        with self._lock:
            self._sessions = sessions
            self._changed.update(changed)

    def _settle(self) -> None:
        """See what has become of the turns whose sessions have changed."""
        with self._starting:
            known = tuple(self._known().values())
        with self._lock:
            changed, self._changed = self._changed, set()
        try:
            for one in known:
                if one.session_id in changed:
                    self._look_at(one)
        except NetclawError:
            with self._lock:
                self._changed |= changed
            raise

    def _look_at(self, one: _UnderWay) -> None:
        store, turn_id = self._around.store, one.occurrence.turn_id
        assert turn_id is not None
        turn = store.turn(turn_id)
        if not turn.state.ended:
            one.blocked = store.session(one.session_id).turn_state is TurnState.PARKED
            return
        self._end(one.occurrence, turn)
        with self._starting:
            del self._known()[one.occurrence.reminder_id]
            self._listen()

    def _end(self, occurrence: Occurrence, turn: Turn) -> None:
        """Record how an occurrence ended. Crash: before it the next start sees the same ended turn."""
        now, state = self._around.clock.wall(), _ENDS[turn.state]
        reason = self._why_failed(turn) if state is OccurrenceState.FAILED else ""
        try:
            reminder = self._store.reminder(occurrence.reminder_id)
        except NotFoundError:
            reminder = None  # Removed meanwhile.
        failures, pause = 0, ""
        if reminder is not None and state is not OccurrenceState.DONE:
            failures = reminder.failures + (state is OccurrenceState.FAILED)
            if failures >= REMINDER_FAILURES and reminder.state is ReminderState.ACTIVE:
                pause = f"It failed {failures} times in a row, the last time: {reason}"
        ended = replace(occurrence, state=state, ended_at=now, reason=reason)
        self._store.end(ended, failures, pause)
        extra = {**_ids(occurrence), "SESSION_ID": turn.session_id, "TURN_ID": turn.id}
        _log.info("reminder ended: %s", state.value, extra=extra)
        if pause:
            notice = {**extra, "MESSAGE_ID": Notice.REMINDER_PAUSED}
            _log.warning("reminder paused: it failed %d times in a row", failures, extra=notice)
        elif reminder is not None and reminder.state is ReminderState.ACTIVE:
            self._skip_overrun(reminder, now)

    def _skip_overrun(self, reminder: Reminder, now: float) -> None:
        assert self._since is not None
        try:
            verdict = judge_overrun(reminder, self._since, now, self._around.calendar.cron)
        except BadRequestError:
            return  # It is paused when it is due.
        if verdict is not None:
            self._skip([(reminder, verdict)])

    def _why_failed(self, turn: Turn) -> str:
        events = self._around.store.turn_events(turn.id)
        return str(events[-1].data.get("reason", "")) if events else ""

    # -- starts --------------------------------------------------------------------------------

    def _start_due(self, now: float) -> float:
        """Start what is due and may run; return seconds until there is more.

        What was missed comes behind what is on time: after a long rest there is much of it to judge.
        """
        assert self._since is not None
        border = self._since - REMINDER_ON_TIME_S
        known = self._running().known
        missed = [
            one for one in self._store.due(border, len(known) + _BATCH) if one.id not in known
        ]
        pause_s = self._start_on_time(now, border, missed_wait=bool(missed))
        if not missed:
            return pause_s
        return 0.0 if self._catch_up(missed, now) else min(pause_s, _LOOK_S)

    def _running(self) -> _Running:
        with self._starting:
            known = self._known()
            running = [one.missed for one in known.values() if not one.blocked]
            return _Running(frozenset(known), len(running), sum(running))

    def _start_on_time(self, now: float, border: float, *, missed_wait: bool) -> float:
        """Start what was due since ``border``; return seconds until there is more."""
        while True:
            running, around = self._running(), self._around
            free = around.max_running - running.number
            if missed_wait and not running.missed and around.max_running > 1:
                free -= 1  # Theirs: those on time may never come to an end.
            most = len(running.known) + _BATCH
            found = self._store.due(math.inf, most, border)
            skips: list[tuple[Reminder, Verdict]] = []
            pause_s = None
            for reminder in found:
                if reminder.id in running.known:
                    continue
                assert reminder.next_at is not None
                if reminder.next_at > now:
                    pause_s = min(_LOOK_S, max(0.01, reminder.next_at - around.clock.wall()))
                    break
                if not self._may_start() or free <= 0:
                    pause_s = _LOOK_S
                    break
                free -= self._take(reminder, now, skips)
            self._skip(skips)
            if pause_s is not None:
                return pause_s
            if len(found) < most:
                return _LOOK_S if found else _IDLE_S

    def _catch_up(self, missed: Sequence[Reminder], now: float) -> bool:
        """Start or skip some that were missed; return whether there is more that could be done now."""
        running, clock = self._running(), self._around.clock
        most = self._around.max_running
        # A place is left to those on time.
        free = min(most - running.number, max(1, most - 1) - running.missed)
        skips: list[tuple[Reminder, Verdict]] = []
        until, more = clock.monotonic() + _PORTION_S, len(missed) >= _BATCH
        for reminder in missed:
            if not self._may_start() or free <= 0:
                more = False
                break
            if clock.monotonic() > until:
                more = True
                break
            free -= self._take(reminder, now, skips)
        self._skip(skips)
        return more

    def _may_start(self) -> bool:
        return not self._closed and self._around.is_gate_open()

    def _take(self, reminder: Reminder, now: float, skips: list[tuple[Reminder, Verdict]]) -> bool:
        """Start a reminder that is due and return True, or add it to those that skip."""
        assert self._since is not None
        try:
            verdict = judge_due(reminder, now, self._since, self._around.calendar.cron)
        except (BadRequestError, OverflowError) as error:
            reason = str(error) if isinstance(error, BadRequestError) else "Its time is no time."
            self._store.change(reminder.id, ReminderState.PAUSED, reason, None)
            ids = {"REMINDER_ID": reminder.id, "SESSION_ID": reminder.session_id}
            notice = {**ids, "MESSAGE_ID": Notice.REMINDER_PAUSED}
            _log.warning("reminder paused: %s", reason, extra=notice)
            return False
        if verdict.start is not None:
            with self._starting:
                if reminder.id in self._known():
                    return False  # Somebody has asked for it meanwhile.
                if self._start(reminder, verdict, now) is not None:
                    return True
        # Also one that was started before: the clock was put back, or its reminder has changed.
        skips.append((reminder, verdict))
        return False

    def _start(
        self, reminder: Reminder, verdict: Verdict, now: float, *, by_request: bool = False
    ) -> TurnId | None:
        """Start an occurrence in one transaction, then tell the engine. Crash: see above."""
        around = self._around
        assert verdict.start is not None
        new = AdmitInput(
            session_id=reminder.session_id,
            input_id=InputId(around.ids.new("i")),
            turn_id=TurnId(around.ids.new("t")),
            text=input_text(reminder, verdict, now),
            source_id=f"reminder:{reminder.id}:{verdict.start:.3f}",
            deferred=False,
            origin=reminder.origin,
        )
        skipped = skipped_row(reminder, verdict)
        start = StartOccurrence(
            reminder.id, verdict.start, new, verdict.next_at, skipped, by_request
        )
        admitted = self._store.start(start, now)
        if admitted is None:
            return None
        occurrence = Occurrence(
            reminder.id,
            verdict.start,
            OccurrenceState.STARTED,
            turn_id=admitted.turn_id,
            started_at=now,
        )
        self._known()[reminder.id] = _UnderWay(
            occurrence, reminder.session_id, missed=verdict.missed
        )
        self._listen(reminder.session_id)
        self._wake.set()
        around.submit(admitted.turn_id, reminder.session_id)
        extra = {
            **_ids(occurrence),
            "SESSION_ID": reminder.session_id,
            "TURN_ID": admitted.turn_id,
        }
        _log.info("reminder started, %.0f s late", max(0.0, now - verdict.start), extra=extra)
        return admitted.turn_id

    def _skip(self, skips: Sequence[tuple[Reminder, Verdict]]) -> None:
        if not skips:
            return
        self._store.skip(
            [Skip(each.id, skipped_row(each, verdict), verdict.next_at) for each, verdict in skips]
        )
        for reminder, verdict in skips:
            if verdict.count:
                extra = {"REMINDER_ID": reminder.id, "SESSION_ID": reminder.session_id}
                times = how_many(verdict.count, reminder.schedule.kind)
                _log.warning("reminder skipped %s times: %s", times, verdict.reason, extra=extra)


def _ids(occurrence: Occurrence) -> dict[str, str]:
    return {"REMINDER_ID": occurrence.reminder_id}
