"""What the ``Store`` port promises about counting: events behind a place, and the census."""

from __future__ import annotations

from collections import Counter

from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import (
    Change,
    EventType,
    OutboxChange,
    OutboxState,
    ParkReason,
    RestartId,
    TurnState,
    Usage,
)
from netclawd.core.values import replace
from netclawd.ports import Store
from tests.adapters.stores import (
    A,
    B,
    Backend,
    admit,
    all_events,
    an_input,
    at_once,
    backend,
    end,
    leased,
    note,
    store,
)

__all__ = ["backend", "store"]

ADMITTED = EventType.INPUT_ADMITTED


def test_an_empty_store_has_place_zero_and_nothing_behind_it(store: Store) -> None:
    assert store.newest_place() == 0
    counts = store.count_events(0, 100)
    assert (counts.place, counts.counts, counts.events) == (0, {}, 0)


def test_events_are_counted_by_type_over_all_sessions(store: Store) -> None:
    for session in (A, B, A):
        lease = leased(store, session)
        store.commit(Change(lease, (note(), note(EventType.MODEL_COMPLETED, text="x"))), 2.0)
    end(store, lease)
    counts = store.count_events(0, 100)
    told = Counter(event.type.value for session in (A, B) for event in all_events(store, session))
    assert Counter({kind: n for (kind, _), n in counts.counts.items()}) == told
    assert counts.place == store.newest_place()
    assert counts.events == sum(told.values()) == 10


def test_the_details_tell_deferral_reason_cause_and_state(store: Store) -> None:
    store.admit(an_input(deferred=True), 1.0)
    lease = leased(store)
    rows = (
        note(EventType.TURN_INTERRUPTED, cause="restart", restart_id="r", state="cut"),
        note(EventType.TURN_RESUMED, generation=2, resumes=1, cause="crash"),
        note(EventType.TURN_PARKED, reason="resume-limit"),
        note(EventType.TURN_INTERRUPTED, cause="stop", restart_id="r", state="drained"),
        note(EventType.TURN_FAILED, slug="provider-busy", reason="It is busy."),
        note(EventType.TOOL_STARTED, reason="none of these", cause="nor this", state="nor this"),
    )
    store.commit(Change(lease, rows), 2.0)
    assert store.count_events(0, 100).counts == {
        (ADMITTED, "true"): 1,
        (ADMITTED, "false"): 1,
        (EventType.TURN_INTERRUPTED, "cut"): 1,
        (EventType.TURN_INTERRUPTED, "drained"): 1,
        (EventType.TURN_RESUMED, "crash"): 1,
        (EventType.TURN_PARKED, "resume-limit"): 1,
        (EventType.TURN_FAILED, "provider-busy"): 1,
        (EventType.TOOL_STARTED, ""): 1,
    }


def test_the_census_has_the_tokens_of_all_sessions(store: Store) -> None:
    assert store.census().tokens == {"input": 0, "output": 0}
    for session in (A, B):
        store.commit(Change(leased(store, session), (note(),), usage=Usage(10, 2)), 1.0)
    assert store.census().tokens == {"input": 20, "output": 4}


def test_counting_goes_on_from_a_place_in_portions(store: Store) -> None:
    for _ in range(7):
        admit(store)
    middle = store.newest_place()
    place, portions = 0, []
    while (counts := store.count_events(place, 3)).events:
        assert counts.place > place
        place = counts.place
        portions.append(counts.events)
    assert (portions, place) == ([3, 3, 1], middle)
    assert store.count_events(middle, 3).place == middle
    admit(store, B)
    assert store.count_events(middle, 3).counts == {(ADMITTED, "false"): 1}


def test_places_go_on_growing_when_the_store_is_opened_again(backend: Backend) -> None:
    store = backend.open()
    store.create_session(A, 1.0)
    admit(store)
    place = store.newest_place()
    again = backend.reopen()
    assert again.newest_place() == place
    admit(again)
    assert again.count_events(place, 9).events == 1


def test_a_count_beside_many_writers_misses_nothing(store: Store) -> None:
    """A place that is counted is settled: nothing is committed behind it later."""
    place, seen, results = 0, 0, []

    def write(number: int) -> None:
        for _ in range(20):
            admit(store, (A, B)[number % 2])

    def count(_number: int) -> None:
        nonlocal place, seen
        while seen < 60:
            counts = store.count_events(place, 7)
            place, seen = counts.place, seen + counts.events
            results.append(counts.events)

    at_once(lambda n: write(n) if n < 3 else count(n), range(4))
    assert seen == sum(results) == 60
    assert store.count_events(place, 7).events == 0


def test_the_census_counts_open_turns_and_sessions_by_their_oldest_one(store: Store) -> None:
    nothing = store.census()
    assert (nothing.sessions, nothing.turns) == ({"idle": 2}, {})
    assert (nothing.outbox, nothing.restarts) == ({}, {})
    running, parked, ended = leased(store, A), leased(store, B), leased(store, B)
    store.commit(Change(running, state=TurnState.RUNNING), 2.0)
    store.commit(Change(parked, state=TurnState.PARKED, park_reason=ParkReason.APPROVAL), 2.0)
    end(store, ended)
    census = store.census()
    assert census.turns == {"running": 1, "parked": 1}
    assert census.sessions == {"idle": 0, "running": 1, "parked": 1}
    admit(store, A)
    census = store.census()
    assert census.turns == {"running": 1, "parked": 1, "queued": 1}
    assert census.sessions == {"idle": 0, "running": 1, "parked": 1}
    for session in (A, B):
        told = store.session(session).turn_state
        assert told is not None
        assert census.sessions[told.value] == 1, "as the session itself tells"


def test_the_census_leaves_out_replies_that_are_sent(store: Store) -> None:
    road = (OutboxState.PENDING, OutboxState.SENDING, OutboxState.SENT)
    for last in range(1, 4):
        lease = leased(store)
        for state in road[:last]:
            text = "reply" if state is OutboxState.PENDING else None
            store.commit(Change(lease, outbox=OutboxChange(state, text)), 3.0)
    assert store.census().outbox == {"pending": 1, "sending": 1}


def test_the_census_counts_journal_entries_that_have_ended(store: Store) -> None:
    record = RestartRecord(RestartId("r-0"), Outcome.PENDING, "hup", "", 1.0)
    store.record_restart(record)
    for n, outcome in enumerate((Outcome.APPLIED, Outcome.REFUSED, Outcome.REFUSED), 1):
        store.record_restart(replace(record, id=RestartId(f"r-{n}"), outcome=outcome))
    assert store.census().restarts == {"applied": 1, "refused": 2}
    store.record_restart(replace(record, outcome=Outcome.CRASHED))
    assert store.census().restarts == {"applied": 1, "refused": 2, "crashed": 1}
