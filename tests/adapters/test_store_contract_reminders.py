"""What the ``ReminderStore`` port promises: each occurrence once, and what is due found by its time."""

from __future__ import annotations

import itertools

import pytest

from netclawd.core.reminders import (
    Missed,
    Occurrence,
    OccurrenceState,
    Reminder,
    ReminderId,
    ReminderState,
    Schedule,
    ScheduleKind,
    Skip,
    StartOccurrence,
)
from netclawd.core.session import API, Admitted, EventType, SessionId
from netclawd.core.values import replace
from netclawd.errors import BadRequestError, NetclawError, NotFoundError
from netclawd.ports import Store
from tests.adapters.channel_stores import due as messages_due
from tests.adapters.channel_stores import message, receive
from tests.adapters.stores import (
    A,
    B,
    Backend,
    admit,
    all_events,
    an_input,
    at_once,
    backend,
    outcome,
    store,
)

__all__ = ["backend", "store"]

ACTIVE, PAUSED = ReminderState.ACTIVE, ReminderState.PAUSED
DONE, REMOVED = ReminderState.DONE, ReminderState.REMOVED
STARTED, SKIPPED = OccurrenceState.STARTED, OccurrenceState.SKIPPED
_numbers = itertools.count(1)


def a_reminder(id_: str = "r1", session: SessionId = A, at: float | None = 60.0) -> Reminder:
    return Reminder(
        id=ReminderId(id_),
        text="Water the plants.",
        schedule=Schedule(ScheduleKind.INTERVAL, "Europe/Berlin", 0.0, 60.0),
        missed=Missed.ALL,
        max_late_s=300.0,
        session_id=session,
        own_session=False,
        origin={"user": "U1"},
        state=ACTIVE,
        reason="",
        failures=0,
        created_at=7.0,
        created_by="uid 1000",
        next_at=at,
    )


def starting(
    at: float = 60.0, next_at: float | None = 120.0, *skipped: Occurrence, asked: bool = False
) -> StartOccurrence:
    new = replace(an_input(A, "Water the plants.", f"reminder:r1:{at}"), origin={"user": "U1"})
    return StartOccurrence(ReminderId("r1"), at, new, next_at, skipped, asked)


def skipped(at: float, count: int = 0) -> Occurrence:
    return Occurrence(
        ReminderId("r1"), at, SKIPPED, count, ended_at=at + 1.0, reason="It was missed."
    )


def start(store: Store, one: StartOccurrence, at: float = 61.0) -> Admitted | None:
    return store.reminders.start(one, at)


def ended(store: Store, how: OccurrenceState, at: float = 60.0, *, failures: int = 0) -> None:
    (one,) = [each for each in store.reminders.open_occurrences() if each.due_at == at]
    store.reminders.end(replace(one, state=how, ended_at=at + 9.0, reason="Why."), failures, "")


def r1(store: Store) -> Reminder:
    return store.reminders.reminder(ReminderId("r1"))


def occurrences(store: Store, limit: int = 1000) -> tuple[Occurrence, ...]:
    return store.reminders.occurrences(ReminderId("r1"), limit)


def due(store: Store, now: float = 1000.0, limit: int = 9) -> list[str]:
    return [each.id for each in store.reminders.due(now, limit)]


# -- reminders -------------------------------------------------------------------------------------


def test_a_reminder_is_found_as_it_was_added(backend: Backend) -> None:
    store = backend.open()
    store.create_session(A, 1.0)
    cron = Schedule(ScheduleKind.CRON, "UTC", cron="0 9 * * 1-5")
    one, other = a_reminder(), replace(a_reminder("r2", at=None), schedule=cron, state=PAUSED)
    assert store.reminders.add(one)
    assert store.reminders.add(replace(other, reason="By hand."))
    store = backend.reopen()
    assert r1(store) == one
    assert store.reminders.reminders(all_=False) == (one, replace(other, reason="By hand."))


def test_a_reminder_that_is_added_twice_is_one(store: Store) -> None:
    assert store.reminders.add(a_reminder())
    assert not store.reminders.add(replace(a_reminder(), text="Another."))
    assert r1(store).text == "Water the plants."


def test_a_reminder_makes_its_own_session_and_no_other(store: Store) -> None:
    own = replace(a_reminder(session=SessionId("s-own")), own_session=True)
    assert store.reminders.add(own)
    session = store.session(SessionId("s-own"))
    assert (session.channel, session.created_at) == (API, 7.0)
    with pytest.raises(NotFoundError):
        store.reminders.add(a_reminder("r2", SessionId("s-none")))
    assert [each.id for each in store.reminders.reminders(all_=True)] == ["r1"]


def test_reminders_are_listed_next_due_first(store: Store) -> None:
    for id_, at in (("r3", 90.0), ("r1", 60.0), ("r2", 80.0)):
        store.reminders.add(a_reminder(id_, at=at))
    store.reminders.change(ReminderId("r1"), PAUSED, "By hand.", None)
    assert [each.id for each in store.reminders.reminders(all_=False)] == ["r2", "r3", "r1"]
    store.reminders.change(ReminderId("r2"), REMOVED, "", None)
    assert [each.id for each in store.reminders.reminders(all_=False)] == ["r3", "r1"]
    assert {each.id for each in store.reminders.reminders(all_=True)} == {"r1", "r2", "r3"}
    assert store.reminders.count() == {ACTIVE: 1, PAUSED: 1, REMOVED: 1}
    assert store.census().reminders == {"active": 1, "paused": 1}


def test_reminders_are_paged_in_the_order_of_the_list(store: Store) -> None:
    for number, at in enumerate((60.0, 60.0, 30.0, None, 90.0)):
        store.reminders.add(a_reminder(f"r{number}", at=at))
    store.reminders.change(ReminderId("r4"), REMOVED, "", None)
    assert pages(store, all_=False) == [["r2", "r0"], ["r1", "r3"]]
    assert pages(store, all_=True) == [["r2", "r0"], ["r1", "r3"], ["r4"]]
    with pytest.raises(BadRequestError):
        store.reminders.page(all_=True, cursor="60", limit=2)


def pages(store: Store, *, all_: bool) -> list[list[str]]:
    found: list[list[str]] = []
    cursor = None
    while True:
        page = store.reminders.page(all_=all_, cursor=cursor, limit=2)
        found.append([str(each.id) for each in page.reminders])
        cursor = page.next
        if cursor is None:
            return found


def test_the_reminders_of_a_session(store: Store) -> None:
    for id_, session in (("r1", A), ("r2", B), ("r3", A)):
        store.reminders.add(a_reminder(id_, session))
    store.reminders.change(ReminderId("r3"), REMOVED, "", None)
    assert [each.id for each in store.reminders.of_session(A)] == ["r1"]
    assert store.reminders.of_session(SessionId("s-none")) == ()


def test_pausing_and_resuming(store: Store) -> None:
    store.reminders.add(replace(a_reminder(), failures=4))
    paused = store.reminders.change(ReminderId("r1"), PAUSED, "By hand.", None)
    assert paused == r1(store)
    assert (paused.state, paused.reason, paused.next_at, paused.failures) == (
        PAUSED,
        "By hand.",
        None,
        4,
    )
    assert due(store) == []
    resumed = store.reminders.change(ReminderId("r1"), ACTIVE, "", 180.0)
    assert resumed == r1(store)
    assert (resumed.state, resumed.reason, resumed.next_at, resumed.failures) == (
        ACTIVE,
        "",
        180.0,
        0,
    )


def test_a_removed_reminder_is_gone(store: Store) -> None:
    store.reminders.add(a_reminder())
    store.reminders.change(ReminderId("r1"), REMOVED, "", None)
    with pytest.raises(NotFoundError, match="There is no reminder r1 any more: it was removed"):
        r1(store)
    with pytest.raises(NotFoundError, match="There is no reminder r1"):
        store.reminders.change(ReminderId("r1"), ACTIVE, "", 60.0)
    with pytest.raises(NotFoundError, match="There is no reminder r-none"):
        store.reminders.reminder(ReminderId("r-none"))
    assert start(store, starting(asked=True)) is None
    assert not store.reminders.add(a_reminder()), "its id is not used again"


# -- what is due -----------------------------------------------------------------------------------


def test_what_is_due_is_the_longest_due_first_and_bounded(store: Store) -> None:
    for id_, at in (("r1", 90.0), ("r2", 60.0), ("r3", 80.0), ("r4", 100.0)):
        store.reminders.add(a_reminder(id_, at=at))
    store.reminders.add(replace(a_reminder("r5", at=1.0), state=PAUSED))
    store.reminders.add(replace(a_reminder("r6", at=None)))
    assert (due(store, 90.0), due(store, 59.9)) == (["r2", "r3", "r1"], [])
    assert due(store, 90.0, 2) == ["r2", "r3"]


def test_without_a_reminder_nothing_is_due(store: Store) -> None:
    assert (due(store), store.reminders.count()) == ([], {})


# -- occurrences -----------------------------------------------------------------------------------


def test_an_occurrence_is_started_with_its_input(backend: Backend) -> None:
    store = backend.open()
    store.create_session(A, 1.0)
    store.reminders.add(a_reminder())
    admitted = start(store, starting())
    assert admitted is not None
    store = backend.reopen()
    (one,) = store.reminders.open_occurrences()
    assert one == Occurrence(
        ReminderId("r1"), 60.0, STARTED, turn_id=admitted.turn_id, started_at=61.0
    )
    assert r1(store).next_at == 120.0
    (turn,) = store.open_turns()
    assert (turn.id, turn.origin) == (admitted.turn_id, {"user": "U1"})
    assert [event.type for event in all_events(store)] == [EventType.INPUT_ADMITTED]


def test_an_occurrence_is_started_once(store: Store) -> None:
    store.reminders.add(a_reminder())
    got = at_once(lambda _: start(store, starting()), range(8))
    assert sum(each is not None for each in got) == 1
    ended(store, OccurrenceState.DONE)
    assert start(store, starting(60.0, 600.0, skipped(30.0))) is None
    assert (r1(store).next_at, len(occurrences(store))) == (120.0, 1)
    assert len(store.open_turns()) == 1


def test_an_occurrence_that_was_skipped_is_not_started(store: Store) -> None:
    store.reminders.add(a_reminder())
    store.reminders.skip([Skip(ReminderId("r1"), (skipped(60.0, 3),), 120.0)])
    assert start(store, starting()) is None
    assert occurrences(store) == (skipped(60.0, 3),)
    assert (r1(store).next_at, r1(store).state, store.open_turns()) == (120.0, ACTIVE, ())


def test_what_is_skipped_with_a_start_is_recorded_with_it(store: Store) -> None:
    store.reminders.add(a_reminder())
    start(store, starting(180.0, 240.0, skipped(60.0), skipped(120.0)))
    assert [(each.due_at, each.state) for each in occurrences(store)] == [
        (180.0, STARTED),
        (120.0, SKIPPED),
        (60.0, SKIPPED),
    ]
    assert [each.due_at for each in occurrences(store, 2)] == [180.0, 120.0]


def test_a_start_that_fails_half_way_leaves_nothing(store: Store) -> None:
    store.reminders.add(a_reminder())
    taken = replace(starting(60.0, 120.0, skipped(30.0)))
    bad = replace(taken, input=replace(taken.input, turn_id=admit(store, B)))
    assert isinstance(outcome(lambda: start(store, bad)), NetclawError)
    assert (occurrences(store), r1(store).next_at) == ((), 60.0)
    assert all_events(store) == ()
    assert start(store, starting()) is not None


def test_the_last_occurrence_ends_the_schedule(store: Store) -> None:
    store.reminders.add(a_reminder())
    start(store, starting(60.0, None))
    assert (r1(store).state, r1(store).next_at) == (DONE, None)
    assert due(store) == []
    # It is listed until the last turn has ended.
    page = store.reminders.page(all_=False, cursor=None, limit=9)
    assert [each.id for each in page.reminders] == ["r1"]
    assert store.reminders.reminders(all_=False) == page.reminders
    ended(store, OccurrenceState.FAILED, failures=1)
    assert r1(store).state is DONE
    assert store.reminders.reminders(all_=False) == ()


def test_a_schedule_whose_last_occurrence_is_skipped_is_done(store: Store) -> None:
    store.reminders.add(a_reminder())
    store.reminders.skip([Skip(ReminderId("r1"), (skipped(60.0),), None)])
    assert r1(store).state is DONE


def test_only_an_active_reminder_is_started_or_skipped(store: Store) -> None:
    store.reminders.add(replace(a_reminder(), state=PAUSED, reason="By hand."))
    assert start(store, starting()) is None
    store.reminders.skip([Skip(ReminderId("r1"), (skipped(60.0),), 120.0)])
    assert (occurrences(store), r1(store).next_at) == ((), 60.0)


def test_a_run_that_is_asked_for_leaves_the_schedule_as_it_is(store: Store) -> None:
    store.reminders.add(a_reminder())
    assert start(store, starting(33.0, None, asked=True)) is not None
    assert (r1(store).state, r1(store).next_at) == (ACTIVE, 60.0)
    store.reminders.change(ReminderId("r1"), PAUSED, "By hand.", None)
    assert start(store, starting(34.0, None, asked=True)) is not None
    assert (r1(store).state, r1(store).reason) == (PAUSED, "By hand.")
    store.reminders.add(replace(a_reminder("r2"), state=DONE, next_at=None))
    assert start(store, replace(starting(asked=True), reminder_id=ReminderId("r2"))) is None


def test_the_end_of_an_occurrence_is_told_once(store: Store) -> None:
    store.reminders.add(a_reminder())
    start(store, starting())
    ended(store, OccurrenceState.FAILED, failures=1)
    (one,) = occurrences(store)
    assert (one.state, one.ended_at, one.reason) == (OccurrenceState.FAILED, 69.0, "Why.")
    assert (r1(store).failures, store.reminders.open_occurrences()) == (1, ())
    store.reminders.end(replace(one, state=OccurrenceState.DONE), 0, "Paused again.")
    assert (occurrences(store), r1(store).failures, r1(store).state) == ((one,), 1, ACTIVE)


def test_failures_pause_a_reminder_that_is_active(store: Store) -> None:
    store.reminders.add(a_reminder())
    start(store, starting())
    (one,) = store.reminders.open_occurrences()
    failed = replace(one, state=OccurrenceState.FAILED, ended_at=70.0)
    store.reminders.end(failed, 5, "It failed 5 times in a row.")
    there = r1(store)
    assert (there.state, there.failures, there.next_at) == (PAUSED, 5, None)
    assert there.reason == "It failed 5 times in a row."
    assert due(store) == []


@pytest.mark.parametrize("state", [PAUSED, DONE])
def test_failures_change_no_reminder_that_is_not_active(store: Store, state: ReminderState) -> None:
    store.reminders.add(a_reminder())
    start(store, starting())
    (one,) = store.reminders.open_occurrences()
    store.reminders.change(ReminderId("r1"), state, "By hand.", None)
    store.reminders.end(replace(one, state=OccurrenceState.FAILED, ended_at=70.0), 5, "Failures.")
    assert (r1(store).state, r1(store).reason, r1(store).failures) == (state, "By hand.", 5)


def test_a_hundred_occurrences_that_have_ended_are_kept(store: Store) -> None:
    store.reminders.add(a_reminder())
    start(store, starting(0.0, 1.0))
    for first in range(1, 131, 30):
        more = [skipped(float(at)) for at in range(first, first + 30)]
        store.reminders.skip([Skip(ReminderId("r1"), tuple(more), first + 30.0)])
    kept = occurrences(store)
    assert [each.due_at for each in kept] == [*(float(at) for at in range(150, 50, -1)), 0.0]
    assert kept[-1].state is STARTED, "what runs is not forgotten"
    start(store, starting(151.0, 152.0))
    assert [each.due_at for each in occurrences(store)][-2:] == [51.0, 0.0]
    ended(store, OccurrenceState.DONE, 0.0)
    start(store, starting(152.0, 153.0))
    assert [each.due_at for each in occurrences(store)][-2:] == [52.0, 51.0]


def test_how_occurrences_ended_is_counted_for_good(store: Store) -> None:
    """Only the newest are kept; the count goes on."""
    store.reminders.add(a_reminder())
    start(store, starting(0.0, 1.0, skipped(-1.0), skipped(-9.0, 6)))
    start(store, starting(0.0, 1.0))
    assert store.census().occurrences == {"started": 1, "skipped": 8}
    ended(store, OccurrenceState.DONE, 0.0)
    for at in range(1, 150):
        store.reminders.skip([Skip(ReminderId("r1"), (skipped(float(at)),) * 2, at + 1.0)])
    start(store, starting(150.0, 151.0))
    ended(store, OccurrenceState.FAILED, 150.0)
    store.reminders.change(ReminderId("r1"), REMOVED, "", None)
    told = {"started": 0, "skipped": 157, "done": 1, "failed": 1}
    assert store.census().occurrences == told


def test_what_is_overdue_is_counted(store: Store) -> None:
    for number, at in enumerate([60.0, 70.0, None]):
        store.reminders.add(a_reminder(f"r{number}", at=at))
    store.reminders.add(a_reminder("r9", at=10.0))
    store.reminders.change(ReminderId("r9"), PAUSED, "By hand.", 10.0)
    assert [store.reminders.overdue(at) for at in (60.0, 60.5, 71.0)] == [0, 1, 2]


def test_an_occurrence_speaks_in_the_channel_of_its_session(store: Store) -> None:
    got = receive(store, message())
    assert got.session_id is not None
    store.reminders.add(a_reminder(session=got.session_id))
    new = replace(starting().input, session_id=got.session_id)
    admitted = start(store, replace(starting(), input=new))
    assert admitted is not None
    turn = store.turn(admitted.turn_id)
    assert (turn.channel, turn.origin) == ("slack", {"user": "U1"})
    assert messages_due(store) == []


def test_text_that_is_no_text_is_kept_as_far_as_it_is(store: Store) -> None:
    store.reminders.add(replace(a_reminder(), text="half \ud83d of it"))
    assert r1(store).text == "half ? of it"


def test_an_input_of_its_source_id_is_not_admitted_again(store: Store) -> None:
    store.reminders.add(a_reminder())
    first = store.admit(starting().input, 50.0)
    admitted = start(store, starting())
    assert admitted == replace(first, fresh=False)
    (one,) = store.reminders.open_occurrences()
    assert one.turn_id == first.turn_id
