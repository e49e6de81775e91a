"""What the ``Store`` port promises, asked of every backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netclawd.core.session import (
    Admitted,
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    CallId,
    Change,
    EventType,
    Lease,
    OutboxChange,
    OutboxState,
    ParkReason,
    RestartId,
    SessionId,
    TurnId,
    TurnState,
    Usage,
)
from netclawd.core.values import replace
from netclawd.errors import (
    BadRequestError,
    ConflictError,
    FencedError,
    KeyReusedError,
    NetclawError,
    NotFoundError,
)
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
    numbers,
    outcome,
    store,
)

__all__ = ["backend", "store"]

NOBODY, NO_TURN = SessionId("s-nobody"), TurnId("t-none")


# -- admission ---------------------------------------------------------------------------------


def test_an_admitted_input_is_a_queued_turn_and_an_event(store: Store) -> None:
    new = an_input(text="grüße 👋 \0", key="k", deferred=True)
    assert store.admit(new, 12.5) == Admitted(new.input_id, new.turn_id, deferred=True, fresh=True)
    turn = store.turn(new.turn_id)
    assert (turn.session_id, turn.input_id, turn.state) == (A, new.input_id, TurnState.QUEUED)
    assert (turn.generation, turn.resumes, turn.deferred) == (0, 0, True)
    assert (turn.interrupted_at, turn.park_reason) == (None, None)
    (event,) = store.events(A, 0, 10)
    assert (event.seq, event.type, event.at) == (1, EventType.INPUT_ADMITTED, 12.5)
    assert (event.session_id, event.turn_id) == (A, new.turn_id)
    assert event.data == {"input_id": new.input_id, "text": new.text, "deferred": True}


def test_the_same_key_and_text_again_gets_the_first_answer_and_writes_nothing(
    store: Store,
) -> None:
    first = store.admit(an_input(key="k", deferred=True), 1.0)
    again = store.admit(an_input(key="k"), 2.0)
    assert again == replace(first, fresh=False)
    assert numbers(store) == [1]
    assert store.counters()["admissions"] == 1


def test_the_same_key_with_another_text_is_refused(store: Store) -> None:
    store.admit(an_input(key="k"), 1.0)
    with pytest.raises(KeyReusedError):
        store.admit(an_input(key="k", text="other"), 2.0)
    assert numbers(store) == [1]


def test_keys_are_per_session_and_no_key_is_never_a_repeat(store: Store) -> None:
    for new in (an_input(A, key="k"), an_input(B, key="k"), an_input(A), an_input(A)):
        assert store.admit(new, 1.0).fresh
    assert (numbers(store, A), numbers(store, B)) == ([1, 2, 3], [1])


def test_a_key_is_remembered_across_a_restart(backend: Backend, store: Store) -> None:
    first = store.admit(an_input(key="k"), 1.0)
    assert backend.reopen().admit(an_input(key="k"), 2.0) == replace(first, fresh=False)


def test_what_was_admitted_is_found_by_its_key_and_nothing_is_written(store: Store) -> None:
    first = store.admit(an_input(key="k", deferred=True), 1.0)
    assert store.admitted(A, "k", "hello") == replace(first, fresh=False)
    assert store.admitted(A, "other", "hello") is None
    assert store.admitted(B, "k", "hello") is None
    with pytest.raises(KeyReusedError):
        store.admitted(A, "k", "other")
    with pytest.raises(NotFoundError):
        store.admitted(NOBODY, "k", "hello")
    assert numbers(store) == [1]


def test_an_admission_to_no_session_writes_nothing(store: Store) -> None:
    new = an_input(NOBODY)
    with pytest.raises(NotFoundError):
        store.admit(new, 1.0)
    assert store.open_turns() == ()


def test_a_turn_id_used_twice_is_refused_whole(store: Store) -> None:
    new = an_input()
    store.admit(new, 1.0)
    with pytest.raises(ConflictError):
        store.admit(replace(an_input(B), turn_id=new.turn_id), 1.0)
    assert numbers(store, B) == []


def test_a_text_that_is_not_unicode_is_refused(store: Store) -> None:
    with pytest.raises(BadRequestError):
        store.admit(an_input(text="half \ud83d"), 1.0)
    assert numbers(store) == []


def test_clients_at_once_are_all_kept_in_order_and_without_holes(
    backend: Backend, store: Store
) -> None:
    def client(n: int) -> list[TurnId]:
        session = A if n % 2 else B
        return [admit(store, session, f"{n}:{i}") for i in range(10)]

    mine = at_once(client, range(16))
    again = backend.reopen()
    for session, odd in ((A, 1), (B, 0)):
        events = all_events(again, session)
        assert [event.seq for event in events] == list(range(1, 81))
        order = [event.turn_id for event in events]
        for turns in mine[odd::2]:
            places = [order.index(turn) for turn in turns]
            assert places == sorted(places)
    assert [turn.position for turn in again.open_turns()] == sorted(
        turn.position for turn in again.open_turns()
    )
    assert len(again.open_turns()) == 160


def test_one_key_from_many_clients_at_once_is_admitted_once(store: Store) -> None:
    answers = at_once(lambda new: store.admit(new, 1.0), [an_input(key="k") for _ in range(12)])
    assert [answer.fresh for answer in answers].count(True) == 1
    assert len({answer.turn_id for answer in answers}) == 1
    assert numbers(store) == [1]


# -- generations and leases ----------------------------------------------------------------------


def test_generations_count_up_across_restarts(backend: Backend, store: Store) -> None:
    assert [store.begin_generation(1.0, None), store.begin_generation(2.0, RestartId("r"))] == [
        1,
        2,
    ]
    assert backend.reopen().begin_generation(3.0, None) == 3
    assert backend.reopen().begin_generation(4.0, None, 7) == 8, "numbers that were used up stay so"
    assert backend.reopen().begin_generation(5.0, None, 2) == 9


def test_a_lease_binds_the_turn_to_the_generation(store: Store) -> None:
    generation = store.begin_generation(1.0, None)
    turn_id = admit(store)
    lease = store.lease(turn_id, generation)
    assert lease == Lease(turn_id, A, generation) == store.lease(turn_id, generation)
    assert store.turn(turn_id).generation == generation


def test_a_lease_for_a_resume_counts_it(store: Store) -> None:
    generation = store.begin_generation(1.0, None)
    turn_id = admit(store)
    for count in (1, 2):
        store.lease(turn_id, generation, resumed=True)
        assert store.turn(turn_id).resumes == count
    store.lease(turn_id, generation)
    assert store.turn(turn_id).resumes == 2


def test_what_is_forgiven_is_forgotten_but_for_what_comes_with_it(store: Store) -> None:
    lease = leased(store)
    store.commit(Change(lease, state=TurnState.INTERRUPTED, resumes=2, interrupted_at=5.5), 6.0)
    store.commit(Change(lease, state=TurnState.RUNNING, forgiven=True), 7.0)
    turn = store.turn(lease.turn_id)
    assert (turn.resumes, turn.interrupted_at) == (0, None)
    store.commit(Change(lease, state=TurnState.INTERRUPTED, resumes=2, interrupted_at=5.5), 8.0)
    store.commit(Change(lease, interrupted_at=9.0, forgiven=True), 9.0)
    turn = store.turn(lease.turn_id)
    assert (turn.resumes, turn.interrupted_at) == (0, 9.0)


def test_many_leases_are_one_transaction_and_all_refused_when_one_is(store: Store) -> None:
    turns = [admit(store, session) for session in (B, A, B)]
    generation = store.begin_generation(1.0, None)
    commits = store.counters()["commits"]
    leases = store.lease_all(turns, generation)
    assert [(lease.turn_id, lease.session_id) for lease in leases] == list(
        zip(turns, (B, A, B), strict=True)
    )
    assert store.counters()["commits"] == commits + 1
    assert store.lease_all([], generation) == ()
    end(store, leases[2])
    newer = store.begin_generation(2.0, None)
    with pytest.raises(ConflictError):
        store.lease_all(turns, newer)
    with pytest.raises(FencedError):
        store.lease_all(turns[:2], generation)
    assert {store.turn(turn).generation for turn in turns} == {generation}


def test_an_older_generation_is_fenced_from_leasing_and_committing(store: Store) -> None:
    old = store.begin_generation(1.0, None)
    held, free = store.lease(admit(store), old), admit(store)
    new = store.begin_generation(2.0, None)
    refused: tuple[Callable[[], object], ...] = (
        lambda: store.commit(Change(held, (note(),), TurnState.RUNNING), 3.0),
        lambda: store.commit_all([Change(held, (note(),))], 3.0),
        lambda: store.lease(free, old),
        lambda: store.lease(free, new + 1),
    )
    for attempt in refused:
        with pytest.raises(FencedError):
            attempt()
    assert numbers(store) == [1, 2]
    taken_over = store.lease(held.turn_id, new)
    (event,) = store.commit(Change(taken_over, (note(),), TurnState.RUNNING), 4.0)
    assert event.seq == 3


def test_a_commit_for_a_turn_that_another_generation_leases_is_fenced(store: Store) -> None:
    old = store.begin_generation(1.0, None)
    turn_id = store.lease(admit(store), old).turn_id
    new = store.begin_generation(2.0, None)
    with pytest.raises(FencedError):
        store.commit(Change(Lease(turn_id, A, new), (note(),)), 3.0)
    with pytest.raises(NotFoundError):
        store.commit(Change(Lease(store.lease(turn_id, new).turn_id, B, new), (note(),)), 3.0)


def test_the_first_commit_leases_a_turn_that_nobody_has_held(store: Store) -> None:
    old = store.begin_generation(1.0, None)
    turn_id = admit(store)
    new = store.begin_generation(2.0, None)
    with pytest.raises(FencedError):
        store.commit(Change(Lease(turn_id, A, old), (note(),)), 3.0)
    store.commit(Change(Lease(turn_id, A, new), (note(),), TurnState.RUNNING), 3.0)
    assert store.turn(turn_id).generation == new


@pytest.mark.parametrize("state", [TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELLED])
def test_an_ended_turn_takes_no_lease_and_no_commit(store: Store, state: TurnState) -> None:
    lease = leased(store)
    end(store, lease, state)
    with pytest.raises(ConflictError):
        store.lease(lease.turn_id, lease.generation)
    with pytest.raises(ConflictError):
        store.commit(Change(lease, (note(),), TurnState.RUNNING), 3.0)
    assert store.turn(lease.turn_id).state is state
    assert numbers(store) == [1, 2]


# -- checkpoints -----------------------------------------------------------------------------------


def test_a_checkpoint_returns_its_events_as_they_are_read(store: Store) -> None:
    lease = leased(store)
    calls = [{"id": "c", "name": "clock", "arguments": {"deep": [1, None, "ü\ud800"]}}]
    made = store.commit(
        Change(lease, (note(), note(EventType.MODEL_COMPLETED, calls=calls, step=1))), 7.25
    )
    assert made == store.events(A, 1, 10)
    assert [(e.seq, e.at) for e in made] == [(2, 7.25), (3, 7.25)]
    assert made[1].data == {"calls": calls, "step": 1}


def test_a_checkpoint_writes_what_it_names_and_leaves_the_rest(store: Store) -> None:
    lease = leased(store)
    store.commit(Change(lease, state=TurnState.INTERRUPTED, resumes=1, interrupted_at=5.5), 6.0)
    store.commit(Change(lease, state=TurnState.PARKED, park_reason=ParkReason.RESUME_DEADLINE), 6.0)
    assert store.commit(Change(lease, resumes=2), 6.0) == ()
    turn = store.turn(lease.turn_id)
    assert (turn.state, turn.resumes, turn.interrupted_at) == (TurnState.PARKED, 2, 5.5)
    assert turn.park_reason is ParkReason.RESUME_DEADLINE
    store.commit(Change(lease, state=TurnState.RUNNING), 7.0)
    assert store.turn(lease.turn_id).park_reason is None
    with pytest.raises(ConflictError):
        store.commit(Change(lease, park_reason=ParkReason.APPROVAL), 8.0)


def test_tokens_add_up_to_those_of_the_turn_and_of_its_session(store: Store) -> None:
    assert store.session(A).usage == Usage()
    first, second = leased(store), leased(store)
    store.commit(Change(first, (note(),), usage=Usage(100, 7)), 1.0)
    store.commit(Change(first, usage=Usage(20, 3)), 1.0)
    store.commit(Change(first, state=TurnState.RUNNING), 1.0)
    store.commit_all([Change(second, usage=Usage(1, 1))], 1.0)
    turns = [store.turn(lease.turn_id) for lease in (first, second)]
    assert [turn.usage for turn in turns] == [Usage(120, 10), Usage(1, 1)]
    assert list(store.open_turns()) == turns
    assert store.next_turn(A) == turns[0]
    assert store.session(A).usage == Usage(121, 11)
    assert {s.id: s.usage for s in store.sessions(None, 9).sessions} == {
        A: Usage(121, 11),
        B: Usage(),
    }


def test_a_checkpoint_with_one_bad_part_writes_nothing(store: Store) -> None:
    lease = leased(store)
    asked = ApprovalChange(ApprovalId("a"), ApprovalState.PENDING, "may I?", CallId("c"))
    whole = Change(lease, (note(),), TurnState.PARKED, ParkReason.APPROVAL, 3, 9.0, None, (asked,))
    bad_parts = (
        replace(whole, outbox=OutboxChange(OutboxState.SENT, receipt="r")),
        replace(whole, approvals=(asked, ApprovalChange(ApprovalId("b"), ApprovalState.GRANTED))),
        replace(whole, approvals=(asked, ApprovalChange(ApprovalId("b"), ApprovalState.PENDING))),
    )
    before = store.turn(lease.turn_id)
    for bad in bad_parts:
        with pytest.raises(NetclawError):
            store.commit(bad, 9.0)
        assert store.turn(lease.turn_id) == before
        assert (numbers(store), store.approvals(False), store.outbox()) == ([1], (), ())
    store.commit(whole, 9.0)
    assert store.turn(lease.turn_id).resumes == 3
    assert (numbers(store), len(store.approvals(True))) == ([1, 2], 1)


def test_data_that_is_not_json_writes_nothing(store: Store) -> None:
    lease = leased(store)
    for value in (float("nan"), object()):
        with pytest.raises((TypeError, ValueError)):
            store.commit(Change(lease, (note(), note(value=value)), TurnState.RUNNING), 3.0)
    assert numbers(store) == [1]


def test_many_checkpoints_are_one_transaction(store: Store) -> None:
    leases = [leased(store, session) for session in (A, B, A)]
    commits = store.counters()["commits"]
    store.commit_all([Change(each, (note(),), TurnState.INTERRUPTED) for each in leases], 3.0)
    assert store.counters()["commits"] == commits + 1
    assert (numbers(store, A), numbers(store, B)) == ([1, 2, 3, 4], [1, 2])
    store.commit_all([], 3.0)


def test_many_checkpoints_are_all_refused_when_one_is(store: Store) -> None:
    good, ended = leased(store), leased(store, B)
    end(store, ended)
    with pytest.raises(ConflictError):
        store.commit_all(
            [Change(each, (note(),), TurnState.RUNNING) for each in (good, ended)], 3.0
        )
    assert store.turn(good.turn_id).state is TurnState.QUEUED
    assert numbers(store) == [1]


def test_an_event_may_be_appended_to_a_turn_that_has_ended(store: Store) -> None:
    lease = leased(store)
    end(store, lease)
    event = note(EventType.CONFIG_OUTCOME, outcome="applied")
    assert store.append(A, lease.turn_id, event, 9.0) == 3
    assert store.append(A, None, event, 9.0) == 4
    assert [e.turn_id for e in store.events(A, 2, 9)] == [lease.turn_id, None]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=30))
def test_numbers_have_no_holes_whatever_is_refused_in_between(
    store: Store, steps: list[tuple[int, int, bool]]
) -> None:
    leases = []
    for n in range(3):
        session = SessionId(f"{admit(store)}-{n}")
        store.create_session(session, 1.0)
        leases.append(leased(store, session))
    told: list[list[int]] = [[1], [1], [1]]

    def perform(step: tuple[int, int, bool]) -> None:
        which, count, is_bad = step
        outbox = OutboxChange(OutboxState.SENT) if is_bad else None
        events = tuple(note(n=n) for n in range(count))
        made = outcome(lambda: store.commit(Change(leases[which], events, outbox=outbox), 1.0))
        if isinstance(made, tuple):
            told[which] += [event.seq for event in made]
        else:
            assert is_bad

    if steps:
        at_once(perform, steps)
    for lease, seqs in zip(leases, told, strict=True):
        assert sorted(seqs) == numbers(store, lease.session_id) == list(range(1, len(seqs) + 1))
        assert store.session(lease.session_id).last_seq == len(seqs)
