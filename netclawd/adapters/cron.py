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
_FIELDS = 5
#: Longer ones say nothing that a shorter one can't.
_LONGEST = 500


class CroniterCron:
    """Implements :class:`netclawd.core.schedule.Cron`."""

    def refusal(self, expression: str) -> str:
        fields = expression.split(" ")
        if len(fields) != _FIELDS:
            number = len(expression.split())
            return f"The cron expression {shown(expression)} has {number} fields instead of 5."
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

    return croniter(expression, local)


def preload() -> None:
    """Import what the first expression needs."""
    import zoneinfo  # noqa: F401

    import croniter  # noqa: F401
