"""Cron expressions by croniter: its arithmetic alone, on local times without a zone.

Zones and daylight saving are ours (:mod:`netclawd.core.local_time`). Expressions are narrowed to what each
release from 1.3.5 on reads alike: five fields of ``*``, numbers, names, ranges, lists and steps; ``L`` alone
as day; ``mon#2`` and ``L5`` as weekday. Its search backwards is not used: old releases find no 29 February
there. croniter is imported at the first expression: it takes 40 ms.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from netclawd.core.words import shown
from netclawd.errors import BadRequestError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: Least, most, and what names stand for.
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)
_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,3}))?", re.ASCII)
#: The n-th weekday of a month, or its last one.
_OF_MONTH = re.compile(r"(\w+)#([1-5])|l(\w+)", re.ASCII)
#: Longer ones say nothing that a shorter one can't.
_LONGEST = 500


class CroniterCron:
    """Implements :class:`netclawd.core.schedule.Cron`."""

    def refusal(self, expression: str) -> str:
        fields = expression.split(" ")
        if len(fields) != len(_FIELDS):
            number = len(expression.split())
            has = f"{number} field{'' if number == 1 else 's'}"
            return f"The cron expression {shown(expression)} has {has} and needs {len(_FIELDS)}."
        try:
            _croniter(expression, datetime(2026, 1, 1))  # noqa: DTZ001 - a local time
        except _RefusedError as error:
            return f"The cron expression {shown(expression)} can't be read: {error}."
        except ValueError:  # CroniterError is one.
            return f"The cron expression {shown(expression)} can't be read."
        return ""

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


class _RefusedError(ValueError):
    """Says what is wrong with an expression."""


@lru_cache(maxsize=256)
def _plain(expression: str) -> str:
    """Write an expression in numbers, as all releases read it alike."""
    if len(expression) > _LONGEST:
        raise _RefusedError("it is too long")
    minute, hour, day, month, weekday = expression.lower().split(" ")
    plain = [_in_numbers(text, *of) for text, of in zip((minute, hour), _FIELDS, strict=False)]
    plain.append("l" if day == "l" else _in_numbers(day, *_FIELDS[2]))
    plain.append(_in_numbers(month, *_FIELDS[3]))
    if "#" in weekday or "l" in weekday:
        if plain[2] != "*":
            raise _RefusedError("a weekday with # or L needs * as day")
        plain.append(_of_month(weekday))
    else:
        plain.append(_in_numbers(weekday, *_FIELDS[4]))
    return " ".join(plain)


def _in_numbers(text: str, least: int, most: int, names: dict[str, int]) -> str:
    """Write a field in numbers; ``*`` where it leaves none out: of day and weekday one given will do."""
    parts: list[str] = []
    named: set[int] = set()
    week = most == 7
    end = 6 if week else most
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _RefusedError(f"{shown(part)} is neither a number, nor *, a range or a step")
        low, high, step = match.groups()
        if step is not None and int(step) == 0:
            raise _RefusedError("a step of 0 leads nowhere")
        first = least if low is None else _number(low, least, most, names)
        if high is not None:
            last = _number(high, least, most, names)
            last = 7 if week and last == 0 < first else last
        else:
            # n/step goes on to the end.
            last = max(first, end) if low is None or step else first
        if last < first:
            raise _RefusedError(f"the range {shown(part)} goes backwards")
        numbers = range(first, last + 1, int(step or 1))
        named.update(number % 7 if week else number for number in numbers)
        plain = str(first) if len(numbers) == 1 else f"{first}-{last}"
        parts.append(plain if len(numbers) == 1 or not step else f"{plain}/{step}")
    return "*" if named >= set(range(least, end + 1)) else ",".join(parts)


def _of_month(text: str) -> str:
    """Write a field such as mon#2 or l5 in numbers."""
    parts = []
    for part in text.split(","):
        match = _OF_MONTH.fullmatch(part)
        if match is None:
            raise _RefusedError(f"{shown(part)} can't be read beside a weekday with # or L")
        nth, number, last = match.groups()
        day = _number(nth or last, *_FIELDS[4]) % 7
        parts.append(f"{day}#{number}" if nth else f"l{day}")
    return ",".join(parts)


def _number(text: str, least: int, most: int, names: dict[str, int]) -> int:
    number = names.get(text, -1)
    if text.isdecimal() and len(text) <= 3:
        number = int(text)
    if not least <= number <= most:
        raise _RefusedError(f"{shown(text)} is not from {least} to {most}")
    return number


def preload() -> None:
    """Import what the first expression needs."""
    import zoneinfo  # noqa: F401

    import croniter  # noqa: F401
