"""What the ``Outbox`` port promises of questions: below what was shown before, and as they were decided."""

from __future__ import annotations

import pytest

from netclawd.core.outgoing import OutgoingKind, reply_id
from netclawd.core.session import (
    Change,
    EventType,
    OutboxState,
    ParkReason,
    TurnState,
)
from netclawd.errors import ConflictError
from netclawd.ports import Store
from tests.adapters.channel_stores import (
    SLACK,
    answer,
    ask,
    begun,
    cancel,
    decide,
    due,
    found,
    notice,
    sent,
    spoken_to,
    state,
    streaming,
)
from tests.adapters.stores import Backend, backend, end, leased, note, store

__all__ = ["backend", "store"]

PENDING, SENDING, SENT = OutboxState.PENDING, OutboxState.SENDING, OutboxState.SENT
STREAMING, AMBIGUOUS = OutboxState.STREAMING, OutboxState.AMBIGUOUS
FAILED, DROPPED = OutboxState.FAILED, OutboxState.DROPPED
SAID, REPLY = OutgoingKind.SAID, OutgoingKind.REPLY

# -- what was shown before a question --------------------------------------------------------------


def test_what_was_shown_before_a_question_stays_above_it_and_the_reply_comes_below(
    backend: Backend,
) -> None:
    store = backend.open()
    lease = spoken_to(store)
    first, second, third = (reply_id(lease.turn_id, number) for number in (1, 2, 3))
    streaming(store, lease.turn_id, "1.1")
    ask(store, lease, said="I need to look. May I?")
    said = found(store, first)
    assert (said.kind, said.text, said.receipts) == (SAID, "I need to look. May I?", ("1.1",))
    assert due(store) == [first], "the question comes below all of it"
    sent(store, first)
    assert due(store) == ["a1"]
    decide(store, lease)
    assert store.outgoing.reply(lease.turn_id) is None
    assert streaming(store, lease.turn_id, "1.3").id == second
    ask(store, lease, "a2", said="And there?")
    store = backend.reopen()
    answer(store, lease)
    reply = store.outgoing.reply(lease.turn_id)
    assert reply is not None
    assert (reply.id, reply.kind, reply.text, reply.receipts) == (third, REPLY, "Fine.", ())
    end(store, lease)
    assert [(found(store, id_).kind, found(store, id_).text) for id_ in (first, second, third)] == [
        (SAID, "I need to look. May I?"),
        (SAID, "And there?"),
        (REPLY, "Fine."),
    ]


def test_a_question_waits_for_what_may_have_been_shown_before_it(backend: Backend) -> None:
    store = backend.open()
    lease = spoken_to(store)
    streaming(store, lease.turn_id)
    ask(store, lease, said="May I?")
    store = backend.reopen()
    (cut,) = store.outgoing.unsettled(SLACK)
    assert (str(cut.id), cut.state, cut.kind) == (lease.turn_id, SENDING, SAID)
    assert due(store) == []
    store.outgoing.put_off(cut, 50.0, "", 50.0)
    assert due(store, 50.0) == [lease.turn_id]


def test_a_reply_in_the_making_is_not_shown_before_what_waits_in_its_conversation(
    store: Store,
) -> None:
    lease = spoken_to(store)
    store.outgoing.put([notice("n1")], 10.0)
    assert store.outgoing.stream(lease.turn_id, 15.0) is None
    begun(store, "n1")
    assert store.outgoing.stream(lease.turn_id, 15.0) is None
    store.outgoing.settle(found(store, "n1"), AMBIGUOUS, "Nobody knows.", 16.0)
    assert streaming(store, lease.turn_id).state is STREAMING


def test_what_is_shown_while_a_question_is_asked_keeps_its_identity(store: Store) -> None:
    lease = spoken_to(store)
    shown = streaming(store, lease.turn_id)
    ask(store, lease, said="May I?")
    store.outgoing.record(shown, ("1.1",), 21.0)
    (said,) = store.outgoing.due(SLACK, 21.0, 9)
    assert (str(said.id), said.text, said.receipts) == (lease.turn_id, "May I?", ("1.1",))


def test_where_nothing_was_shown_before_a_question_nothing_is_said_but_the_question(
    store: Store,
) -> None:
    lease = spoken_to(store)
    ask(store, lease, said="May I?")
    assert [each.kind for each in store.outgoing.messages((), 9)] == [OutgoingKind.QUESTION]
    answer(store, lease)
    assert found(store, lease.turn_id).kind is REPLY


def test_what_was_cut_stays_as_it_is_above_a_park(store: Store) -> None:
    lease = spoken_to(store)
    streaming(store, lease.turn_id, "1.1")
    parked = (note(EventType.TURN_PARKED, reason="request"),)
    store.commit(Change(lease, parked, TurnState.PARKED, ParkReason.REQUEST), 20.0)
    with pytest.raises(ConflictError):
        store.outgoing.stream(lease.turn_id, 21.0)
    (notice_,) = store.outgoing.due(SLACK, 21.0, 9)
    assert notice_.kind is OutgoingKind.NOTICE
    cancel(store, lease)
    assert (found(store, lease.turn_id).kind, state(store, lease.turn_id)) == (SAID, SENT)
    assert found(store, reply_id(lease.turn_id, 2)).text == "Cancelled."


# -- questions and notices -------------------------------------------------------------------------


def test_a_question_is_shown_and_then_what_became_of_it(store: Store) -> None:
    lease = spoken_to(store)
    ask(store, lease)
    (question,) = store.outgoing.due(SLACK, 20.0, 9)
    assert (question.id, question.kind, question.text) == ("a1", OutgoingKind.QUESTION, "May I?")
    assert question.turn_id == lease.turn_id
    sent(store, "a1", "2.2")
    decide(store, lease)
    (answered,) = store.outgoing.due(SLACK, 30.0, 9)
    assert answered.text == "May I?\n\nGranted by uid 1000."
    assert (answered.version, answered.receipts) == (2, ("2.2",))


def test_a_question_that_was_decided_before_it_was_asked_is_not_asked(store: Store) -> None:
    lease = spoken_to(store)
    ask(store, lease)
    decide(store, lease)
    assert (state(store, "a1"), due(store)) == (DROPPED, [])


def test_a_question_that_is_decided_while_it_is_sent_is_shown_as_decided(store: Store) -> None:
    lease = spoken_to(store)
    ask(store, lease)
    asked = begun(store, "a1")
    decide(store, lease)
    assert state(store, "a1") is SENDING
    assert store.outgoing.sent(asked, ("2.2",), 42.0) is PENDING
    assert due(store, 42.0) == ["a1"]


@pytest.mark.parametrize("how", ["put_off", "failed"])
def test_a_question_that_was_decided_and_never_arrived_is_given_up(store: Store, how: str) -> None:
    lease = spoken_to(store)
    ask(store, lease)
    asked = begun(store, "a1")
    decide(store, lease)
    if how == "put_off":
        store.outgoing.put_off(asked, 50.0, "Slack is busy.", 42.0)
    else:
        store.outgoing.settle(asked, FAILED, "There is no such channel.", 42.0)
    assert (state(store, "a1"), due(store)) == (DROPPED, [])


def test_a_question_is_put_behind_no_reply_that_streams(store: Store) -> None:
    lease = spoken_to(store)
    streaming(store, lease.turn_id, "1.1")
    ask(store, lease)
    assert due(store) == ["a1"]


def test_a_question_of_the_api_goes_through_no_channel(store: Store) -> None:
    lease = leased(store)
    ask(store, lease)
    decide(store, lease)
    assert store.outgoing.messages((), 9) == ()
