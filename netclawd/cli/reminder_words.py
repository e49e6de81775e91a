"""A reminder in words: when it is due, in its own time zone, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from netclawd.cli.output import ago, count, due, duration, visible
from netclawd.core.budgets import REMINDER_FAILURES, REMINDER_ON_TIME_S
from netclawd.core.durations import in_units
from netclawd.core.remarks import shortened
from netclawd.core.schedule import MOST_COUNTED

Reminder = Mapping[str, Any]

HEAD = ("REMINDER", "NEXT", "SCHEDULE", "STATE", "TEXT")
OCCURRENCE_HEAD = ("DUE", "STATE", "STARTED", "TOOK", "TURN", "WHY")
#: Characters of a text in the list, and where it is repeated.
_SHORT, _REPEATED = 50, 80

#: What becomes of missed ones; ``{}`` is the lateness that is allowed.
_MISSED = {
    "skip": "what could not be started in time is skipped",
    "once": "the newest that could not be started in time runs late, at most {}",
    "all": "each that could not be started in time runs late, at most {}",
}


def none(*, everything: bool) -> str:
    """Say that there is none."""
    if everything:
        return "No reminder was set yet; `netclaw reminders add` sets one."
    return (
        "No reminder is set. `netclaw reminders add --in 10m TEXT` sets one, "
        "`netclaw reminders list --all` shows those that are done."
    )


def row(reminder: Reminder) -> tuple[str, ...]:
    """Return a line of the list."""
    failures = reminder["failures"]
    failed = f", {count(failures, 'failure')}" if failures else ""
    return (
        reminder["id"],
        when_next(reminder) or "-",
        visible(schedule(reminder)),
        _standing(reminder) + failed,
        shortened(visible(reminder["text"]), _SHORT),
    )


def troubles(found: Iterable[Reminder]) -> Iterator[str]:
    """Say of each reminder that was paused for its failures what to do."""
    for each in found:
        if each["state"] == "paused" and each["failures"]:
            yield (
                f"{each['id']} is paused: {visible(each['reason'])} "
                f"Once that is mended: `netclaw reminders resume {each['id']}`."
            )


def schedule(reminder: Reminder) -> str:
    """Word when it is due, without its zone."""
    planned = reminder["schedule"]
    match planned["kind"]:
        case "interval":
            return f"every {in_units(planned['every_s'])}"
        case "cron":
            return f"cron {planned['cron']}"
        case _:
            return "once"


def local_time(at: float, zone: str) -> str:
    """Word an instant in a time zone, with its name: ``2026-11-29 08:00 Europe/Berlin``."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    try:
        local, name = datetime.fromtimestamp(at, ZoneInfo(zone)), zone
    except (KeyError, ValueError, OSError):  # The daemon's host knows a zone that this one doesn't.
        local, name = datetime.fromtimestamp(at, UTC), "UTC"
    form = "%Y-%m-%d %H:%M:%S" if local.second else "%Y-%m-%d %H:%M"
    return f"{local:{form}} {visible(name)}"


def when_next(reminder: Reminder) -> str:
    """Word when it is due next, empty when it isn't."""
    at = reminder["next_at"]
    if at is None:
        return ""
    if _under_way(reminder) is not None and at <= _now():
        return "once its turn has ended"
    return f"{local_time(at, reminder['schedule']['zone'])}, {due(at)}"


def _now() -> float:
    from netclawd.adapters.clock import SystemClock

    return SystemClock().wall()


def _under_way(reminder: Reminder) -> Mapping[str, Any] | None:
    """Return the occurrence whose turn has not ended."""
    return next((one for one in reminder["occurrences"] if one["state"] == "started"), None)


def _standing(reminder: Reminder) -> str:
    """Word its state, and that of the occurrence that is under way."""
    state, one = reminder["state"], _under_way(reminder)
    if one is None:
        return str(state)
    return _progress(one) if state == "done" else f"{state}, {_progress(one)}"


def _progress(one: Mapping[str, Any]) -> str:
    match one.get("waits_for"):
        case "" | None:
            return "under way"
        case "approval":
            return "waits for an approval"
        case "turn-before":
            return "waits for the turn before"
        case _:
            return "parked"


def describe_new(reminder: Reminder) -> Iterator[str]:
    """Say what was set."""
    yield f"Set: {reminder['id']}, {_due(reminder)}."
    yield f"It speaks in {_session(reminder)}; `netclaw reminders show {reminder['id']}` has the rest."


def _due(reminder: Reminder) -> str:
    next_ = when_next(reminder)
    words = f"due {next_}" if next_ else "not due any more"
    return words if reminder["schedule"]["kind"] == "once" else f"{_schedule(reminder)}; {words}"


def _schedule(reminder: Reminder) -> str:
    return visible(schedule(reminder))


def _session(reminder: Reminder) -> str:
    own = " of its own" if reminder["own_session"] else ""
    return f"the session {reminder['session_id']}{own}"


def describe(reminder: Reminder) -> Iterator[str]:
    """Say all of a reminder but its occurrences, a line each."""
    next_, one = when_next(reminder), _under_way(reminder)
    yield f"Reminder {reminder['id']} is {reminder['state']}" + (
        f", due next {next_}" if next_ else ""
    )
    if one is not None:
        since = ago(one["started_at"])
        yield f"  {'now':<9} it began {since} and {_what_it_does(one, reminder)}"
    for label, text in _rows(reminder):
        for number, line in enumerate(visible(text).split("\n")):
            yield f"  {label if number == 0 else '':<9} {line}".rstrip()


def _what_it_does(one: Mapping[str, Any], reminder: Reminder) -> str:
    show = f"`netclaw sessions show {reminder['session_id']}`"
    match one.get("waits_for"):
        case "" | None:
            return "is under way"
        case "approval":
            return "waits for an approval: `netclaw approvals list`"
        case "turn-before":
            return f"waits for the turn before it in its session: {show}"
        case _:
            return f"is parked: {show} says why"


def _rows(reminder: Reminder) -> Iterator[tuple[str, str]]:
    yield "text", reminder["text"]
    yield "schedule", f"{schedule(reminder)}, in {reminder['schedule']['zone']}"
    late = duration(max(REMINDER_ON_TIME_S, reminder["max_late_s"]))
    yield "missed", str(_MISSED.get(reminder["missed"], reminder["missed"])).format(late)
    show = f"`netclaw sessions show {reminder['session_id']}`"
    yield "session", f"{reminder['session_id']}{', its own' * reminder['own_session']}: {show}"
    yield "made", f"{ago(reminder['created_at'])} by {reminder['created_by']}"
    if reminder["failures"]:
        yield "failures", f"{reminder['failures']} in a row; {REMINDER_FAILURES} pause it"
    if reminder["reason"]:
        yield reminder["state"], reminder["reason"]
    if reminder["state"] == "paused":
        yield "go on", f"`netclaw reminders resume {reminder['id']}`"
    if not reminder["occurrences"]:
        yield "so far", "it has not been due yet"


def occurrence_row(reminder: Reminder, one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line of the occurrences."""
    return (
        local_time(one["due_at"], reminder["schedule"]["zone"]),
        _progress(one) if one["state"] == "started" else one["state"],
        _punctuality(one),
        _took(one),
        one["turn_id"] or "-",
        visible(_why(one, reminder["schedule"]["kind"])) or "-",
    )


def _punctuality(one: Mapping[str, Any]) -> str:
    started = one["started_at"]
    if started is None:
        return "-"
    late = started - one["due_at"]
    return f"{duration(late)} late" if late > REMINDER_ON_TIME_S else "on time"


def _took(one: Mapping[str, Any]) -> str:
    started, ended = one["started_at"], one["ended_at"]
    return "-" if started is None or ended is None else duration(ended - started)


def _why(one: Mapping[str, Any], kind: str) -> str:
    reason = " ".join(one["reason"].split())
    match one["skipped"]:
        case 0:
            before = ""
        case 1:
            before = "The one before it was skipped too."
        case more:
            # What is counted is these and the row itself.
            least = "At least " if kind == "cron" and more + 1 >= MOST_COUNTED else ""
            before = f"{least}{more} before it were skipped too."
    return " ".join(filter(None, (reason, before)))


def describe_change(do: str, reminder: Reminder) -> Iterator[str]:
    """Say what a change has come to."""
    name, text = reminder["id"], shortened(visible(reminder["text"]), _REPEATED)
    match do:
        case "pause_reminder":
            yield f"Paused: {name} ({text}). `netclaw reminders resume {name}` lets it go on."
        case "resume_reminder":
            yield f"Goes on: {name} ({text}), {_due(reminder)}."
        case "remove_reminder":
            yield f"Removed: {name} ({text}). The session {reminder['session_id']} stays."
        case "run_reminder":
            yield (
                f"Started: {name} ({text}). It speaks in the session {reminder['session_id']}: "
                f"`netclaw sessions show {reminder['session_id']}`."
            )
