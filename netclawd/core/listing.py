"""What is listed over HTTP, the control socket and ``--json``: pages of reminders, messages of the outbox.

Pure. The keys are protocol; a reminder's own are :func:`netclawd.core.reminders.as_json`'s.
"""

from __future__ import annotations

import contextlib
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
    """A page of reminders, the next due first and those that are not due any more last.

    ``next`` is the cursor of the following one, if any. One that is due between two may stand on both.
    """

    reminders: tuple[Reminder, ...]
    next: str | None


#: Where a reminder stands in the list: 1 once it is not due any more, when it is due (else was made), its id.
Place = tuple[int, float, str]


def cursor_after(reminder: Reminder) -> str:
    """Return the cursor of the page that begins behind a reminder."""
    idle = reminder.next_at is None
    at = reminder.created_at if reminder.next_at is None else reminder.next_at
    return f"{int(idle)}:{at!r}:{reminder.id}"


def place_of(cursor: str | None) -> Place:
    """Return the place that a page begins behind; BadRequestError for a cursor that isn't ours."""
    if cursor is None:
        return -1, 0.0, ""
    idle, _, rest = cursor.partition(":")
    at, _, name = rest.partition(":")
    with contextlib.suppress(ValueError):
        name.encode()
        if idle in ("0", "1"):
            return int(idle), float(at), name
    raise BadRequestError("The cursor is none of ours.", "Use `next` of the page before.")


def message_object(message: Outgoing) -> dict[str, Any]:
    """Return a message of the outbox."""
    whole = as_map(message)
    return {name: whole[name] for name in _SHOWN_MESSAGE}
