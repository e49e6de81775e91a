"""Local times and instants: what a clock on the wall shows, and when it shows that.

Pure. Invariant: the instant of a local time is the first at which a clock there shows that time or a
later one. So a time in a gap (the clock is put forward) is the instant at which the gap ends, and one
that comes twice (the clock is put back) is the first of both. It never falls while local times grow.

zoneinfo is imported where it is first needed: no start waits for it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from netclawd.core.words import shown
from netclawd.errors import BadRequestError

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC


def zone_of(name: str) -> tzinfo:
    """Return the time zone of an IANA name; BadRequestError when there is none. UTC is always there."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        if name.isprintable() and not name.endswith("/"):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder of zones, a name that is too long.
        pass
    raise BadRequestError(
        f"The time zone {shown(name)} is not known.",
        "Give its IANA name, for example Europe/Berlin.",
    )


def local_time(instant: float, zone: tzinfo) -> datetime:
    """Return what a clock shows, without its zone; OverflowError outside the years 1 to 9999."""
    utc = _EPOCH + timedelta(seconds=instant)
    return utc.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None, fold=0)


def instant_of(local: datetime, zone: tzinfo) -> float:
    """Return when a clock first shows this time or a later one; OverflowError as above."""
    here = local.replace(tzinfo=zone, fold=0)
    found = _seconds(local, here)
    if local_time(found, zone) == local:
        return found
    # A gap: it ends between this time by the offset after it and by the one before it.
    low, high = sorted((_seconds(local, here.replace(fold=1)), found))
    low, high = float(int(low) - 1), float(int(high) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if local_time(middle, zone) >= local:
            high = middle
        else:
            low = middle
    return high


def _seconds(local: datetime, here: datetime) -> float:
    offset = here.utcoffset()
    assert offset is not None
    return (local - offset - _EPOCH).total_seconds()
