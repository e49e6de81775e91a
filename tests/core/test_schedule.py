from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netclawd.core.budgets import REMINDER_ON_TIME_S
from netclawd.core.local_time import instant_of, local_time, zone_of
from netclawd.core.reminders import (
    Missed,
    NewReminder,
    Reminder,
    ReminderId,
    ReminderState,
    Schedule,
    ScheduleKind,
)
from netclawd.core.schedule import (
    MOST_CAUGHT_UP,
    MOST_COUNTED,
    count_due,
    first_due,
    in_words,
    input_text,
    judge_due,
    judge_overrun,
    last_due,
    next_due,
    read_schedule,
)
from netclawd.core.session import SessionId
from netclawd.errors import BadRequestError
from tests.cron_by_hand import ByHand

CRON = ByHand()
BERLIN = "Europe/Berlin"
HOUR = 3_600.0


def at(local: str, zone: str = BERLIN) -> float:
    return instant_of(datetime.fromisoformat(local), zone_of(zone))


def cron(expression: str, zone: str = BERLIN) -> Schedule:
    return Schedule(ScheduleKind.CRON, zone, cron=expression)


def every(seconds: float, since: float = 0.0) -> Schedule:
    return Schedule(ScheduleKind.INTERVAL, "UTC", at=since, every_s=seconds)


def once(when: float) -> Schedule:
    return Schedule(ScheduleKind.ONCE, "UTC", at=when)


def coming(schedule: Schedule, after: str, number: int) -> list[str]:
    """Return the next due times as a clock in the schedule's zone shows them."""
    found, due = [], at(after, schedule.zone)
    for _ in range(number):
        following = next_due(schedule, due, CRON)
        assert following is not None
        due = following
        found.append(f"{local_time(due, zone_of(schedule.zone)):%d. %H:%M}")
    return found


# -- due times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "zone", "after", "due"),
    [
        # Put forward: in the gap it fires at its end, once.
        ("30 2 * * *", BERLIN, "2026-03-28T03:00", ["29. 03:00", "30. 02:30", "31. 02:30"]),
        ("*/30 * * * *", BERLIN, "2026-03-29T01:00", ["29. 01:30", "29. 03:00", "29. 03:30"]),
        ("15 * * * *", BERLIN, "2026-03-29T00:30", ["29. 01:15", "29. 03:00", "29. 03:15"]),
        ("0 3 * * *", BERLIN, "2026-03-28T04:00", ["29. 03:00", "30. 03:00"]),
        # Put back: in the hour that comes twice it fires the first time.
        ("30 2 * * *", BERLIN, "2026-10-24T03:00", ["25. 02:30", "26. 02:30"]),
        ("*/30 * * * *", BERLIN, "2026-10-25T01:30", ["25. 02:00", "25. 02:30", "25. 03:00"]),
        ("0 3 * * *", BERLIN, "2026-10-24T04:00", ["25. 03:00", "26. 03:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T03:00", ["08. 03:00", "09. 02:30"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T02:00", ["01. 01:30", "02. 01:30"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T03:00", ["04. 02:30", "05. 02:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T02:00", ["05. 01:45", "06. 01:45"]),
        ("0 6 * * *", "Asia/Kathmandu", "2026-05-01T06:00", ["02. 06:00", "03. 06:00"]),
        ("0 0 29 2 *", BERLIN, "2026-01-01T00:00", ["29. 00:00"]),
    ],
)
def test_a_cron_expression_is_meant_in_local_time(
    expression: str, zone: str, after: str, due: list[str]
) -> None:
    assert coming(cron(expression, zone), after, len(due)) == due


def test_in_the_second_hour_of_two_nothing_of_the_first_comes_again() -> None:
    # 02:10 the second time, as it is an hour after 02:10.
    now = at("2026-10-25T02:10") + HOUR
    due = next_due(cron("*/15 * * * *"), now, CRON)
    assert due == at("2026-10-25T03:00")


EXPRESSIONS = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0 */2 * * *",
    "15,45 1-3 * * *",
    "0 0 1 * *",
]
ZONES = [BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana"]
#: Around the changes of both hemispheres, and anywhere.
INSTANTS = st.one_of(
    *(
        st.floats(base - 90_000, base + 90_000)
        for base in (at("2026-03-29T03:00"), at("2026-10-25T02:00"), at("2026-03-08T12:00"))
    ),
    st.floats(0, 4e9),
)


@settings(max_examples=25)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), INSTANTS)
def test_each_due_time_is_after_the_one_before_and_no_local_time_comes_twice(
    expression: str, zone: str, now: float
) -> None:
    schedule, here, shown = cron(expression, zone), zone_of(zone), set()
    for _ in range(12):
        due = next_due(schedule, now, CRON)
        assert due is not None
        assert due > now
        local = local_time(due, here)
        assert local not in shown
        assert instant_of(local, here) == due, "the second of two was taken"
        shown.add(local)
        now = due


@settings(max_examples=25)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), INSTANTS, st.floats(0, 20_000))
def test_the_last_due_time_is_the_one_that_comes_last(
    expression: str, zone: str, start: float, length: float
) -> None:
    schedule = cron(expression, zone)
    first = next_due(schedule, start, CRON)
    assert first is not None
    now = first + length
    last = last_due(schedule, first, now, CRON)
    following = next_due(schedule, last, CRON)
    assert first <= last <= now
    assert following is not None
    assert following > now
    expected, due = 0, first
    while due < last:
        expected, due = expected + 1, next_due(schedule, due, CRON) or last
    assert count_due(schedule, first, last, CRON) == min(expected, MOST_COUNTED)


@given(
    st.floats(1.0, 1e6).map(lambda s: round(s, 3)),
    st.floats(0, 4e9).map(lambda s: round(s, 3)),
    st.floats(-1e7, 1e9),
)
def test_an_interval_is_one_grid_from_wherever_it_is_computed(
    every_s: float, anchor: float, later: float
) -> None:
    schedule, now = every(every_s, anchor), anchor + later
    due = next_due(schedule, now, CRON)
    assert due is not None
    assert now < due <= now + every_s + 0.002
    following = next_due(schedule, due, CRON)
    assert following is not None
    assert following - due == pytest.approx(every_s, abs=0.002)
    assert last_due(schedule, due, following, CRON) == following
    assert last_due(schedule, due, following - 0.001, CRON) == due
    assert count_due(schedule, due, following, CRON) == 1


def test_an_interval_that_was_made_while_the_clock_was_ahead_is_due_before_that() -> None:
    assert next_due(every(60.0, since=1e9 + 20), 1000.0, CRON) == 1020.0


def test_one_time_is_due_once() -> None:
    assert first_due(once(50.0), 10.0, CRON) == 50.0
    assert next_due(once(50.0), 49.0, CRON) == 50.0
    assert next_due(once(50.0), 50.0, CRON) is None


# -- what was asked for ----------------------------------------------------------------------------


def read(now: float = at("2026-11-28T12:00"), **fields: Any) -> Schedule:
    return read_schedule(NewReminder(**{"text": "t", **fields}), now, BERLIN, CRON)


@pytest.mark.parametrize(
    ("given_at", "zone", "due"),
    [
        ("12:01", "", "2026-11-28T12:01"),
        ("12:00", "", "2026-11-29T12:00"),
        ("9:30", "", "2026-11-29T09:30"),
        ("23:59:59", "", "2026-11-28T23:59:59"),
        ("2026-12-24T18:00", "", "2026-12-24T18:00"),
        ("2026-12-24 18:00", "", "2026-12-24T18:00"),
        ("2026-12-24T18:00Z", "", "2026-12-24T19:00"),
        ("2026-12-24T18:00-05:00", "", "2026-12-25T00:00"),
        ("2026-12-24T18:00", "America/New_York", "2026-12-25T00:00"),
        ("2027-03-28T02:30", "", "2027-03-28T03:00"),
        ("2027-10-31T02:30", "", "2027-10-31T02:30"),
    ],
)
def test_a_time_is_read_in_its_zone(given_at: str, zone: str, due: str) -> None:
    schedule = read(at=given_at, zone=zone)
    assert (schedule.kind, schedule.at) == (ScheduleKind.ONCE, at(due))
    assert schedule.zone == (zone or BERLIN)


def test_a_time_of_day_in_a_gap_is_the_end_of_the_gap() -> None:
    assert read(at("2026-03-28T12:00"), at="02:30").at == at("2026-03-29T03:00")
    # An hour that comes twice is over once it came the first time.
    assert read(at("2026-10-25T02:40") + HOUR, at="02:50").at == at("2026-10-26T02:50")


def test_the_other_ways_to_say_when() -> None:
    now = at("2026-11-28T12:00")
    assert read(in_s=30).at == now + 30
    interval = read(now + 0.4996, every_s=3600)
    # Rounded up: even so it isn't due at once.
    assert (interval.at, interval.every_s) == (now + 0.5, 3600)
    assert first_due(interval, now + 0.4996, CRON) == now + 0.5 + 3600
    assert read(cron=" 0  7 * *  1-5 ").cron == "0 7 * * 1-5"


@pytest.mark.parametrize("part_s", [0.0, 0.0004, 0.0006])
def test_an_interval_passes_before_its_first_time_however_now_is_rounded(part_s: float) -> None:
    now = at("2026-11-28T12:00") + part_s
    assert first_due(read(now, every_s=60), now, CRON) == pytest.approx(now + 60, abs=0.002)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "needs one time"),
        ({"in_s": 5, "at": "12:30"}, "exactly one"),
        ({"every_s": 5, "cron": "* * * * *"}, "exactly one"),
        ({"text": " \n", "in_s": 5}, "needs a text"),
        ({"text": "x" * 8_001, "in_s": 5}, "8,001 characters"),
        ({"text": "\ud800", "in_s": 5}, "Unicode"),
        ({"in_s": 0}, "more than 0 s"),
        ({"in_s": -1}, "more than 0 s"),
        ({"in_s": float("nan")}, "at most 100 years"),
        ({"in_s": float("inf")}, "at most 100 years"),
        ({"in_s": 1e300}, "at most 100 years"),
        ({"every_s": 0.999}, "at least 1 s"),
        ({"every_s": float("nan")}, "at most 100 years"),
        ({"every_s": 1e12}, "at most 100 years"),
        ({"in_s": 5, "max_late_s": -1}, "lateness must be at least 0"),
        ({"in_s": 5, "max_late_s": float("nan")}, "at most 100 years"),
        ({"at": "2026-11-28T11:59"}, "is past"),
        ({"at": "2026-11-28T12:00"}, "is past"),
        ({"at": "0001-01-01T00:00"}, "is past"),
        ({"at": "2026-11-28T12:30+05:00"}, "is past"),
        ({"at": "9999-12-31T23:59"}, "100 years ahead"),
        ({"at": "9999-12-31T23:59-12:00"}, "100 years ahead"),
        ({"at": "2026-12-24"}, "is no time"),
        ({"at": "24:00"}, "is no time"),
        ({"at": "12:60"}, "is no time"),
        ({"at": "\u0661\u0662:30"}, "is no time"),
        ({"at": "tomorrow"}, "is no time"),
        ({"at": ""}, "is no time"),
        ({"cron": "* * * *"}, "It is none"),
        ({"cron": "0 0 30 2 *"}, "never comes true"),
        ({"cron": "0 0 31 4,6,9,11 *"}, "never comes true"),
        ({"in_s": 5, "zone": "Mars/Olympus"}, "is not known"),
    ],
)
def test_what_can_not_be_meant_is_refused_in_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(**fields)
    assert words in str(refused.value)
    assert refused.value.remedy


# -- what is to be done ----------------------------------------------------------------------------

#: Of an interval of an hour from 0.
NEXT = 10 * HOUR


def reminder(
    schedule: Schedule, missed: Missed, next_at: float = NEXT, max_late_s: float = HOUR
) -> Reminder:
    return Reminder(
        id=ReminderId("rem"),
        text="water the plants",
        schedule=schedule,
        missed=missed,
        max_late_s=max_late_s,
        session_id=SessionId("s"),
        own_session=True,
        origin={},
        state=ReminderState.ACTIVE,
        reason="",
        failures=0,
        created_at=0.0,
        created_by="test",
        next_at=next_at,
    )


S, O, A = Missed.SKIP, Missed.ONCE, Missed.ALL  # noqa: E741


@pytest.mark.parametrize(
    ("policy", "late_h", "start_h", "count", "next_h"),
    [
        # On time.
        (S, 0.0, 10, 0, 11),
        (O, 0.0, 10, 0, 11),
        (A, 0.0, 10, 0, 11),
        (S, 60 / HOUR, 10, 0, 11),
        # Missed by half an hour: within the hour that it may be late.
        (S, 0.5, None, 1, 11),
        (O, 0.5, 10, 0, 11),
        (A, 0.5, 10, 0, 11),
        # The daemon was down for 3.5 hours: of 10, 11, 12 and 13 the last is not an hour late.
        (S, 3.5, None, 4, 14),
        (O, 3.5, 13, 3, 14),
        (A, 3.5, 13, 3, 14),
        # And where the newest is on time.
        (S, 3.01, 13, 3, 14),
        (O, 3.01, 13, 3, 14),
        (A, 3.01, 13, 3, 14),
    ],
)
def test_what_was_missed_is_judged_by_policy_and_lateness(
    policy: Missed, late_h: float, start_h: int | None, count: int, next_h: int
) -> None:
    now = NEXT + late_h * HOUR
    verdict = judge_due(reminder(every(HOUR), policy), now, now, CRON)
    assert verdict.start == (None if start_h is None else start_h * HOUR)
    assert (verdict.count, verdict.next_at) == (count, next_h * HOUR)
    assert bool(verdict.reason) == (count > 0) == (verdict.skipped is not None)
    assert verdict.missed == (start_h is not None and now - start_h * HOUR > REMINDER_ON_TIME_S)


def test_all_that_was_missed_runs_one_after_the_other() -> None:
    since = now = NEXT + 3.5 * HOUR
    one, started = reminder(every(HOUR), A, max_late_s=2.6 * HOUR), []
    for _ in range(3):
        verdict = judge_due(one, now, since, CRON)
        started.append((verdict.start, verdict.count, verdict.missed))
        assert verdict.next_at is not None
        one = reminder(every(HOUR), A, verdict.next_at, 2.6 * HOUR)
        now += 60.0  # They wait for each other, which makes none too late.
    assert started == [(11 * HOUR, 1, True), (12 * HOUR, 0, True), (13 * HOUR, 0, True)]
    assert one.next_at == 14 * HOUR


@pytest.mark.parametrize("policy", list(Missed))
def test_who_waited_for_others_is_not_late(policy: Missed) -> None:
    # The scheduler was there when it was due: 10,000 others came first.
    verdict = judge_due(reminder(once(NEXT), policy), NEXT + 9 * HOUR, NEXT - 1, CRON)
    assert (verdict.start, verdict.missed, verdict.next_at) == (NEXT, False, None)


@pytest.mark.parametrize("policy", list(Missed))
def test_of_several_that_came_while_nobody_was_free_the_newest_runs(policy: Missed) -> None:
    verdict = judge_due(reminder(every(HOUR), policy), NEXT + 2.5 * HOUR, NEXT - 1, CRON)
    assert (verdict.start, verdict.count, verdict.missed) == (12 * HOUR, 2, False)
    assert "later one" in verdict.reason


@pytest.mark.parametrize("policy", list(Missed))
def test_a_single_time_that_is_too_late_is_done(policy: Missed) -> None:
    now = NEXT + HOUR + 1
    verdict = judge_due(reminder(once(NEXT), policy), now, now, CRON)
    assert (verdict.start, verdict.skipped, verdict.count) == (None, NEXT, 1)
    assert verdict.next_at is None
    assert "missed" in verdict.reason


@settings(max_examples=60)
@given(
    st.sampled_from(list(Missed)),
    st.floats(0, 50_000),
    st.floats(0, 50_000),
    st.floats(0, 20_000),
    st.sampled_from(
        [every(60.0), every(HOUR), every(7.5), once(NEXT), cron("*/20 * * * *", "UTC")]
    ),
)
def test_no_due_time_is_forgotten_or_comes_twice(
    policy: Missed, late: float, waited: float, max_late: float, schedule: Schedule
) -> None:
    """Follow a reminder until nothing is due: each due time is started or skipped, in order, once."""
    now = NEXT + late + waited
    since = NEXT + late
    due, pending, told = NEXT, [], 0
    while due <= now:
        pending.append(due)
        following = next_due(schedule, due, CRON)
        if following is None:
            break
        due = following
    one = reminder(schedule, policy, NEXT, max_late)
    for _ in itertools.count():
        verdict = judge_due(one, now, since, CRON)
        told += verdict.count + (verdict.start is not None)
        if verdict.start is not None:
            assert verdict.start in pending
            assert since - verdict.start <= max(max_late, REMINDER_ON_TIME_S)
            assert verdict.skipped is None or verdict.skipped < verdict.start
        if verdict.next_at is None or verdict.next_at > now:
            break
        assert policy is A
        assert verdict.next_at > (verdict.start or 0)
        one = reminder(schedule, policy, verdict.next_at, max_late)
    assert told == len(pending) or (schedule.kind is ScheduleKind.CRON and told >= MOST_COUNTED)


def test_of_a_short_interval_not_all_that_was_missed_runs() -> None:
    week = 7 * 24 * HOUR
    one = reminder(every(1.0), A, NEXT, week)
    verdict = judge_due(one, NEXT + week, NEXT + week, CRON)
    assert verdict.start == NEXT + week - MOST_CAUGHT_UP
    assert (verdict.count, verdict.skipped) == (week - MOST_CAUGHT_UP, verdict.start - 1)
    assert verdict.next_at == verdict.start + 1
    assert "as was a later one" in verdict.reason


def test_what_comes_while_the_one_before_runs_is_skipped_in_one_row() -> None:
    one = reminder(every(1.0), O, NEXT)
    verdict = judge_overrun(one, NEXT - 5, NEXT + 9.5, CRON)
    assert verdict is not None
    assert (verdict.skipped, verdict.count, verdict.next_at) == (NEXT + 9, 10, NEXT + 10)
    assert "still under way" in verdict.reason


def test_what_was_missed_before_is_left_to_the_policy() -> None:
    assert judge_overrun(reminder(every(1.0), O), NEXT + 1, NEXT + 9, CRON) is None
    assert judge_overrun(reminder(every(1.0), O, NEXT + 10), NEXT, NEXT + 9, CRON) is None
    assert judge_overrun(reminder(once(NEXT), O), NEXT, NEXT + 9, CRON) is None


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "0 seconds"),
        (1, "1 second"),
        (90, "1 minute 30 seconds"),
        (3_601, "1 hour"),
        (7_199, "1 hour 59 minutes"),
        (7_200, "2 hours"),
        (200_000, "2 days 7 hours"),
    ],
)
def test_a_length_of_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_who_comes_on_time_says_nothing_but_the_text() -> None:
    one = reminder(every(HOUR), O)
    verdict = judge_due(one, NEXT + 5, NEXT + 5, CRON)
    assert input_text(one, verdict, NEXT + 5) == "Reminder: water the plants"


def test_who_comes_late_says_how_late_and_why() -> None:
    one, now = reminder(every(HOUR), O), NEXT + 2.5 * HOUR
    missed = input_text(one, judge_due(one, now, now, CRON), now)
    assert missed == (
        "Reminder: water the plants\n\n"
        "(It was due at 1970-01-01 12:00 UTC and comes 30 minutes late: it was missed."
        " The 2 before it were skipped.)"
    )
    waited = input_text(one, judge_due(one, now, NEXT, CRON), now)
    assert "others were due as well" in waited
