from __future__ import annotations

import sys
import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.local_time import instant_of, local_time, zone_of
from netclawd.errors import BadRequestError

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/Havana",
    "Pacific/Apia",
    "Africa/Casablanca",
]
LOCAL = st.integers(0, 3_600_000_000).map(
    lambda seconds: datetime.fromisoformat("1975-01-01") + timedelta(seconds=seconds)
)


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("zone", "local", "instant"),
    [
        ("Europe/Berlin", "2026-01-15T12:00", "2026-01-15T11:00"),
        ("Europe/Berlin", "2026-07-15T12:00", "2026-07-15T10:00"),
        # Put forward at 02:00: what is between is when it is 03:00.
        ("Europe/Berlin", "2026-03-29T01:59:59", "2026-03-29T00:59:59"),
        ("Europe/Berlin", "2026-03-29T02:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T02:59:59", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29T03:00:01", "2026-03-29T01:00:01"),
        # Put back at 03:00: what comes twice is the first.
        ("Europe/Berlin", "2026-10-25T01:59:59", "2026-10-24T23:59:59"),
        ("Europe/Berlin", "2026-10-25T02:00", "2026-10-25T00:00"),
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30"),
        ("Europe/Berlin", "2026-10-25T03:00", "2026-10-25T02:00"),
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00"),
        ("America/New_York", "2026-03-08T03:00", "2026-03-08T07:00"),
        ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30"),
        ("America/New_York", "2026-11-01T02:00", "2026-11-01T07:00"),
        # Half an hour forward at 02:00, back at 02:00.
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30"),
        ("Australia/Lord_Howe", "2026-10-04T02:30", "2026-10-03T15:30"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45"),
        ("Australia/Lord_Howe", "2026-04-05T02:00", "2026-04-04T15:30"),
        ("Asia/Kathmandu", "2026-05-01T06:00", "2026-05-01T00:15"),
        # At midnight there, which is not there.
        ("America/Havana", "2026-03-08T00:00", "2026-03-08T05:00"),
        # A day that was left out.
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00"),
    ],
)
def test_a_local_time_has_one_instant(zone: str, local: str, instant: str) -> None:
    assert instant_of(datetime.fromisoformat(local), zone_of(zone)) == utc(instant)


@given(st.sampled_from(ZONES), st.integers(0, 4_000_000_000))
def test_an_instant_is_found_again_unless_its_time_came_before(zone: str, at: int) -> None:
    here = zone_of(zone)
    first = instant_of(local_time(at, here), here)
    assert first <= at
    assert local_time(first, here) == local_time(at, here)


@given(
    st.sampled_from(ZONES),
    LOCAL,
    st.timedeltas(timedelta(0), timedelta(hours=3)),
)
def test_instants_never_fall_while_local_times_grow(
    zone: str, local: datetime, more: timedelta
) -> None:
    here = zone_of(zone)
    assert instant_of(local, here) <= instant_of(local + more, here)


@given(st.sampled_from(ZONES), LOCAL)
def test_nothing_earlier_shows_that_time_or_a_later_one(zone: str, local: datetime) -> None:
    here = zone_of(zone)
    found = instant_of(local, here)
    assert local_time(found, here) >= local
    assert local_time(found - 1, here) < local


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "Europe",
        "../../etc/passwd",
        "/etc/passwd",
        "a" * 5_000,
        "a\0b",
        "é",
        "Europe/",
    ],
)
def test_a_name_of_no_zone_is_refused_in_words(name: str) -> None:
    with pytest.raises(BadRequestError, match="is not known"):
        zone_of(name)


def test_utc_is_there_where_no_zones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tzdata", *(each for each in sys.modules if each.startswith("tzdata."))):
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath([])
    try:
        with pytest.raises(BadRequestError):
            zone_of("Europe/Berlin")
        assert local_time(0.0, zone_of("UTC")) == datetime(1970, 1, 1)  # noqa: DTZ001
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()
