"""What the OpenAPI description says of reminders. Pure; imported when it is asked for."""

from __future__ import annotations

from typing import Any

from netclawd.adapters.http.query import MAX_KEY_LENGTH
from netclawd.adapters.http.raw import GENERATION_HEADER
from netclawd.adapters.http.reminders import DEFAULT_REMINDERS, MAX_REMINDERS
from netclawd.core.reminders import Missed, OccurrenceState, ReminderState, ScheduleKind

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_MAYBE_TEXT: Json = {"type": ["string", "null"]}
_NUMBER: Json = {"type": "number"}
_MAYBE_NUMBER: Json = {"type": ["number", "null"]}
_WHOLE: Json = {"type": "integer"}
_FLAG: Json = {"type": "boolean"}


def paths() -> Json:
    one = "/api/reminders/{reminder_id}"
    named = [{"name": "reminder_id", "in": "path", "required": True, "schema": _TEXT}]
    it = {"200": _answer("It, as it is then.", _ref("Reminder"))}
    actions = {
        "pause": _operation("pauseReminder", "Start nothing of it until it is resumed", it),
        "resume": _operation("resumeReminder", "Let a paused one go on", it),
        "run": _operation(
            "runReminder",
            "Start it now, besides its schedule",
            {"202": _answer("Its turn has begun.", _ref("Reminder"))},
        ),
    }
    return {
        "/api/reminders": {"get": _list_reminders(), "post": _add()},
        one: {
            "parameters": named,
            "get": _operation("reminder", "Show a reminder", it),
            "delete": _operation("removeReminder", "Take a reminder away; its session stays", it),
        },
        **{
            f"{one}/{name}": {"parameters": named, "post": operation}
            for name, operation in actions.items()
        },
    }


def _list_reminders() -> Json:
    page = _object({"reminders": _list(_ref("Reminder")), "next": _MAYBE_TEXT})
    limit = {**_WHOLE, "minimum": 1, "maximum": MAX_REMINDERS, "default": DEFAULT_REMINDERS}
    everything = {**_WHOLE, "enum": [0, 1], "default": 0}
    return _operation(
        "reminders",
        "List reminders, the next due first",
        {"200": _answer("A page.", page)},
        parameters=[
            _query("all", everything, "1: those that are done or removed, too."),
            _query("cursor", _TEXT, "`next` of the page before."),
            _query("limit", limit, "Reminders, at most."),
        ],
    )


def _add() -> Json:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {**_TEXT, "minLength": 1, "maxLength": MAX_KEY_LENGTH},
        "description": "The same key and body again set one reminder.",
    }
    body = {"application/json": {"schema": _ref("NewReminder")}}
    return _operation(
        "addReminder",
        "Set a reminder; the answer comes when it is durable",
        {"201": _answer("Set, now or before under this key.", _ref("Reminder"))},
        parameters=[key],
        requestBody={"required": True, "content": body},
    )


def schemas() -> Json:
    seconds = {**_NUMBER, "minimum": 0, "description": "Seconds."}
    missed = {"type": "string", "enum": [*Missed], "default": Missed.ONCE}
    return {
        "NewReminder": {
            "type": "object",
            "properties": {
                "text": {**_TEXT, "description": "What the agent is told when it is due."},
                "in_s": {**seconds, "description": "Once, so many seconds from now."},
                "at": {**_TEXT, "description": "Once: HH:MM, or ISO 8601, local in tz."},
                "every_s": {**seconds, "description": "Again and again, so many seconds apart."},
                "cron": {**_TEXT, "description": "A cron expression of five fields."},
                "tz": {**_TEXT, "description": "IANA name of a time zone; default: the host's."},
                "missed": {**missed, "description": "What becomes of missed occurrences."},
                "max_late_s": {**seconds, "default": 3600, "description": "Later ones are missed."},
                "session_id": {**_TEXT, "description": "Speak there; default: its own session."},
            },
            "required": ["text"],
            "oneOf": [{"required": [name]} for name in ("in_s", "at", "every_s", "cron")],
            "additionalProperties": False,
        },
        "Reminder": _object(
            {
                "id": _TEXT,
                "text": _TEXT,
                "schedule": _object(
                    {
                        "kind": {"type": "string", "enum": [*ScheduleKind]},
                        "zone": _TEXT,
                        "at": _NUMBER,
                        "every_s": _NUMBER,
                        "cron": _TEXT,
                    }
                ),
                "missed": missed,
                "max_late_s": seconds,
                "session_id": _TEXT,
                "own_session": _FLAG,
                "state": {"type": "string", "enum": [*ReminderState]},
                "reason": {**_TEXT, "description": "Why it is paused; empty when it isn't."},
                "failures": {**_WHOLE, "description": "In a row."},
                "created_at": _NUMBER,
                "created_by": _TEXT,
                "next_at": {**_MAYBE_NUMBER, "description": "Null: not due any more, or paused."},
                "occurrences": _list(_ref("Occurrence")),
            }
        ),
        "Occurrence": _object(
            {
                "due_at": _NUMBER,
                "state": {"type": "string", "enum": [*OccurrenceState]},
                "skipped": {**_WHOLE, "description": "Due times before it, skipped with it."},
                "turn_id": _MAYBE_TEXT,
                "started_at": _MAYBE_NUMBER,
                "ended_at": _MAYBE_NUMBER,
                "reason": {**_TEXT, "description": "Why it was skipped or failed."},
            }
        ),
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _answer(description: str, schema: Json) -> Json:
    return {
        "description": description,
        "headers": {GENERATION_HEADER: {"$ref": "#/components/headers/Generation"}},
        "content": {"application/json": {"schema": schema}},
    }


def _operation(name: str, summary: str, answers: Json, **more: Any) -> Json:
    responses = {**answers, "default": {"$ref": "#/components/responses/Problem"}}
    return {"operationId": name, "summary": summary, "responses": responses, **more}
