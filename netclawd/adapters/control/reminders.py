"""What may be asked about reminders: each request is one call of the daemon's Reminders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from netclawd.adapters.control.arguments import Arguments
from netclawd.core.listing import OCCURRENCES
from netclawd.core.remind import read_new
from netclawd.core.reminders import Reminder, ReminderId, as_json, under_way_of
from netclawd.ports.reminders import Reminders

#: Reminders in one answer, at most and without ``limit``.
MOST, DEFAULT = 1_000, 200
#: Arguments of a request that say nothing of the reminder.
_OWN = ("id", "do", "key")


def _list(reminders: Reminders, args: Arguments, _by: str) -> Any:
    cursor, limit = args.optional_text("cursor"), args.count("limit", DEFAULT, MOST)
    page = reminders.page(all_=args.flag("all"), cursor=cursor, limit=max(1, limit))
    if args.flag("occurrences"):
        found = [_whole(reminders, each) for each in page.reminders]
    else:
        under_way = under_way_of(reminders.open_occurrences())
        found = [as_json(each, under_way.get(each.id, ())) for each in page.reminders]
    return {"reminders": found, "next": page.next}


def _whole(reminders: Reminders, reminder: Reminder) -> dict[str, Any]:
    return as_json(reminder, reminders.occurrences(reminder.id, OCCURRENCES))


def _id(args: Arguments) -> ReminderId:
    return ReminderId(args.text("reminder_id"))


def _add(reminders: Reminders, args: Arguments, by: str) -> Any:
    key = args.optional_text("key")
    asked = {name: value for name, value in args.all.items() if name not in _OWN}
    made = reminders.add(read_new(asked), by, key=key)
    return _whole(reminders, made)


def _show(reminders: Reminders, args: Arguments, _by: str) -> Any:
    return _whole(reminders, reminders.show(_id(args)))


def _pause(reminders: Reminders, args: Arguments, _by: str) -> Any:
    return _whole(reminders, reminders.pause(_id(args)))


def _resume(reminders: Reminders, args: Arguments, _by: str) -> Any:
    return _whole(reminders, reminders.resume(_id(args)))


def _run(reminders: Reminders, args: Arguments, _by: str) -> Any:
    reminders.run(_id(args))
    return _whole(reminders, reminders.show(_id(args)))


def _remove(reminders: Reminders, args: Arguments, _by: str) -> Any:
    return _whole(reminders, reminders.remove(_id(args)))


#: By their names; the last argument is who asks.
REQUESTS: Mapping[str, Callable[[Reminders, Arguments, str], Any]] = {
    "reminders": _list,
    "add_reminder": _add,
    "reminder": _show,
    "pause_reminder": _pause,
    "resume_reminder": _resume,
    "run_reminder": _run,
    "remove_reminder": _remove,
}
