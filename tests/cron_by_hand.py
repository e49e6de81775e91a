"""Cron expressions read by hand: minute after minute, so that there is nothing to get wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class ByHand:
    """Implements :class:`netclawd.core.schedule.Cron` for numbers, ``*``, ranges, lists and steps."""

    def refusal(self, expression: str) -> str:
        return "" if len(expression.split()) == len(_RANGES) else "It is none."

    def after(self, expression: str, local: datetime) -> datetime | None:
        minutes, hours, days, months, weekdays = (
            _values(field, *bounds)
            for field, bounds in zip(expression.split(), _RANGES, strict=True)
        )
        weekdays = {day % 7 for day in weekdays}
        # A field that leaves nothing out says nothing: then the other decides alone.
        any_day, any_weekday = len(days) == 31, len(weekdays) == 7
        at = local.replace(second=0, microsecond=0) + timedelta(minutes=1)
        end = at + timedelta(days=9 * 366)
        while at < end:
            fits = (at.day in days, at.isoweekday() % 7 in weekdays)
            today = all(fits) if any_day or any_weekday else any(fits)
            if not (at.month in months and today):
                at = at.replace(hour=0, minute=0) + timedelta(days=1)
            elif at.hour in hours and at.minute in minutes:
                return at
            else:
                at += timedelta(minutes=1)
        return None


def _values(field: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low, high = (least, most) if span == "*" else (int(first), int(last or first))
        found |= set(range(low, high + 1, int(step or 1)))
    return found
