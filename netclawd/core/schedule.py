"""When a reminder is due: read from what was asked for, and judged against the clock.

Pure. Due times are a fixed grid: whoever computes them again, from wherever, gets the very same numbers,
so that (reminder, due time) names an occurrence. Three rules:

- An occurrence is judged by how late it was when somebody came to look (``since``: when the scheduler
  began, or the clock jumped), not by how long it waited for its turn behind others.
- Of several that are due one runs: the newest. Only the policy ``all`` runs those that were missed one
  after the other.
- Local times go through :mod:`netclawd.core.local_time`: due once, whatever the clock there does.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, tzinfo
from typing import Protocol

from netclawd.core.budgets import REMINDER_ON_TIME_S
from netclawd.core.local_time import instant_of, local_time, zone_of
from netclawd.core.reminders import (
    LONGEST_TEXT,
    Missed,
    NewReminder,
    Occurrence,
    OccurrenceState,
    Reminder,
    Schedule,
    ScheduleKind,
)
from netclawd.core.values import frozen
from netclawd.core.words import shown
from netclawd.errors import BadRequestError

#: Seconds between two occurrences of an interval, at least.
LEAST_INTERVAL_S = 1.0
#: Seconds ahead, at most; also of an interval and of a lateness.
FURTHEST_S = 100 * 366 * 86_400.0
#: Skipped due times of a cron expression are counted up to this number: each takes a part of a millisecond.
MOST_COUNTED = 50
#: Missed times of an interval that run by the policy ``all``: the newest.
MOST_CAUGHT_UP = 1_000

_HOUR_MINUTE = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_EXAMPLE = "Give a time such as 2026-12-24T18:00, 2026-12-24T18:00+01:00 or 18:00."


class Cron(Protocol):
    """Arithmetic of cron(8) expressions, in local times without a zone."""

    def refusal(self, expression: str) -> str:
        """Say what is wrong with an expression in one sentence; empty when it can be used."""

    def after(self, expression: str, local: datetime) -> datetime | None:
        """Return the first matching minute after a local time, None when there is none.

        BadRequestError for an expression that can't be used.
        """


# -- what was asked for --------------------------------------------------------------------------


def read_schedule(new: NewReminder, now: float, host_zone: str, cron: Cron) -> Schedule:
    """Return when the reminder is due, from ``now`` on; BadRequestError says what is wrong with it."""
    _refuse_text(new.text)
    _number("The lateness", new.max_late_s, least=0.0)
    asked = [value is not None for value in (new.in_s, new.at, new.every_s, new.cron)]
    if sum(asked) != 1:
        raise BadRequestError(
            "A reminder needs one time: in some seconds, at a time, every so often, or by a cron expression.",
            "Give exactly one of the four.",
        )
    zone_name = new.zone or host_zone
    zone = zone_of(zone_name)
    if new.in_s is not None:
        _number("The time from now", new.in_s, above=0.0)
        return Schedule(ScheduleKind.ONCE, zone_name, at=round(now + new.in_s, 3))
    if new.at is not None:
        return Schedule(ScheduleKind.ONCE, zone_name, at=_read_at(new.at, now, zone_name, zone))
    if new.every_s is not None:
        _number("An interval", new.every_s, least=LEAST_INTERVAL_S)
        every_s = round(new.every_s, 3)
        return Schedule(ScheduleKind.INTERVAL, zone_name, at=round(now, 3), every_s=every_s)
    schedule = Schedule(ScheduleKind.CRON, zone_name, cron=" ".join((new.cron or "").split()))
    if words := cron.refusal(schedule.cron):
        raise BadRequestError(
            words, "Give five fields: minute, hour, day, month, weekday; 30 7 * * 1-5."
        )
    if next_due(schedule, now, cron) is None:
        raise BadRequestError(
            f"The cron expression {shown(schedule.cron)} never comes true.",
            "Give a day that its months have.",
        )
    return schedule


def _refuse_text(text: str) -> None:
    if not text.strip():
        raise BadRequestError("A reminder needs a text.", "Say what to be reminded of.")
    if len(text) > LONGEST_TEXT:
        raise BadRequestError(
            f"The text has {len(text):,} characters, of {LONGEST_TEXT:,} that there may be.",
            "Make it shorter.",
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequestError("The text isn't Unicode.", "Send it as UTF-8.") from None


def _number(
    what: str, value: float, *, least: float | None = None, above: float | None = None
) -> None:
    if math.isfinite(value):
        if least is not None and value < least:
            raise BadRequestError(f"{what} must be at least {least:g} s.", "Give a longer one.")
        if above is not None and value <= above:
            raise BadRequestError(f"{what} must be more than {above:g} s.", "Give a longer one.")
        if value <= FURTHEST_S:
            return
    raise BadRequestError(f"{what} must be at most 100 years.", "Give a shorter one.")


def _read_at(text: str, now: float, zone_name: str, zone: tzinfo) -> float:
    clean = text.strip()
    if match := _HOUR_MINUTE.fullmatch(clean):
        hour, minute, second = (int(part or 0) for part in match.groups())
        return _next_time_of_day(timedelta(hours=hour, minutes=minute, seconds=second), now, zone)
    try:
        given = datetime.fromisoformat(clean) if len(clean) > len("2026-12-24") else None
    except ValueError:
        given = None
    if given is None:
        raise BadRequestError(f"{shown(text)} is no time.", _EXAMPLE)
    try:
        at = given.timestamp() if given.tzinfo is not None else instant_of(given, zone)
    except OverflowError:
        at = -math.inf if given.year < 5_000 else math.inf
    if at <= now:
        raise BadRequestError(
            f"{shown(text)} ({zone_name}) is past.",
            "Give a time to come, or the time zone that it is meant in.",
        )
    if at - now > FURTHEST_S:
        raise BadRequestError(f"{shown(text)} is more than 100 years ahead.", "Give a nearer time.")
    return round(at, 3)


def _next_time_of_day(time: timedelta, now: float, zone: tzinfo) -> float:
    today = local_time(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    days = (instant_of(today + timedelta(days=n) + time, zone) for n in range(4))
    return next(at for at in days if at > now)


# -- due times -----------------------------------------------------------------------------------


def first_due(schedule: Schedule, now: float, cron: Cron) -> float | None:
    """Return when a new reminder is due first; an interval has to pass before."""
    if schedule.kind is ScheduleKind.ONCE:
        return schedule.at
    # The grid begins at a rounded ``now``, which may be a moment ahead.
    return next_due(schedule, max(now, schedule.at), cron)


def next_due(schedule: Schedule, after: float, cron: Cron) -> float | None:
    """Return the first due time after an instant, None when there is none."""
    match schedule.kind:
        case ScheduleKind.ONCE:
            return schedule.at if schedule.at > after else None
        case ScheduleKind.INTERVAL:
            # The grid goes back for ever: the clock may have been wrong when the reminder was made.
            n = math.floor((after - schedule.at) / schedule.every_s) + 1
            # The division rounds: the grid decides.
            while _on_grid(schedule, n - 1) > after:
                n -= 1
            while _on_grid(schedule, n) <= after:
                n += 1
            return _on_grid(schedule, n)
    zone = zone_of(schedule.zone)
    local: datetime | None = local_time(after, zone)
    while local is not None:
        # In a gap several local times are one instant, and in a repeated hour they were due before.
        local = cron.after(schedule.cron, local)
        if local is not None and (found := instant_of(local, zone)) > after:
            return found
    return None


def _on_grid(schedule: Schedule, n: int) -> float:
    return round(schedule.at + n * schedule.every_s, 3)


def last_due(schedule: Schedule, first: float, now: float, cron: Cron) -> float:
    """Return the last due time up to ``now``; ``first`` is one, and not after it."""
    if schedule.kind is ScheduleKind.ONCE:
        return first
    if schedule.kind is ScheduleKind.INTERVAL:
        following = next_due(schedule, now, cron)
        assert following is not None
        n = round((following - schedule.at) / schedule.every_s)
        return max(first, _on_grid(schedule, n - 1))
    following = next_due(schedule, first, cron)
    if following is None or following > now:
        return first
    low, high, back = first, now, 60.0
    # Back from now by doubled steps until one comes not after now.
    while now - back > low:
        found = next_due(schedule, now - back, cron)
        if found is not None and found <= now:
            low = found
            break
        high, back = now - back, back * 2
    # Others may come behind it: looked for one by one and by halves at a time.
    while (found := next_due(schedule, low, cron)) is not None and found <= now:
        low = found
        middle = low + (high - low) / 2
        if (
            middle > low
            and (found := next_due(schedule, middle, cron)) is not None
            and found <= now
        ):
            low = found
        else:
            high = middle
    return low


def count_due(schedule: Schedule, first: float, before: float, cron: Cron) -> int:
    """Count due times from ``first``, which is one, up to but without ``before``; see MOST_COUNTED."""
    if schedule.kind is ScheduleKind.INTERVAL:
        return max(0, round((before - first) / schedule.every_s))
    count, due = 0, first
    while due < before and count < MOST_COUNTED:
        count += 1
        found = next_due(schedule, due, cron)
        if found is None:
            break
        due = found
    return count


# -- what is to be done --------------------------------------------------------------------------


@frozen
class Verdict:
    """What becomes of a reminder that is due."""

    #: The due time that starts now, None: nothing does.
    start: float | None
    #: Whether that one was missed.
    missed: bool
    #: The newest of those that are skipped, None without any, and how many they are.
    skipped: float | None
    count: int
    #: Why they are skipped, for people.
    reason: str
    next_at: float | None


def judge_due(reminder: Reminder, now: float, since: float, cron: Cron) -> Verdict:
    """Judge a reminder whose ``next_at`` is not after ``now``; ``since``: see above.

    Raises BadRequestError when its zone or its expression isn't known any more.
    """
    schedule, first = reminder.schedule, reminder.next_at
    assert first is not None
    limit_s = REMINDER_ON_TIME_S
    if reminder.missed is not Missed.SKIP:
        limit_s = max(limit_s, reminder.max_late_s)
    newest = last_due(schedule, first, now, cron)
    chosen: float | None = newest
    if reminder.missed is Missed.ALL and first < since:
        chosen = _oldest(schedule, (first, newest), since, limit_s, cron)
    if chosen is not None and since - chosen > limit_s:
        chosen = None
    skipped, count = None, 0
    if chosen is None:
        skipped, count = newest, count_due(schedule, first, newest, cron) + 1
    elif chosen > first:
        skipped = last_due(schedule, first, chosen - 0.001, cron)
        count = count_due(schedule, first, chosen, cron)
    return Verdict(
        start=chosen,
        missed=chosen is not None and since - chosen > REMINDER_ON_TIME_S,
        skipped=skipped,
        count=count,
        reason=_why_skipped(reminder, skipped, since, limit_s),
        next_at=next_due(schedule, newest if chosen is None else chosen, cron),
    )


def _oldest(
    schedule: Schedule, due: tuple[float, float], since: float, limit_s: float, cron: Cron
) -> float:
    """Return the oldest missed due time that isn't too late; the newest one where none was missed so."""
    first, newest = due
    if schedule.kind is ScheduleKind.INTERVAL:
        limit_s = min(limit_s, MOST_CAUGHT_UP * schedule.every_s)
    if since - first > limit_s:
        found = next_due(schedule, since - limit_s - 0.001, cron)
        first = newest if found is None else min(found, newest)
    return first if first < since else newest


def _why_skipped(reminder: Reminder, skipped: float | None, since: float, limit_s: float) -> str:
    if skipped is None:
        return ""
    if since - skipped <= REMINDER_ON_TIME_S:
        return "A later one was due as well."
    if reminder.missed is Missed.SKIP:
        return "It was missed, and missed ones are skipped."
    if since - skipped > limit_s:
        return f"It was missed, and later than {in_words(limit_s)}."
    return "It was missed, as was a later one, which ran."


def judge_overrun(reminder: Reminder, since: float, now: float, cron: Cron) -> Verdict | None:
    """Judge what came due while the occurrence before was under way, which has ended now.

    None when nothing is to be skipped: nothing came, or it was missed before, which the policy judges.
    """
    first = reminder.next_at
    if first is None or not since <= first <= now or reminder.schedule.kind is ScheduleKind.ONCE:
        return None
    newest = last_due(reminder.schedule, first, now, cron)
    count = count_due(reminder.schedule, first, newest, cron) + 1
    reason = "The one before was still under way."
    next_at = next_due(reminder.schedule, newest, cron)
    return Verdict(None, missed=False, skipped=newest, count=count, reason=reason, next_at=next_at)


def skipped_row(reminder: Reminder, verdict: Verdict) -> tuple[Occurrence, ...]:
    """Return the row of what is skipped, if anything is: its newest due time, and how many came before."""
    if verdict.skipped is None:
        return ()
    state, before = OccurrenceState.SKIPPED, verdict.count - 1
    return (Occurrence(reminder.id, verdict.skipped, state, before, reason=verdict.reason),)


# -- words ---------------------------------------------------------------------------------------


def in_words(seconds: float) -> str:
    """Say how long that is, rounded down: "40 seconds", "1 hour 30 minutes", "3 days"."""
    left, parts = int(seconds), []
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        number, left = divmod(left, length)
        parts.append(f"{number} {unit}{'' if number == 1 else 's'}" if number else "")
    first = next((n for n, part in enumerate(parts) if part), len(parts))
    return " ".join(filter(None, parts[first : first + 2])) or "0 seconds"


def how_many(count: int, kind: ScheduleKind) -> str:
    """Say how many due times were counted."""
    is_least = kind is ScheduleKind.CRON and count >= MOST_COUNTED
    return f"at least {count}" if is_least else str(count)


def input_text(reminder: Reminder, verdict: Verdict, now: float) -> str:
    """Return what the agent is told when an occurrence starts."""
    assert verdict.start is not None
    text, notes = f"Reminder: {reminder.text}", []
    late_s = now - verdict.start
    if late_s > REMINDER_ON_TIME_S:
        due = shown_time(verdict.start, reminder.schedule.zone)
        why = "it was missed" if verdict.missed else "others were due as well"
        notes.append(f"It was due at {due} and comes {in_words(late_s)} late: {why}.")
    if verdict.count and late_s > REMINDER_ON_TIME_S:
        number = how_many(verdict.count, reminder.schedule.kind)
        number = f"The {number}" if number.isdigit() else number.capitalize()
        earlier = "The one before it was" if verdict.count == 1 else f"{number} before it were"
        notes.append(f"{earlier} skipped.")
    return f"{text}\n\n({' '.join(notes)})" if notes else text


def shown_time(at: float, zone_name: str) -> str:
    """Write an instant as a clock in the zone shows it, with the zone's name."""
    local = local_time(at, zone_of(zone_name))
    return f"{local:%Y-%m-%d %H:%M} {zone_name}"
