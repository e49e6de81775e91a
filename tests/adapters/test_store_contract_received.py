"""What the ``Outbox`` port promises of what channels receive: once for each event and message, or not at
all."""

from __future__ import annotations

import pytest

from netclawd.core.budgets import EVENT_MEMORY_S
from netclawd.core.outgoing import ChannelCounts, Received
from netclawd.core.session import API, EventType, InputId, SessionId, TurnId
from netclawd.core.values import replace
from netclawd.errors import NetclawError, StoreClosedError
from netclawd.ports import Store
from tests.adapters.channel_stores import (
    ROUTE,
    SLACK,
    answer,
    due,
    message,
    notice,
    receive,
    spoken_to,
)
from tests.adapters.stores import (
    A,
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


def test_a_first_message_opens_its_conversation_and_is_admitted(store: Store) -> None:
    got = receive(store, message())
    assert got.admitted is not None
    assert (got.repeat, got.admitted.fresh) == (False, True)
    assert got.session_id is not None
    session = store.session(got.session_id)
    assert (session.channel, session.alias, session.created_at) == (SLACK, ROUTE, 10.0)
    turn = store.turn(got.admitted.turn_id)
    assert (turn.channel, turn.origin, turn.session_id) == (SLACK, {"user": "U1"}, session.id)
    (event,) = all_events(store, session.id)
    assert event.type is EventType.INPUT_ADMITTED
    assert (event.data["text"], event.data["from"]) == ("hello", "U1")
    assert store.outgoing.session_of(SLACK, ROUTE) == session.id


def test_an_input_of_the_api_says_nothing_of_its_origin(store: Store) -> None:
    turn = store.turn(admit(store))
    assert (turn.channel, turn.origin) == (API, {})
    assert "from" not in all_events(store)[0].data


def test_a_conversation_keeps_its_session(backend: Backend) -> None:
    store = backend.open()
    first = receive(store, message("E1", "m1"))
    second = receive(backend.reopen(), message("E2", "m2"))
    assert second.session_id == first.session_id
    assert second.admitted is not None
    assert second.admitted.fresh


def test_an_event_that_is_delivered_again_writes_nothing(backend: Backend) -> None:
    store = backend.open()
    first = receive(store, message())
    store = backend.reopen()
    commits = store.counters()["commits"]
    again = receive(store, replace(message(), messages=(notice(),)), 10.0 + EVENT_MEMORY_S)
    assert (again.repeat, again.admitted, again.session_id) == (True, None, first.session_id)
    assert store.counters()["commits"] == commits
    assert due(store) == []


def test_an_event_is_one_of_its_channel(store: Store) -> None:
    receive(store, message())
    other = replace(message(), channel="other")
    assert receive(store, other).repeat is False


def test_two_events_of_one_message_are_one_input_whatever_they_call_its_text(store: Store) -> None:
    first = receive(store, message("E1", "m1", "<@U0> hello"))
    again = receive(store, replace(message("E2", "m1", "hello"), messages=(notice("notice:late"),)))
    assert (again.repeat, again.session_id) == (False, first.session_id)
    assert again.admitted == replace(first.admitted, fresh=False)
    assert due(store) == [], "all was said with the first event"
    assert len(store.open_turns()) == 1


def test_an_event_is_forgotten_after_a_day_and_its_message_never(store: Store) -> None:
    first = receive(store, message(), 10.0)
    later = receive(store, message(), 11.0 + EVENT_MEMORY_S)
    assert (later.repeat, later.admitted) == (False, replace(first.admitted, fresh=False))


def test_a_message_that_was_turned_away_is_not_admitted_under_its_other_event(store: Store) -> None:
    away = Received(SLACK, "E1", ROUTE, messages=(notice(),), turned_away="m1")
    assert receive(store, away).admitted is None
    assert receive(store, message("E2", "m1")).repeat
    assert store.open_turns() == ()
    assert due(store) == ["notice:1"]
    elsewhere = replace(message("E3", "m1"), route="T1/C2/17.1")
    assert not receive(store, elsewhere).repeat, "ids of messages are those of their conversation"


def test_a_message_that_was_admitted_is_not_turned_away_under_its_other_event(store: Store) -> None:
    first = receive(store, message("E1", "m1"))
    away = Received(SLACK, "E2", ROUTE, messages=(notice(),), turned_away="m1")
    assert receive(store, away).admitted == replace(first.admitted, fresh=False)
    assert due(store) == []


def test_messages_go_into_the_outbox_with_what_was_received(store: Store) -> None:
    got = receive(store, replace(message(deferred=True), messages=(notice(),)))
    (waiting,) = store.outgoing.due(SLACK, 11.0, 9)
    assert (waiting.id, waiting.session_id, waiting.text) == (
        "notice:1",
        got.session_id,
        "Restarting.",
    )
    receive(store, replace(message("E2", "m2"), messages=(notice(text="Once more."),)))
    assert [each.text for each in store.outgoing.due(SLACK, 11.0, 9)] == ["Restarting."]


def test_a_refusal_opens_no_conversation(store: Store) -> None:
    got = receive(store, Received(SLACK, "E1", ROUTE, messages=(notice("refusal:U9"),)))
    assert (got.session_id, got.admitted) == (None, None)
    assert store.outgoing.session_of(SLACK, ROUTE) is None
    (waiting,) = store.outgoing.due(SLACK, 11.0, 9)
    assert (waiting.session_id, waiting.route) == (None, ROUTE)


def test_what_fails_half_way_is_not_remembered(store: Store) -> None:
    taken = replace(message(), input=replace(an_input(A, "hello", "m1"), turn_id=admit(store)))
    with pytest.raises(NetclawError):
        receive(store, replace(taken, messages=(notice(),)))
    assert store.outgoing.session_of(SLACK, ROUTE) is None
    assert due(store) == []
    assert receive(store, message()).repeat is False


def test_what_comes_while_the_store_is_closed_is_taken_when_it_is_delivered_again(
    backend: Backend,
) -> None:
    store = backend.open()
    store.close()
    with pytest.raises(StoreClosedError):
        receive(store, message())
    assert receive(backend.reopen(), message()).repeat is False


def test_of_many_deliveries_at_once_one_is_the_first(store: Store) -> None:
    got = at_once(lambda _: receive(store, message("E1", "m1")), range(8))
    assert sorted(each.repeat for each in got) == [False] + [True] * 7
    assert len(store.open_turns()) == 1


def test_of_many_events_of_one_conversation_all_get_one_session(store: Store) -> None:
    got = at_once(lambda n: receive(store, message(f"E{n}", f"m{n}")), range(8))
    assert len({each.session_id for each in got}) == 1
    assert len(store.open_turns()) == 8


def test_text_that_is_no_text_is_no_reason_to_be_delivered_again_for_ever(store: Store) -> None:
    got = receive(store, message(text="half \ud83d of it"))
    assert got.admitted is not None
    (event,) = store.turn_events(got.admitted.turn_id)
    assert event.data["text"] == "half ? of it"


def test_the_counts_of_a_channel_tell_what_waits(store: Store) -> None:
    lease = spoken_to(store)
    receive(store, message("E1", "m1", deferred=True))
    receive(store, replace(message("E2", "m2"), channel="other"))
    admit(store)
    answer(store, lease)
    counts = store.outgoing.tally()[SLACK]
    assert counts.deferred == 2, "the one that is leased and not begun, and the deferred one"
    assert counts.messages == {"pending": 1}
    assert store.outgoing.tally()["other"] == ChannelCounts(1)
    assert store.outgoing.tally().keys() == {SLACK, "other"}, "the API is no channel"


def test_a_thread_of_the_api_is_no_conversation_of_a_channel(store: Store) -> None:
    store.open_session(ROUTE, SessionId("s-api"), 1.0)
    got = receive(store, message())
    assert got.session_id != "s-api"


def test_an_id_that_is_taken_changes_nothing(store: Store) -> None:
    turn_id = admit(store)
    new = replace(an_input(SessionId("s-x"), "hello", "m1"), input_id=InputId("in-x"))
    bad = Received(SLACK, "E1", ROUTE, replace(new, turn_id=TurnId(turn_id)))
    assert isinstance(outcome(lambda: receive(store, bad)), NetclawError)
    assert len(store.open_turns()) == 1
