"""The OpenAPI description of the API. Pure; imported only when somebody asks for it."""

from __future__ import annotations

from netclawd import __version__
from netclawd.adapters.http import openapi_reminders, openapi_v1
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
from netclawd.adapters.http.options import MAX_WAIT_S
from netclawd.adapters.http.problem import MEDIA_TYPE
from netclawd.adapters.http.query import MAX_KEY_LENGTH
from netclawd.adapters.http.raw import GENERATION_HEADER
from netclawd.adapters.http.sessions import (
    DEFAULT_SESSIONS,
    MAX_EVENTS,
    MAX_SEQ,
    MAX_SESSIONS,
)
from netclawd.core.session import EventType, ParkReason, TurnState


def document() -> Json:
    """Return the description as an OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "netclawd",
            "version": __version__,
            "description": "Agent sessions that survive restarts. Accepted input is durable before "
            "it is acknowledged. There is no endpoint that restarts or configures the daemon.",
        },
        "paths": {
            **_daemon_paths(),
            **_session_paths(),
            **_hook_paths(),
            **openapi_reminders.paths(),
            **openapi_v1.paths(),
        },
        "components": {
            "schemas": {
                **_schemas(),
                **_hook_schemas(),
                **openapi_reminders.schemas(),
                **openapi_v1.schemas(),
            },
            "headers": {
                "Generation": {
                    "description": f"{GENERATION_HEADER}: the generation that answered.",
                    "schema": {"type": "integer"},
                }
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong and what to do (RFC 9457).",
                    "content": {MEDIA_TYPE: {"schema": ref("Problem")}},
                },
                **openapi_v1.responses(),
            },
        },
    }


def _list(name: str, items: str, **more: Json) -> Json:
    return object_of({name: list_of(ref(items)), **more})


def _daemon_paths() -> Json:
    anything = {"type": "object"}
    return {
        "/api/health/live": {
            "get": operation(
                "live", "Whether the process serves", {"200": answer("Yes.", anything)}
            )
        },
        "/api/health/ready": {
            "get": operation(
                "ready",
                "Whether new turns run; 503 with Retry-After when they don't",
                {"200": answer("Yes.", ref("Readiness"))},
            )
        },
        "/api/status": {
            "get": operation("status", "The daemon's state", {"200": answer("It.", anything)})
        },
        "/api/restarts": {
            "get": operation(
                "restarts",
                "The restart journal, newest first",
                {"200": answer("The journal.", object_of({"restarts": {"type": "array"}}))},
                parameters=[query("limit", integer(1, 1000, 20), "Entries, at most.")],
            )
        },
        "/metrics": {
            "get": operation(
                "metrics",
                "Metrics for Prometheus, as text or OpenMetrics (by Accept)",
                {"200": answer("They.", {"type": "string"}, "text/plain")},
            )
        },
        "/openapi.json": {
            "get": operation("openapi", "This document", {"200": answer("It.", anything)})
        },
    }


def _session_paths() -> Json:
    one = "/api/sessions/{session_id}"
    return {
        "/api/sessions": {"get": _list_sessions(), "post": _create_session()},
        one: {
            "parameters": [path_parameter("session_id")],
            "get": operation(
                "session", "Show a session", {"200": answer("The session.", ref("Session"))}
            ),
        },
        f"{one}/messages": {
            "parameters": [path_parameter("session_id")],
            "post": _say(),
        },
        f"{one}/events": {
            "parameters": [path_parameter("session_id")],
            "get": _read_events(),
        },
        **_turn_paths(f"{one}/turns/{{turn_id}}"),
    }


def _hook_paths() -> Json:
    def header(name: str, description: str) -> Json:
        schema = {"type": "string"}
        fixed = {"in": "header", "required": True}
        return {"name": name, **fixed, "schema": schema, "description": description}

    headers = [
        header("webhook-id", "Id of the event: the same again is one message, for ever."),
        header("webhook-timestamp", "When the attempt is made, in whole seconds since 1970."),
        header("webhook-signature", "`v1,BASE64`; several with spaces between them."),
    ]
    receive = operation(
        "receiveHook",
        "Take a webhook signed as Standard Webhooks are; the answer comes when it is durable",
        {"202": answer("Admitted, now or before.", ref("Delivered"))},
        parameters=headers,
        requestBody={"required": True, "content": {"application/json": {"schema": {}}}},
    )
    return {"/api/hooks/{name}": {"parameters": [path_parameter("name")], "post": receive}}


def _hook_schemas() -> Json:
    known = {"type": "boolean", "description": "False when it was delivered before."}
    ids = dict.fromkeys(("input_id", "turn_id", "session_id"), TEXT)
    return {"Delivered": object_of({**ids, "deferred": {"type": "boolean"}, "fresh": known})}


def _turn_paths(turn: str) -> Json:
    names = [path_parameter("session_id"), path_parameter("turn_id")]
    done, later = answer("It.", ref("Turn")), answer("It is accepted.", ref("Turn"))
    operations = {
        "park": operation(
            "park",
            "Park a turn that has not ended; 202: it stops at its next checkpoint",
            {"200": done, "202": later},
        ),
        "resume": operation(
            "resume",
            "Let a parked turn go on; 202: it does after the restart that is on",
            {"200": done, "202": later},
        ),
        "cancel": operation("cancel", "Cancel a turn that has not ended", {"200": done}),
    }
    return {
        f"{turn}/{name}": {"parameters": names, "post": operation}
        for name, operation in operations.items()
    }


def _list_sessions() -> Json:
    cursor = query("cursor", {"type": "string"}, "`next` of the page before.")
    limit = query("limit", integer(1, MAX_SESSIONS, DEFAULT_SESSIONS), "Sessions, at most.")
    page = _list("sessions", "Session", next={"type": ["string", "null"]})
    answers = {"200": answer("A page.", page)}
    return operation("sessions", "List sessions, newest first", answers, parameters=[cursor, limit])


def _create_session() -> Json:
    created = answer("Created.", object_of({"id": {"type": "string"}}))
    return operation("createSession", "Create a session", {"201": created})


def _say() -> Json:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
        "description": "The same key and text again are one input; keys are per session.",
    }
    text = {**object_of({"text": {"type": "string"}}), "additionalProperties": False}
    return operation(
        "say",
        "Admit an input; the answer comes when it is durable",
        {
            "202": answer("Admitted.", ref("Admitted")),
            "200": answer("Admitted before, under this key.", ref("Admitted")),
        },
        parameters=[key],
        requestBody={"required": True, "content": {"application/json": {"schema": text}}},
    )


def _read_events() -> Json:
    events = answer("The events.", _list("events", "Event"))
    events["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "schema": {"type": "integer"},
        "description": "For streams; wins over `after`.",
    }
    return operation(
        "events",
        "Read durable events: at once, as a long poll (wait_s) or as a stream (by Accept)",
        {"200": events},
        parameters=[
            query("after", integer(0, MAX_SEQ, 0), "Number of the last event that is known."),
            query("limit", integer(1, MAX_EVENTS, MAX_EVENTS), "Events, at most."),
            query(
                "wait_s",
                {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
                "Wait this long for the first one.",
            ),
            last,
        ],
    )


def _schemas() -> Json:
    text, whole, number, flag = (
        {"type": kind} for kind in ("string", "integer", "number", "boolean")
    )
    optional_text = {"type": ["string", "null"]}
    states = {"type": "string", "enum": [state.value for state in TurnState]}
    reasons = [reason.value for reason in ParkReason]
    return {
        "Readiness": object_of({"phase": text, "generation": whole, "digest": text}),
        "Session": object_of(
            {
                "id": text,
                "created_at": number,
                "channel": text,
                "alias": optional_text,
                "last_seq": whole,
                "turn_state": {"anyOf": [states, {"type": "null"}]},
                "park_reason": {"enum": [*reasons, None]},
                "usage": ref("Usage"),
            }
        ),
        "Admitted": object_of({"input_id": text, "turn_id": text, "deferred": flag}),
        "Turn": object_of(
            {
                "id": text,
                "session_id": text,
                "input_id": text,
                "state": states,
                "resumes": whole,
                "park_reason": {"enum": [*reasons, None]},
                "deferred": flag,
                "usage": ref("Usage"),
            }
        ),
        "Usage": {
            **object_of({"input_tokens": whole, "output_tokens": whole}),
            "description": "Tokens of all model calls, as the model server counts them.",
        },
        "Event": {
            **object_of(
                {
                    "seq": whole,
                    "type": {"type": "string", "enum": [kind.value for kind in EventType]},
                    "at": number,
                    "turn_id": optional_text,
                }
            ),
            "additionalProperties": True,
        },
        "Problem": _problem_schema(),
    }


def _problem_schema() -> Json:
    """Return what RFC 9457 names, and the remedy."""
    texts = dict.fromkeys(("title", "detail", "remedy", "instance"), TEXT)
    kind = {"type": "string", "pattern": "^urn:netclaw:problem:"}
    schema = object_of({"type": kind, "status": WHOLE, **texts}, required=False)
    return {**schema, "required": ["type", "title", "status", "detail"]}
