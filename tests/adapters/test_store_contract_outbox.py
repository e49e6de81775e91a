"""What the ``Outbox`` port promises of the messages that go out: shown once, with the newest text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netclawd.core import conversations
from netclawd.core.outgoing import OutgoingId, OutgoingKind
from netclawd.core.session import (
    API,
    Change,
    EventType,
    NewEvent,
    OutboxChange,
    OutboxState,
    ParkReason,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.values import replace
from netclawd.errors import ConflictError, NotFoundError
from netclawd.ports import Store
from tests.adapters.channel_stores import (
    ROUTE,
    SLACK,
    answer,
    begun,
    cancel,
    due,
    found,
    message,
    notice,
    receive,
    sent,
    spoken_to,
    state,
    streaming,
)
from tests.adapters.stores import A, Backend, all_events, backend, end, leased, note, store

__all__ = ["backend", "store"]

PENDING, SENDING, SENT = OutboxState.PENDING, OutboxState.SENDING, OutboxState.SENT
STREAMING, AMBIGUOUS = OutboxState.STREAMING, OutboxState.AMBIGUOUS
FAILED, DROPPED = OutboxState.FAILED, OutboxState.DROPPED
SAID, REPLY = OutgoingKind.SAID, OutgoingKind.REPLY

# -- replies ---------------------------------------------------------------------------------------


def test_a_reply_is_in_the_outbox_with_the_commit_that_makes_it(backend: Backend) -> None:
    store = backend.open()
    lease = spoken_to(store)
    answer(store, lease, "Fine \ud83d.")
    (reply,) = backend.reopen().outgoing.due(SLACK, 20.0, 9)
    assert (str(reply.id), reply.kind) == (lease.turn_id, OutgoingKind.REPLY)
    assert reply.turn_id == lease.turn_id
    assert (reply.route, reply.requester, reply.session_id) == (ROUTE, "U1", lease.session_id)
    assert (reply.text, reply.version, reply.receipts) == ("Fine \ud83d.", 1, ())


def test_a_reply_of_the_api_goes_through_no_channel(store: Store) -> None:
    lease = leased(store)
    answer(store, lease)
    assert store.outgoing.messages((), 9) == ()
    assert [each.turn_id for each in store.outbox()] == [lease.turn_id]
    with pytest.raises(ConflictError):
        store.outgoing.stream(lease.turn_id, 20.0)


def test_a_reply_of_a_channel_is_moved_by_its_courier_alone(store: Store) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    with pytest.raises(ConflictError):
        store.commit(Change(lease, (note(),), outbox=OutboxChange(SENDING)), 21.0)
    assert state(store, lease.turn_id) is PENDING
    assert store.outbox() == ()


def test_a_refused_checkpoint_puts_nothing_into_the_outbox(store: Store) -> None:
    lease = spoken_to(store)
    pending = OutboxChange(PENDING, "Fine.")
    refused = Change(lease, (note(),), outbox=pending, park_reason=ParkReason.REQUEST)
    with pytest.raises(ConflictError):
        store.commit(refused, 20.0)
    assert due(store) == []


def test_the_life_of_a_reply(store: Store) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    (reply,) = store.outgoing.due(SLACK, 30.0, 9)
    assert store.outgoing.begin(reply, 30.0)
    assert not store.outgoing.begin(reply, 30.0), "it is under way"
    assert due(store) == []
    assert [each.turn_id for each in store.outgoing.unsettled(SLACK)] == [lease.turn_id]
    store.outgoing.record(reply, ("1.1",), 31.0)
    assert (state(store, lease.turn_id), found(store, lease.turn_id).receipts) == (
        SENDING,
        ("1.1",),
    )
    assert store.outgoing.sent(reply, ("1.1", "1.2"), 32.0) is SENT
    there = found(store, lease.turn_id)
    assert (there.state, there.receipts, there.changed_at) == (SENT, ("1.1", "1.2"), 32.0)
    assert store.outgoing.unsettled(SLACK) == ()


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (note(EventType.TURN_CANCELLED, by="uid 0"), "Cancelled."),
        (note(EventType.TURN_FAILED, reason="It is busy.", remedy="Try again."),
         "I couldn't answer: It is busy. Try again."),
        (note(EventType.TURN_FAILED, slug="x", reason="It is busy."), "I couldn't answer: It is busy."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shown", [(), ("1.1",)])
def test_a_turn_that_ends_without_a_reply_says_so_in_its_place(
    store: Store, event: NewEvent, said: str, shown: tuple[str, ...]
) -> None:
    lease = spoken_to(store)
    if shown:
        streaming(store, lease.turn_id, *shown)
    state_ = TurnState(event.type.value.removeprefix("turn."))
    store.commit(Change(lease, (event,), state_), 30.0)
    (reply,) = store.outgoing.due(SLACK, 30.0, 9)
    assert (str(reply.id), reply.text, reply.receipts) == (lease.turn_id, said, shown)
    assert (reply.kind, reply.requester) == (OutgoingKind.REPLY, "U1")


@pytest.mark.parametrize("reason", list(ParkReason))
def test_a_turn_that_is_parked_for_somebody_elsewhere_says_so(
    store: Store, reason: ParkReason
) -> None:
    lease = spoken_to(store)
    for n in (1, 2):
        parked = (note(EventType.TURN_PARKED, reason=reason.value),)
        store.commit_all([Change(lease, parked, TurnState.PARKED, reason)], 20.0 + n)
    said = [each.text for each in store.outgoing.messages((), 9)]
    if reason is ParkReason.APPROVAL:
        assert said == [], "its question says it"
    else:
        assert said == [conversations.PARKED[reason]] * 2, "each time that it is"
        assert {each.kind for each in store.outgoing.messages((), 9)} == {OutgoingKind.NOTICE}


def test_a_turn_of_the_api_says_nothing_in_a_channel(store: Store) -> None:
    lease = leased(store)
    parked = (note(EventType.TURN_PARKED, reason="request"),)
    store.commit(Change(lease, parked, TurnState.PARKED, ParkReason.REQUEST), 20.0)
    cancel(store, lease)
    assert (store.outgoing.messages((), 9), store.outbox()) == ((), ())


@pytest.mark.parametrize(
    ("before", "after"),
    [(PENDING, PENDING), (SENDING, SENDING), (SENT, PENDING), (AMBIGUOUS, AMBIGUOUS),
     (FAILED, PENDING), (DROPPED, DROPPED)],
)  # fmt: skip
def test_a_reply_that_is_taken_back_is_shown_anew_where_that_may_be(
    store: Store, before: OutboxState, after: OutboxState
) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    put_into(store, lease.turn_id, before)
    cancel(store, lease)
    there = found(store, lease.turn_id)
    assert (there.state, there.text, there.version) == (after, "Cancelled.", 2)


def put_into(store: Store, id_: str, wanted: OutboxState) -> None:
    if wanted is PENDING:
        return
    sending = begun(store, id_)
    if wanted is SENT:
        store.outgoing.sent(sending, ("1.1",), 25.0)
    elif wanted is not SENDING:
        store.outgoing.settle(sending, wanted, "Why.", 25.0)


def test_what_was_begun_with_an_older_text_is_shown_once_more(store: Store) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    old = begun(store, lease.turn_id)
    cancel(store, lease)
    assert store.outgoing.sent(old, ("1.1",), 42.0) is PENDING
    (again,) = store.outgoing.due(SLACK, 42.0, 9)
    assert (again.text, again.receipts) == ("Cancelled.", ("1.1",))
    assert not store.outgoing.begin(old, 43.0), "that text is out of date"
    assert store.outgoing.begin(again, 43.0)


def test_a_failure_of_an_older_text_is_none_of_the_newer_one(store: Store) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    old = begun(store, lease.turn_id)
    cancel(store, lease)
    store.outgoing.settle(old, FAILED, "It is too long.", 42.0)
    assert due(store, 42.0) == [lease.turn_id]


# -- replies that are being made -------------------------------------------------------------------


def test_a_reply_in_the_making_is_streaming_before_anything_is_posted(backend: Backend) -> None:
    store = backend.open()
    lease = spoken_to(store)
    shown = streaming(store, lease.turn_id)
    assert (shown.state, shown.version, shown.kind) == (STREAMING, 0, OutgoingKind.REPLY)
    (cut,) = backend.reopen().outgoing.unsettled(SLACK)
    assert cut == shown


def test_a_reply_in_the_making_is_edited_by_the_whole_one(store: Store) -> None:
    lease = spoken_to(store)
    streaming(store, lease.turn_id, "1.1")
    assert streaming(store, lease.turn_id).receipts == ("1.1",)
    answer(store, lease)
    (reply,) = store.outgoing.due(SLACK, 20.0, 9)
    assert (reply.text, reply.version, reply.receipts) == ("Fine.", 1, ("1.1",))
    with pytest.raises(ConflictError):
        store.outgoing.stream(lease.turn_id, 21.0)


def test_a_whole_reply_is_not_posted_beside_its_first_part_that_is_under_way(store: Store) -> None:
    lease = spoken_to(store)
    shown = streaming(store, lease.turn_id)
    answer(store, lease)
    assert (state(store, lease.turn_id), due(store)) == (SENDING, [])
    store.outgoing.record(shown, ("1.1",), 21.0)
    (reply,) = store.outgoing.due(SLACK, 21.0, 9)
    assert (reply.text, reply.receipts) == ("Fine.", ("1.1",))


def test_a_whole_reply_waits_for_a_look_when_its_first_part_was_cut(backend: Backend) -> None:
    store = backend.open()
    lease = spoken_to(store)
    streaming(store, lease.turn_id)
    answer(store, lease)
    store = backend.reopen()
    (cut,) = store.outgoing.unsettled(SLACK)
    assert (cut.state, cut.text, due(store)) == (SENDING, "Fine.", [])
    store.outgoing.put_off(cut, 50.0, "", 50.0)
    assert due(store, 50.0) == [lease.turn_id]


def test_a_first_part_that_was_refused_leaves_nothing_to_look_for(store: Store) -> None:
    lease = spoken_to(store)
    store.outgoing.put_off(streaming(store, lease.turn_id), 60.0, "Slack is busy.", 16.0)
    assert store.outgoing.unsettled(SLACK) == ()
    answer(store, lease)
    assert due(store, 20.0) == [lease.turn_id]


def test_a_first_part_that_is_refused_after_the_whole_reply_came_is_not_looked_for(
    store: Store,
) -> None:
    lease = spoken_to(store)
    shown = streaming(store, lease.turn_id)
    answer(store, lease)
    store.outgoing.put_off(shown, 60.0, "Slack is busy.", 21.0)
    assert (due(store, 59.0), due(store, 60.0)) == ([], [lease.turn_id])


def test_an_edit_that_is_refused_leaves_the_reply_streaming(store: Store) -> None:
    lease = spoken_to(store)
    shown = streaming(store, lease.turn_id, "1.1")
    store.outgoing.put_off(shown, 60.0, "Slack is busy.", 16.0)
    assert state(store, lease.turn_id) is STREAMING
    answer(store, lease)
    assert due(store, 20.0) == [lease.turn_id]


def test_no_reply_streams_once_its_turn_has_ended(store: Store) -> None:
    lease = spoken_to(store)
    streaming(store, lease.turn_id, "1.1")
    end(store, lease)
    assert state(store, lease.turn_id) is DROPPED
    other = spoken_to(store)
    end(store, other)
    with pytest.raises(ConflictError):
        store.outgoing.stream(other.turn_id, 40.0)
    with pytest.raises(NotFoundError):
        store.outgoing.stream(TurnId("t-none"), 40.0)


def test_a_reply_that_could_not_be_sent_is_not_dropped_by_the_end_of_its_turn(store: Store) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    store.outgoing.settle(begun(store, lease.turn_id), FAILED, "There is no such channel.", 25.0)
    assert found(store, lease.turn_id).attempts == 1
    end(store, lease)
    assert state(store, lease.turn_id) is FAILED


# -- when each is due ------------------------------------------------------------------------------


def test_a_conversation_gets_its_messages_one_after_the_other(store: Store) -> None:
    store.outgoing.put([notice("n1"), notice("n2"), notice("m1", route="T1/C2/1.1")], 10.0)
    assert due(store) == ["n1", "m1"]
    one = begun(store, "n1")
    assert due(store) == ["m1"], "what is under way goes before"
    store.outgoing.put_off(one, 60.0, "Slack is busy.", 42.0)
    assert due(store, 59.0) == ["m1"]
    sent(store, "n1")
    assert due(store) == ["n2", "m1"]


@pytest.mark.parametrize("end_", [AMBIGUOUS, FAILED, DROPPED])
def test_what_waits_for_a_person_holds_nothing_up(store: Store, end_: OutboxState) -> None:
    store.outgoing.put([notice("n1"), notice("n2")], 10.0)
    store.outgoing.settle(begun(store, "n1"), end_, "Why.", 41.0)
    assert (found(store, "n1").error, due(store)) == ("Why.", ["n2"])


def test_a_message_that_is_put_off_is_due_later(store: Store) -> None:
    store.outgoing.put([notice("n1"), notice("n2")], 10.0)
    store.outgoing.put_off(begun(store, "n1"), 60.0, "Slack is busy.", 42.0)
    there = found(store, "n1")
    assert (there.state, there.attempts, there.error) == (PENDING, 1, "Slack is busy.")
    assert store.outgoing.next_due(SLACK) == 60.0, "n2 comes behind it"
    assert (due(store, 59.9), due(store, 60.0)) == ([], ["n1"])
    assert found(store, "n1").at == 10.0


def test_without_anything_to_send_nothing_is_due(store: Store) -> None:
    assert store.outgoing.next_due(SLACK) is None
    store.outgoing.put([notice("n1"), notice("n2")], 10.0)
    assert store.outgoing.next_due(SLACK) == 10.0
    begun(store, "n1")
    assert store.outgoing.next_due(SLACK) is None, "what waits behind it is not due"
    assert store.outgoing.next_due("other") is None


def test_what_is_due_is_the_oldest_first_and_bounded(store: Store) -> None:
    store.outgoing.put([notice(f"n{n}", route=f"T1/C1/{9 - n}") for n in range(5)], 10.0)
    assert [each.id for each in store.outgoing.due(SLACK, 10.0, 3)] == ["n0", "n1", "n2"]
    assert store.outgoing.due("other", 10.0, 3) == ()


def test_a_notice_that_is_out_of_date_is_not_sent(store: Store) -> None:
    store.outgoing.put([replace(notice("n1"), expires_at=50.0)], 10.0)
    (late,) = store.outgoing.due(SLACK, 50.0, 9)
    assert not store.outgoing.begin(late, 50.0)
    assert (state(store, "n1"), due(store)) == (DROPPED, [])
    store.outgoing.put([replace(notice("n2"), expires_at=50.0)], 10.0)
    assert store.outgoing.begin(found(store, "n2"), 49.9)


# -- what operators do -----------------------------------------------------------------------------


def everything(store: Store) -> dict[OutboxState, OutgoingId]:
    """Put a message into each state; return their ids."""
    lease = spoken_to(store)
    ids = {each: OutgoingId(f"n-{each.value}") for each in OutboxState}
    store.outgoing.put([notice(id_, route=id_) for id_ in ids.values()], 10.0)
    for wanted, id_ in ids.items():
        if wanted is not STREAMING:
            put_into(store, id_, wanted)
    store.outgoing.settle(found(store, ids[STREAMING]), DROPPED, "", 25.0)
    streaming(store, lease.turn_id)
    return {**ids, STREAMING: OutgoingId(lease.turn_id)}


def test_messages_are_found_by_their_states(store: Store) -> None:
    ids = everything(store)
    for wanted, id_ in ids.items():
        assert id_ in [each.id for each in store.outgoing.messages([wanted], 9)]
        assert {each.state for each in store.outgoing.messages([wanted], 9)} == {wanted}
    both = store.outgoing.messages([PENDING, SENT, PENDING], 9)
    assert [each.id for each in both] == [ids[PENDING], ids[SENT]], "the oldest first, each once"
    assert len(store.outgoing.messages((), 100)) == 8
    assert [each.id for each in store.outgoing.messages((), 1)] == [ids[STREAMING]], "the newest"
    assert [each.id for each in store.outgoing.messages([PENDING, SENT], 1)] == [ids[SENT]]
    with pytest.raises(NotFoundError, match="no message n-none"):
        store.outgoing.message(OutgoingId("n-none"))


def test_what_a_person_may_try_again(store: Store) -> None:
    for before, id_ in everything(store).items():
        if before in (AMBIGUOUS, FAILED, PENDING):
            again = store.outgoing.retry(id_, 70.0)
            assert (again.state, again.due_at, again.error) == (PENDING, 70.0, "")
        else:
            with pytest.raises(ConflictError, match=before.value):
                store.outgoing.retry(id_, 70.0)
    with pytest.raises(NotFoundError):
        store.outgoing.retry(OutgoingId("n-none"), 70.0)


def test_what_a_person_may_drop(store: Store) -> None:
    for before, id_ in everything(store).items():
        if before in (SENT, SENDING):
            with pytest.raises(ConflictError, match="sent"):
                store.outgoing.drop(id_, 70.0)
        else:
            assert store.outgoing.drop(id_, 70.0).state is DROPPED
    with pytest.raises(NotFoundError):
        store.outgoing.drop(OutgoingId("n-none"), 70.0)


def test_a_notice_that_a_person_tries_again_is_never_out_of_date(store: Store) -> None:
    store.outgoing.put([replace(notice("n1"), expires_at=50.0)], 10.0)
    store.outgoing.settle(begun(store, "n1"), FAILED, "Why.", 41.0)
    assert store.outgoing.begin(store.outgoing.retry(OutgoingId("n1"), 70.0), 71.0)


def test_a_reply_that_has_no_text_yet_is_not_tried_again(store: Store) -> None:
    lease = spoken_to(store)
    store.outgoing.settle(streaming(store, lease.turn_id), AMBIGUOUS, "Why.", 20.0)
    with pytest.raises(ConflictError, match="not made yet"):
        store.outgoing.retry(OutgoingId(lease.turn_id), 21.0)
    answer(store, lease)
    assert store.outgoing.retry(OutgoingId(lease.turn_id), 22.0).text == "Fine."


def test_what_was_dropped_stays_so(store: Store) -> None:
    store.outgoing.put([notice("n1")], 10.0)
    one = found(store, "n1")
    store.outgoing.drop(one.id, 11.0)
    late: list[Callable[[], object]] = [
        lambda: store.outgoing.begin(one, 12.0),
        lambda: store.outgoing.put_off(one, 12.0, "Slack is busy.", 12.0),
        lambda: store.outgoing.settle(one, FAILED, "Why.", 12.0),
        lambda: store.outgoing.put([notice("n1")], 12.0),
    ]
    for act in late:
        act()
        assert state(store, "n1") is DROPPED


def test_the_census_counts_what_is_not_sent_whatever_its_channel(store: Store) -> None:
    everything(store)
    answer(store, leased(store))
    assert store.census().outbox == {
        "pending": 2,
        "sending": 1,
        "streaming": 1,
        "ambiguous": 1,
        "failed": 1,
    }
    assert SENT not in store.outgoing.tally()[SLACK].messages


def test_a_channel_adds_nothing_to_the_events_but_what_is_said(store: Store) -> None:
    lease = spoken_to(store)
    answer(store, lease)
    sent(store, lease.turn_id)
    kinds = [event.type for event in all_events(store, lease.session_id)]
    assert kinds == [EventType.INPUT_ADMITTED, EventType.MODEL_COMPLETED]


def test_a_session_that_has_no_place_in_its_channel_is_told_of(store: Store) -> None:
    store.create_session(SessionId("s-x"), 1.0, SLACK)
    lease = leased(store, SessionId("s-x"))
    answer(store, lease)
    assert found(store, lease.turn_id).route == ""
    assert (store.session(A).id, store.session(A).channel) == (A, API)
    assert receive(store, message()).session_id != "s-x"
