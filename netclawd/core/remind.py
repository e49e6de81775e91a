"""The tool ``remind`` as a model is told of it, and a reminder as it comes in: JSON, read into a value.

Pure. What comes in is from outside: whatever it is, BadRequestError answers it in words that one can work
with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netclawd.core.reminders import LONGEST_TEXT, Missed, NewReminder, ReminderId
from netclawd.core.session import SessionId
from netclawd.core.values import frozen, replace
from netclawd.core.words import kind, shown
from netclawd.errors import BadRequestError

NAME = "remind"
#: Of one session, by the tool: those that are active or paused.
MOST_OF_A_SESSION = 100

DESCRIPTION = (
    "Come back to this conversation later: add a reminder, list those of this conversation, or remove "
    "one. When it is due you are told its text, and what you answer goes to this conversation. A reminder "
    "outlives restarts. Give `text` and one of in_s, at, every_s and cron to add one."
)

PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": ["add", "list", "remove"]},
        "text": {
            "type": "string",
            "description": "add: what you are told when it is due.",
            "maxLength": LONGEST_TEXT,
        },
        "in_s": {"type": "number", "description": "add: once, in so many seconds."},
        "at": {
            "type": "string",
            "description": "add: once, at this time: ISO 8601 (2026-12-24T18:00), or 18:00 for the next one.",
        },
        "every_s": {"type": "number", "description": "add: again and again, each so many seconds."},
        "cron": {
            "type": "string",
            "description": "add: again and again, by five fields of cron: minute hour day month weekday.",
        },
        "tz": {
            "type": "string",
            "description": "add: the IANA time zone that `at` and `cron` are meant in; left out: the host's.",
        },
        "missed": {
            "type": "string",
            "enum": [policy.value for policy in Missed],
            "description": "add: what becomes of times at which the daemon was down: run none, the newest "
            "(the default), or all.",
        },
        "max_late_s": {
            "type": "number",
            "description": "add: how many seconds late a missed one may still run, 3600 if left out.",
        },
        "id": {"type": "string", "description": "remove: the reminder's id, as `list` has it."},
    },
    "required": ["action"],
    "additionalProperties": False,
}

_TEXTS = ("text", "at", "cron", "tz", "session_id")
_NUMBERS = ("in_s", "every_s", "max_late_s")


def read_new(values: Mapping[str, Any]) -> NewReminder:
    """Read the JSON object of a new reminder; null stands for what is left out. BadRequestError."""
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        if key in _TEXTS:
            right, wanted = isinstance(value, str), "a text"
        elif key in _NUMBERS:
            right, wanted = _is_number(value), "a number of seconds"
        elif key == "missed":
            policies = [policy.value for policy in Missed]
            right, wanted = value in policies, "skip, once or all"
        else:
            known = ", ".join([*_TEXTS, *_NUMBERS, "missed"])
            raise BadRequestError(
                f"{shown(key)} is nothing that a reminder has.", f"It has {known}."
            )
        if not right:
            raise BadRequestError(f"`{key}` can't be {_what(value)}.", f"Give {wanted}.")
    new = NewReminder(
        text=given.get("text", ""),
        at=given.get("at"),
        cron=given.get("cron"),
        zone=given.get("tz", ""),
        missed=Missed(given.get("missed", Missed.ONCE)),
        session_id=SessionId(given["session_id"]) if given.get("session_id") else None,
    )
    return replace(new, **{key: float(given[key]) for key in _NUMBERS if key in given})


def _is_number(value: Any) -> bool:
    # A whole number that no float can hold is as wrong as a text.
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (isinstance(value, float) or abs(value) < 2**63)
    )


def _what(value: Any) -> str:
    return shown(value) if isinstance(value, str | int | float) else kind(value)


@frozen
class Remove:
    """The call removes this one."""

    id: ReminderId


def read_action(arguments: Mapping[str, Any]) -> NewReminder | Remove | None:
    """Read the arguments of a call, None: it lists. BadRequestError."""
    given = {key: value for key, value in arguments.items() if value is not None}
    match given.pop("action", None):
        case "add":
            if "session_id" in given:
                raise BadRequestError(
                    "A reminder is for this conversation.", "Leave session_id out."
                )
            return read_new(given)
        case "remove":
            found = given.pop("id", "")
            if not (isinstance(found, str) and found):
                raise BadRequestError("`id` must be the id of a reminder.", "List them.")
            _refuse_more("remove", given)
            return Remove(ReminderId(found))
        case "list":
            _refuse_more("list", given)
            return None
        case other:
            raise BadRequestError(
                f"`action` can't be {_what(other) if other is not None else 'left out'}.",
                "Give add, list or remove.",
            )


def _refuse_more(action: str, given: Mapping[str, Any]) -> None:
    if given:
        names = ", ".join(shown(key) for key in given)
        raise BadRequestError(f"{action} doesn't take {names}.", "Leave that out.")
