"""What the ``Store`` port promises about proposals: opened with their call's end, told exactly once."""

from __future__ import annotations

import pytest

from netclawd.core.session import (
    CallId,
    Change,
    EventType,
    Lease,
    NewEvent,
    Proposal,
    ProposalChange,
    ProposalOutcome,
    TurnState,
)
from netclawd.errors import ConflictError, FencedError, NotFoundError
from netclawd.ports import Store
from tests.adapters.stores import (
    A,
    Backend,
    all_events,
    at_once,
    backend,
    end,
    generations,
    leased,
    note,
    outcome,
    store,
)

__all__ = ["backend", "store"]

CALL = CallId("t-1-1")
CHANGES = {"daemon.listen": ["127.0.0.1:1"], "drain.timeout_s": None}


def propose(store: Store, lease: Lease, call: CallId = CALL, digest: str = "d") -> None:
    finished = note(EventType.TOOL_FINISHED, call_id=call)
    written = ProposalChange(call, Proposal(digest, CHANGES))
    store.commit(Change(lease, (finished,), TurnState.RUNNING, proposal=written), 30.0)


def told(call: CallId = CALL) -> NewEvent:
    return note(EventType.CONFIG_OUTCOME, call_id=call)


def close(store: Store, call: CallId = CALL, generation: int | None = None) -> bool:
    made = ProposalOutcome.APPLIED
    return store.close_proposal(call, made, told(call), generation or generations[store], 40.0)


def test_a_proposal_is_open_from_the_commit_of_its_call_until_it_is_told(backend: Backend) -> None:
    store = backend.open()
    store.create_session(A, 1.0)
    lease = leased(store)
    assert store.open_proposals() == ()
    propose(store, lease, CallId("a"))
    propose(store, lease, CallId("b"), "e")
    generation = lease.generation
    store = backend.reopen()
    first, second = store.open_proposals()
    assert (first.call_id, second.call_id, second.proposal.digest) == ("a", "b", "e")
    assert (first.session_id, first.turn_id, first.at) == (A, lease.turn_id, 30.0)
    assert first.proposal == Proposal("d", CHANGES)
    assert close(store, CallId("a"), generation)
    assert [each.call_id for each in store.open_proposals()] == ["b"]


def test_the_outcome_is_an_event_of_its_turn(store: Store) -> None:
    lease = leased(store)
    propose(store, lease)
    assert close(store)
    event = store.turn_events(lease.turn_id)[-1]
    assert (event.type, event.at, event.turn_id) == (
        EventType.CONFIG_OUTCOME,
        40.0,
        lease.turn_id,
    )
    assert all_events(store)[-1] == event


def test_nothing_follows_the_end_of_a_turn(store: Store) -> None:
    lease = leased(store)
    propose(store, lease)
    end(store, lease)
    assert close(store)
    assert store.turn_events(lease.turn_id)[-1].type is EventType.TURN_COMPLETED
    last = all_events(store)[-1]
    assert (last.type, last.turn_id) == (EventType.CONFIG_OUTCOME, None)


def test_an_outcome_is_told_once_whoever_tells_it(store: Store) -> None:
    lease = leased(store)
    propose(store, lease)
    answers = at_once(lambda _: close(store), range(8))
    assert sorted(answers) == [False] * 7 + [True]
    kinds = [event.type for event in all_events(store)]
    assert kinds.count(EventType.CONFIG_OUTCOME) == 1


def test_a_call_has_one_proposal(store: Store) -> None:
    lease = leased(store)
    propose(store, lease)
    before = all_events(store)
    assert isinstance(outcome(lambda: propose(store, lease)), ConflictError)
    assert all_events(store) == before


def test_a_call_that_wrote_nothing_has_no_outcome(store: Store) -> None:
    leased(store)
    with pytest.raises(NotFoundError):
        close(store)


def test_an_older_generation_tells_nothing(store: Store) -> None:
    lease = leased(store)
    propose(store, lease)
    newer = store.begin_generation(35.0, None)
    with pytest.raises(FencedError):
        close(store, generation=lease.generation)
    assert close(store, generation=newer)


def test_a_checkpoint_that_is_refused_opens_no_proposal(store: Store) -> None:
    lease = leased(store)
    store.begin_generation(35.0, None)
    with pytest.raises(FencedError):
        propose(store, lease)
    assert store.open_proposals() == ()
