"""The routes of sessions: create, list, show, say something, read and stream events.

And of turns: park, resume, cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon

from netclawd.adapters.http import sse
from netclawd.adapters.http.channel import ENV_WOKEN
from netclawd.adapters.http.leaving import Parked, StreamTaken
from netclawd.adapters.http.options import MAX_WAIT_S
from netclawd.adapters.http.problem import TooManyStreamsError
from netclawd.adapters.http.query import (
    idempotency_key,
    json_object,
    seconds,
    to_whole_number,
    whole_number,
)
from netclawd.core.session import Session, SessionId, Turn, TurnId, TurnState
from netclawd.core.values import as_map
from netclawd.errors import BadRequestError
from netclawd.ports import Service

#: Highest event number that a client may name: SQLite's largest integer.
MAX_SEQ = (1 << 63) - 1
#: Events in one answer, at most and without ``limit``.
MAX_EVENTS = 1000
#: Sessions in one page: at most, and without ``limit``.
MAX_SESSIONS = 500
DEFAULT_SESSIONS = 50
#: Who decides about a turn over HTTP: nobody is authenticated here.
BY = "api"


def add_session_routes(app: Any, service: Service, admit_stream: Callable[[], bool]) -> None:
    """Add them to the application."""
    one = "/api/sessions/{session_id}"
    app.add_route("/api/sessions", Sessions(service))
    app.add_route(one, OneSession(service))
    app.add_route(one + "/messages", Messages(service))
    app.add_route(one + "/events", Events(service, admit_stream))
    app.add_route(one + "/turns/{turn_id}/park", Park(service))
    app.add_route(one + "/turns/{turn_id}/resume", Resume(service))
    app.add_route(one + "/turns/{turn_id}/cancel", Cancel(service))


def session_object(session: Session) -> dict[str, Any]:
    """Return a session as the API shows it."""
    return {
        "id": session.id,
        "created_at": session.created_at,
        "channel": session.channel,
        "alias": session.alias,
        "last_seq": session.last_seq,
        "turn_state": None if session.turn_state is None else session.turn_state.value,
        "park_reason": None if session.park_reason is None else session.park_reason.value,
        "usage": as_map(session.usage),
    }


def turn_object(turn: Turn) -> dict[str, Any]:
    """Return a turn as the API shows it."""
    return {
        "id": turn.id,
        "session_id": turn.session_id,
        "input_id": turn.input_id,
        "state": turn.state.value,
        "resumes": turn.resumes,
        "park_reason": None if turn.park_reason is None else turn.park_reason.value,
        "deferred": turn.deferred,
        "usage": as_map(turn.usage),
    }


class Sessions:
    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: Any, resp: Any) -> None:
        limit = whole_number(req, "limit", default=DEFAULT_SESSIONS, lowest=1, highest=MAX_SESSIONS)
        cursor = req.params.get("cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise BadRequestError("cursor is given twice.", "Give it once.")
        page = self._service.sessions(cursor, limit)
        sessions = [session_object(session) for session in page.sessions]
        resp.data = sse.encode({"sessions": sessions, "next": page.next})

    def on_post(self, req: Any, resp: Any) -> None:
        json_object(req, known=frozenset(), required=False)
        session = self._service.create_session()
        resp.status = falcon.HTTP_201
        resp.set_header("Location", f"/api/sessions/{session.id}")
        resp.data = sse.encode({"id": session.id})


class OneSession:
    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, _req: Any, resp: Any, session_id: str) -> None:
        resp.data = sse.encode(session_object(self._service.session(SessionId(session_id))))


class Messages:
    """Accepts an input; the answer goes out when it is durable."""

    _KEYS = frozenset({"text"})

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: Any, resp: Any, session_id: str) -> None:
        key = idempotency_key(req)
        text = json_object(req, known=self._KEYS, required=True).get("text")
        if not isinstance(text, str) or not text.strip():
            raise BadRequestError(
                "text is not a string that says something.", 'Send {"text": "…"}.'
            )
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise BadRequestError(
                "text has half of a surrogate pair.", "Send text that UTF-8 can hold."
            )
        admitted = self._service.admit(SessionId(session_id), text, key)
        resp.status = falcon.HTTP_202 if admitted.fresh else falcon.HTTP_200
        resp.data = sse.encode(
            {
                "input_id": admitted.input_id,
                "turn_id": admitted.turn_id,
                "deferred": admitted.deferred,
            }
        )


class Events:
    """Reads events: at once, as a long poll, or as a stream."""

    def __init__(self, service: Service, admit_stream: Callable[[], bool]) -> None:
        self._service = service
        self._admit_stream = admit_stream

    def on_get(self, req: Any, resp: Any, session_id: str) -> None:
        after = whole_number(req, "after", default=0, lowest=0, highest=MAX_SEQ)
        if _wants_stream(req.get_header("Accept")):
            self._stream(req, SessionId(session_id), after)
        self._read(req, resp, SessionId(session_id), after)

    def _stream(self, req: Any, session_id: SessionId, after: int) -> None:
        last = req.get_header("Last-Event-ID")
        if last is not None:
            after = to_whole_number(last, "Last-Event-ID", 0, MAX_SEQ)
        self._service.session(session_id)
        self._admit()
        raise StreamTaken(session_id, after)

    def _read(self, req: Any, resp: Any, session_id: SessionId, after: int) -> None:
        limit = whole_number(req, "limit", default=MAX_EVENTS, lowest=1, highest=MAX_EVENTS)
        wait_s = seconds(req, "wait_s", MAX_WAIT_S)
        events = self._service.events(session_id, after, limit)
        if not events and wait_s and ENV_WOKEN not in req.env:
            self._admit()
            raise Parked(session_id, after, wait_s)
        resp.data = sse.encode({"events": [sse.event_object(event) for event in events]})

    def _admit(self) -> None:
        if not self._admit_stream():
            raise TooManyStreamsError(
                "Too many event streams and long polls are open.",
                "Close some, or raise daemon.max_streams; try again after Retry-After seconds.",
            )


def _wants_stream(accept: str | None) -> bool:
    """Whether event streams are asked for by name (``*/*`` means JSON)."""
    if accept is None or "text/event-stream" not in accept:
        return False
    for part in accept.split(","):
        media, *parameters = part.split(";")
        if media.strip().lower() == "text/event-stream":
            refused = {"q=0", "q=0.0", "q=0.00", "q=0.000"}
            return not any(p.strip().lower() in refused for p in parameters)
    return False


class Cancel:
    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: Any, resp: Any, session_id: str, turn_id: str) -> None:
        json_object(req, known=frozenset(), required=False)
        turn = self._service.cancel_turn(SessionId(session_id), TurnId(turn_id), BY)
        resp.data = sse.encode(turn_object(turn))


class Park:
    """200: it is parked; 202: it will be, at its next checkpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: Any, resp: Any, session_id: str, turn_id: str) -> None:
        json_object(req, known=frozenset(), required=False)
        turn = self._service.park_turn(SessionId(session_id), TurnId(turn_id), BY)
        if turn.state is not TurnState.PARKED:
            resp.status = falcon.HTTP_202
        resp.data = sse.encode(turn_object(turn))


class Resume:
    """200: it goes on; 202: it will, after the restart."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_post(self, req: Any, resp: Any, session_id: str, turn_id: str) -> None:
        json_object(req, known=frozenset(), required=False)
        turn = self._service.resume_turn(SessionId(session_id), TurnId(turn_id), BY)
        if turn.state is TurnState.INTERRUPTED:
            resp.status = falcon.HTTP_202
        resp.data = sse.encode(turn_object(turn))
