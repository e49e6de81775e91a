"""Cron expressions by croniter: its arithmetic alone, on local times without a zone.

Zones and daylight saving are ours (:mod:`netclawd.core.local_time`). Expressions are narrowed to what each
release from 1.3.5 on reads alike: five fields of ``*``, numbers, names, ranges, lists and steps, ``L`` as
day, ``#`` as weekday. Its search backwards is not used: old releases find no 29 February there.
croniter is imported at the first expression: it takes 40 ms.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from netclawd.core.words import shown
from netclawd.errors import BadRequestError

_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat|l"
_FIELD = re.compile(rf"(?:[\d*/,#-]|{_NAMES})+", re.ASCII | re.IGNORECASE)
#: A range of one value, which newer releases take for all of them.
_SINGLE = re.compile(r"(?<![^ ,])(\w+)-\1(?:/\d+)?(?![^ ,])", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"(?:\*|(\d{1,3})(?:-(\d{1,3}))?)(?:/(\d{1,3}))?", re.ASCII)
_FIELDS = 5
#: Longer ones say nothing that a shorter one can't.
_LONGEST = 500


class CroniterCron:
    """Implements :class:`netclawd.core.schedule.Cron`."""

    def refusal(self, expression: str) -> str:
        fields = expression.split(" ")
        if len(fields) != _FIELDS:
            number = len(expression.split())
            has = f"{number} field{'' if number == 1 else 's'}"
            return f"The cron expression {shown(expression)} has {has} and needs {_FIELDS}."
        if len(expression) <= _LONGEST and all(_FIELD.fullmatch(field) for field in fields):
            try:
                _croniter(expression, datetime(2026, 1, 1))  # noqa: DTZ001 - a local time
            except ValueError:  # CroniterError is one, and so is what int() says.
                pass
            else:
                return ""
        return f"The cron expression {shown(expression)} can't be read."

    def after(self, expression: str, local: datetime) -> datetime | None:
        from croniter.croniter import CroniterBadDateError

        try:
            found: datetime = _croniter(expression, local).get_next(datetime)
        except CroniterBadDateError:
            return None
        except ValueError:
            raise BadRequestError(
                f"The cron expression {shown(expression)} can't be read any more.",
                "Make the reminder anew.",
            ) from None
        return found


def _croniter(expression: str, local: datetime) -> Any:
    from croniter import croniter

    return croniter(_plain(expression), local)


def _plain(expression: str) -> str:
    """Write an expression as all releases read it alike."""
    minute, hour, day, month, weekday = _SINGLE.sub(r"\1", expression).split(" ")
    # Where both are given either will do: what leaves no day out counts for not given.
    day = "*" if _leaves_none_out(day, 1, 31) else day
    weekday = "*" if _leaves_none_out(weekday, 0, 6) else weekday
    return f"{minute} {hour} {day} {month} {weekday}"


def _leaves_none_out(field: str, least: int, most: int) -> bool:
    """Whether a field of numbers names each value; one with words is not looked at."""
    named: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return False
        low, high, step = (int(number) if number else None for number in match.groups())
        first = least if low is None else low
        # n/step goes on to the end.
        last = high if high is not None else most if low is None or step else first
        named.update(range(first, min(last, most + 1) + 1, step or 1))
    # 7 is Sunday, too.
    return named >= set(range(least, most + 1)) or named >= set(range(1, most + 2))


def preload() -> None:
    """Import what the first expression needs."""
    import zoneinfo  # noqa: F401

    import croniter  # noqa: F401
