"""What the tests of the store's outbox share: a session of a channel, and short ways to its messages."""

from __future__ import annotations

import itertools

from netclawd.core.outgoing import (
    NewOutgoing,
    Outgoing,
    OutgoingId,
    OutgoingKind,
    Received,
    Reception,
)
from netclawd.core.session import (
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    CallId,
    Change,
    EventType,
    Lease,
    OutboxChange,
    OutboxState,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.values import replace
from netclawd.ports import Store
from tests.adapters.stores import an_input, generations, note

SLACK = "slack"
ROUTE = "T1/C1/17.1"
_numbers = itertools.count(1)


def message(
    event: str = "E1", message_id: str | None = "m1", text: str = "hello", **more: object
) -> Received:
    """Return a message of Ann in the one conversation."""
    new = replace(
        an_input(SessionId(f"s-{next(_numbers)}"), text, message_id), origin={"user": "U1"}
    )
    return Received(SLACK, event, ROUTE, replace(new, **more))


def notice(id_: str = "notice:1", text: str = "Restarting.", route: str = ROUTE) -> NewOutgoing:
    return NewOutgoing(OutgoingId(id_), SLACK, route, OutgoingKind.NOTICE, text)


def receive(store: Store, received: Received, at: float = 10.0) -> Reception:
    return store.outgoing.receive(received, at)


def spoken_to(store: Store, event: str | None = None) -> Lease:
    """Receive a message in the one conversation and lease its turn."""
    event = event or f"E-{next(_numbers)}"
    admitted = receive(store, message(event, event)).admitted
    assert admitted is not None
    if not generations.get(store):
        generations[store] = store.begin_generation(5.0, None)
    return store.lease(admitted.turn_id, generations[store])


def answer(store: Store, lease: Lease, text: str = "Fine.", at: float = 20.0) -> None:
    """Commit the model's last reply of a turn, and what goes out with it."""
    pending = OutboxChange(OutboxState.PENDING, text)
    store.commit(Change(lease, (note(EventType.MODEL_COMPLETED),), outbox=pending), at)


def cancel(store: Store, lease: Lease, at: float = 30.0) -> None:
    store.commit(Change(lease, (note(EventType.TURN_CANCELLED),), TurnState.CANCELLED), at)


def ask(store: Store, lease: Lease, id_: str = "a1", at: float = 20.0, said: str = "") -> None:
    asked = ApprovalChange(
        ApprovalId(id_), ApprovalState.PENDING, "May I?", CallId(f"c-{id_}"), "run"
    )
    event = note(EventType.APPROVAL_REQUESTED)
    store.commit(Change(lease, (event,), approvals=(asked,), said=said), at)


def decide(store: Store, lease: Lease, id_: str = "a1", at: float = 30.0) -> None:
    decided = ApprovalChange(ApprovalId(id_), ApprovalState.GRANTED, decided_by="uid 1000")
    store.commit(Change(lease, (note(EventType.APPROVAL_GRANTED),), approvals=(decided,)), at)


def due(store: Store, at: float = 100.0) -> list[str]:
    """Return the ids of what is due."""
    return [each.id for each in store.outgoing.due(SLACK, at, 100)]


def found(store: Store, id_: str) -> Outgoing:
    return store.outgoing.message(OutgoingId(id_))


def state(store: Store, id_: str) -> OutboxState:
    return found(store, id_).state


def begun(store: Store, id_: str, at: float = 40.0) -> Outgoing:
    """Begin to send a message; return it as the courier has it."""
    pending = found(store, id_)
    assert store.outgoing.begin(pending, at)
    return replace(pending, state=OutboxState.SENDING)


def sent(store: Store, id_: str, *receipts: str) -> Outgoing:
    message_ = begun(store, id_)
    store.outgoing.sent(message_, receipts or ("1.1",), 41.0)
    return found(store, id_)


def streaming(store: Store, turn_id: TurnId, *receipts: str, at: float = 15.0) -> Outgoing:
    """Show a reply that is being made; with a receipt its first part has arrived."""
    shown = store.outgoing.stream(turn_id, at)
    assert shown is not None
    if receipts:
        store.outgoing.record(shown, receipts, at)
    return shown
