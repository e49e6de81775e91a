"""What is listed over HTTP, the control socket and ``--json``: pages of reminders, messages of the outbox.

Pure. The keys are protocol; a reminder's own are :func:`netclawd.core.reminders.as_json`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netclawd.core.outgoing import Outgoing
from netclawd.core.reminders import Reminder
from netclawd.core.session import OutboxState
from netclawd.core.values import as_map, frozen
from netclawd.errors import BadRequestError

#: Occurrences that a reminder is shown with, the newest.
OCCURRENCES = 100
#: A message in one of these has not reached its conversation, as far as is known.
UNSENT = (
    OutboxState.STREAMING,
    OutboxState.PENDING,
    OutboxState.SENDING,
    OutboxState.AMBIGUOUS,
    OutboxState.FAILED,
)
_SHOWN_MESSAGE = (
    "id",
    "channel",
    "route",
    "kind",
    "state",
    "text",
    "session_id",
    "turn_id",
    "requester",
    "error",
    "attempts",
    "at",
    "changed_at",
    "due_at",
    "receipts",
)


@frozen
class ReminderPage:
    """A page of reminders; ``next`` is the cursor of the following one, if any."""

    reminders: tuple[Reminder, ...]
    next: str | None


def page_of(found: Iterable[Reminder], cursor: str | None, limit: int) -> ReminderPage:
    """Return a page of reminders, the next due first and those that are not due any more last.

    One that is due between two pages may stand on both. BadRequestError for a cursor that isn't ours.
    """
    after = _place(cursor) if cursor is not None else None
    ordered = sorted(found, key=_order)
    rest = ordered if after is None else [each for each in ordered if _order(each) > after]
    page = tuple(rest[:limit])
    return ReminderPage(page, _cursor(page[-1]) if len(rest) > limit else None)


def _order(reminder: Reminder) -> tuple[bool, float, str]:
    at = reminder.next_at
    return at is None, reminder.created_at if at is None else at, reminder.id


def _cursor(reminder: Reminder) -> str:
    idle, at, name = _order(reminder)
    return f"{int(idle)}:{at!r}:{name}"


def _place(cursor: str) -> tuple[bool, float, str]:
    idle, _, rest = cursor.partition(":")
    at, _, name = rest.partition(":")
    try:
        if idle in ("0", "1"):
            return idle == "1", float(at), name
    except ValueError:
        pass
    raise BadRequestError("The cursor is none of ours.", "Use `next` of the page before.")


def message_object(message: Outgoing) -> dict[str, Any]:
    """Return a message of the outbox."""
    whole = as_map(message)
    return {name: whole[name] for name in _SHOWN_MESSAGE}
