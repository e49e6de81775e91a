"""What the OpenAPI description says of reminders. Pure; imported when it is asked for."""

from __future__ import annotations

from netclawd.adapters.http.openapi_parts import (
    TEXT,
    WHOLE,
    Json,
    answer,
    integer,
    list_of,
    object_of,
    operation,
    path_parameter,
    query,
    ref,
)
from netclawd.adapters.http.query import MAX_KEY_LENGTH
from netclawd.adapters.http.reminders import DEFAULT_REMINDERS, MAX_REMINDERS
from netclawd.core.reminders import (
    TURN_BEFORE,
    Missed,
    OccurrenceState,
    ReminderState,
    ScheduleKind,
)
from netclawd.core.session import ParkReason

_MAYBE_TEXT: Json = {"type": ["string", "null"]}
_NUMBER: Json = {"type": "number"}
_MAYBE_NUMBER: Json = {"type": ["number", "null"]}
_FLAG: Json = {"type": "boolean"}


def paths() -> Json:
    one = "/api/reminders/{reminder_id}"
    named = [path_parameter("reminder_id")]
    it = {"200": answer("It, as it is then.", ref("Reminder"))}
    actions = {
        "pause": operation("pauseReminder", "Start nothing of it until it is resumed", it),
        "resume": operation("resumeReminder", "Let a paused one go on", it),
        "run": operation(
            "runReminder",
            "Start it now, besides its schedule",
            {"202": answer("Its turn has begun.", ref("Reminder"))},
        ),
    }
    return {
        "/api/reminders": {"get": _list_reminders(), "post": _add()},
        one: {
            "parameters": named,
            "get": operation("reminder", "Show a reminder", it),
            "delete": operation("removeReminder", "Take a reminder away; its session stays", it),
        },
        **{
            f"{one}/{name}": {"parameters": named, "post": operation}
            for name, operation in actions.items()
        },
    }


def _list_reminders() -> Json:
    page = object_of({"reminders": list_of(ref("Reminder")), "next": _MAYBE_TEXT})
    limit = integer(1, MAX_REMINDERS, DEFAULT_REMINDERS)
    everything = {**WHOLE, "enum": [0, 1], "default": 0}
    return operation(
        "reminders",
        "List reminders, the next due first",
        {"200": answer("A page.", page)},
        parameters=[
            query("all", everything, "1: those that are done or removed, too."),
            query("cursor", TEXT, "`next` of the page before."),
            query("limit", limit, "Reminders, at most."),
        ],
    )


def _add() -> Json:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {**TEXT, "minLength": 1, "maxLength": MAX_KEY_LENGTH},
        "description": "The same key and body again set one reminder.",
    }
    body = {"application/json": {"schema": ref("NewReminder")}}
    return operation(
        "addReminder",
        "Set a reminder; the answer comes when it is durable",
        {
            "201": answer("Set.", ref("Reminder")),
            "200": answer("Set before, under this key.", ref("Reminder")),
        },
        parameters=[key],
        requestBody={"required": True, "content": body},
    )


def schemas() -> Json:
    seconds = {**_NUMBER, "minimum": 0, "description": "Seconds."}
    missed = {"type": "string", "enum": [*Missed], "default": Missed.ONCE}
    return {
        "NewReminder": _new_reminder(seconds, missed),
        "Reminder": object_of(
            {
                "id": TEXT,
                "text": TEXT,
                "schedule": object_of(
                    {
                        "kind": {"type": "string", "enum": [*ScheduleKind]},
                        "zone": TEXT,
                        "at": _NUMBER,
                        "every_s": _NUMBER,
                        "cron": TEXT,
                    }
                ),
                "missed": missed,
                "max_late_s": seconds,
                "session_id": TEXT,
                "own_session": _FLAG,
                "state": {"type": "string", "enum": [*ReminderState]},
                "reason": {**TEXT, "description": "Why it is paused; empty when it isn't."},
                "failures": {**WHOLE, "description": "In a row."},
                "created_at": _NUMBER,
                "created_by": TEXT,
                "next_at": {**_MAYBE_NUMBER, "description": "Null: not due any more, or paused."},
                "occurrences": list_of(ref("Occurrence")),
            }
        ),
        "Occurrence": object_of(
            {
                "due_at": _NUMBER,
                "state": {"type": "string", "enum": [*OccurrenceState]},
                "skipped": {**WHOLE, "description": "Due times before it, skipped with it."},
                "turn_id": _MAYBE_TEXT,
                "started_at": _MAYBE_NUMBER,
                "ended_at": _MAYBE_NUMBER,
                "reason": {**TEXT, "description": "Why it was skipped or failed."},
                "waits_for": {
                    "type": "string",
                    "enum": ["", *ParkReason, TURN_BEFORE],
                    "description": "What keeps a started one from going on; empty: nothing does.",
                },
            }
        ),
    }


def _new_reminder(seconds: Json, missed: Json) -> Json:
    return {
        "type": "object",
        "properties": {
            "text": {**TEXT, "description": "What the agent is told when it is due."},
            "in_s": {**seconds, "description": "Once, so many seconds from now."},
            "at": {**TEXT, "description": "Once: HH:MM, or ISO 8601, local in tz."},
            "every_s": {**seconds, "description": "Again and again, so many seconds apart."},
            "cron": {**TEXT, "description": "A cron expression of five fields."},
            "tz": {**TEXT, "description": "IANA name of a time zone; default: the host's."},
            "missed": {**missed, "description": "What becomes of missed occurrences."},
            "max_late_s": {
                **seconds,
                "default": 3600,
                "description": "Later ones are skipped.",
            },
            "session_id": {**TEXT, "description": "Speak there; default: its own session."},
        },
        "required": ["text"],
        "oneOf": [{"required": [name]} for name in ("in_s", "at", "every_s", "cron")],
        "additionalProperties": False,
    }
