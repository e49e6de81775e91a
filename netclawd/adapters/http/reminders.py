"""The routes of reminders: set, list, show, pause, resume, run, remove.

What they need besides the other routes is imported with the first request: serving doesn't need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import falcon

from netclawd.adapters.http import sse
from netclawd.adapters.http.query import idempotency_key, json_object, whole_number
from netclawd.adapters.http.sessions import BY
from netclawd.errors import BadRequestError
from netclawd.ports import Service

if TYPE_CHECKING:
    from netclawd.core.reminders import Reminder, ReminderId
    from netclawd.ports.reminders import Reminders

#: Reminders in one page: at most, and without ``limit``.
MAX_REMINDERS = 500
DEFAULT_REMINDERS = 50

#: What is done with one; the reminder as it is afterwards.
Act = Callable[["Reminders", "ReminderId"], "Reminder"]


def add_reminder_routes(app: Any, service: Service) -> None:
    """Add them to the application."""
    one = "/api/reminders/{reminder_id}"
    app.add_route("/api/reminders", AllReminders(service))
    app.add_route(one, OneReminder(service))
    app.add_route(one + "/pause", Action(service, lambda reminders, name: reminders.pause(name)))
    app.add_route(one + "/resume", Action(service, lambda reminders, name: reminders.resume(name)))
    app.add_route(one + "/run", Action(service, _run, falcon.HTTP_202))


def _run(reminders: Reminders, reminder_id: ReminderId) -> Reminder:
    reminders.run(reminder_id)
    return reminders.show(reminder_id)


def _object(reminders: Reminders, reminder: Reminder) -> dict[str, Any]:
    from netclawd.core.listing import OCCURRENCES
    from netclawd.core.reminders import as_json

    return as_json(reminder, reminders.occurrences(reminder.id, OCCURRENCES))


def _id(text: str) -> ReminderId:
    from netclawd.core.reminders import ReminderId

    return ReminderId(text)


class AllReminders:
    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: Any, resp: Any) -> None:
        limit = whole_number(
            req, "limit", default=DEFAULT_REMINDERS, lowest=1, highest=MAX_REMINDERS
        )
        everything = whole_number(req, "all", default=0, lowest=0, highest=1) == 1
        cursor = req.params.get("cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise BadRequestError("cursor is given twice.", "Give it once.")
        reminders = self._service.reminders
        page = reminders.page(all_=everything, cursor=cursor, limit=limit)
        found = [_object(reminders, each) for each in page.reminders]
        resp.data = sse.encode({"reminders": found, "next": page.next})

    def on_post(self, req: Any, resp: Any) -> None:
        """Set one; it is durable when the answer goes out."""
        from netclawd.core.remind import read_new

        key = idempotency_key(req)
        asked = json_object(req, known=None, required=True)
        reminders = self._service.reminders
        new = read_new(asked)
        known = reminders.added(key) if key is not None else None
        made = reminders.add(new, BY, key=key)
        resp.status = falcon.HTTP_201 if known is None else falcon.HTTP_200
        resp.set_header("Location", f"/api/reminders/{made.id}")
        resp.data = sse.encode(_object(reminders, made))


class OneReminder:
    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, _req: Any, resp: Any, reminder_id: str) -> None:
        reminders = self._service.reminders
        resp.data = sse.encode(_object(reminders, reminders.show(_id(reminder_id))))

    def on_delete(self, req: Any, resp: Any, reminder_id: str) -> None:
        json_object(req, known=frozenset(), required=False)
        reminders = self._service.reminders
        resp.data = sse.encode(_object(reminders, reminders.remove(_id(reminder_id))))


class Action:
    """Pause, resume or run."""

    def __init__(self, service: Service, act: Act, status: str = falcon.HTTP_200) -> None:
        self._service = service
        self._act = act
        self._status = status

    def on_post(self, req: Any, resp: Any, reminder_id: str) -> None:
        json_object(req, known=frozenset(), required=False)
        reminders = self._service.reminders
        changed = self._act(reminders, _id(reminder_id))
        resp.status = self._status
        resp.data = sse.encode(_object(reminders, changed))
