"""What the ``Store`` port promises about reading, the outbox, approvals, the journal and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from netclawd.core.restart import Outcome, RestartRecord
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
    ParkReason,
    RestartId,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.core.values import replace
from netclawd.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    StoreClosedError,
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
from tests.waiting import wait_for

__all__ = ["backend", "store"]

NOBODY, NO_TURN = SessionId("s-nobody"), TurnId("t-none")


# -- sessions and reading ----------------------------------------------------------------------


def test_a_session_tells_its_newest_event_and_its_turn_in_flight(store: Store) -> None:
    fresh = store.session(A)
    assert (fresh.created_at, fresh.channel, fresh.last_seq) == (1.0, "api", 0)
    assert fresh.turn_state is None
    lease = leased(store)
    store.commit(Change(lease, (note(),), TurnState.RUNNING), 1.0)
    assert store.session(A).last_seq == 2
    assert store.session(A).turn_state is TurnState.RUNNING
    admit(store)
    assert store.session(A).turn_state is TurnState.RUNNING
    store.commit(Change(lease, state=TurnState.PARKED, park_reason=ParkReason.REQUEST), 1.0)
    told = store.session(A)
    assert (told.turn_state, told.park_reason) == (TurnState.PARKED, ParkReason.REQUEST)
    end(store, lease)
    told = store.session(A)
    assert (told.turn_state, told.park_reason) == (TurnState.QUEUED, None)


def test_creating_a_session_twice_is_a_conflict(store: Store) -> None:
    made = store.create_session(SessionId("s-c"), 3.0, "slack")
    assert made == store.session(SessionId("s-c"))
    with pytest.raises(ConflictError):
        store.create_session(A, 3.0)


def test_what_does_not_exist_is_not_found(store: Store) -> None:
    questions: tuple[Callable[[], object], ...] = (
        lambda: store.session(NOBODY),
        lambda: store.events(NOBODY, 0, 10),
        lambda: store.turn(NO_TURN),
        lambda: store.turn_events(NO_TURN),
        lambda: store.conversation(A, NO_TURN),
        lambda: store.conversation(NOBODY, admit(store)),
        lambda: store.approval(ApprovalId("a-none")),
        lambda: store.lease(NO_TURN, store.begin_generation(1.0, None)),
        lambda: store.append(NOBODY, None, note(), 1.0),
        lambda: store.append(B, admit(store, A), note(), 1.0),
    )
    for question in questions:
        with pytest.raises(NotFoundError):
            question()
    assert store.restart(RestartId("r-none")) is None


def test_sessions_are_paged_newest_first(store: Store) -> None:
    made = [B, *(SessionId(f"s-{n}") for n in range(5))]
    for n, session_id in enumerate(made[1:]):
        store.create_session(session_id, 10.0 + n)
    newest_first = [*reversed(made), A]
    seen: list[SessionId] = []
    cursor, pages = None, 0
    while True:
        page = store.sessions(cursor, 3)
        seen += [session.id for session in page.sessions]
        pages += 1
        if page.next is None:
            break
        cursor = page.next
        # A session that is created meanwhile belongs before the first page and moves nothing.
        store.create_session(SessionId(f"s-late-{pages}"), 20.0)
    assert (seen, pages) == (newest_first, 3)


def test_a_page_that_ends_with_the_last_session_has_no_next(store: Store) -> None:
    assert store.sessions(None, 2).next is None
    assert store.sessions(None, 10**30).next is None


@pytest.mark.parametrize("cursor", ["", "s", "7", "sx", "s-1", "s" + "f" * 40, "ß", "s٣"])
def test_a_cursor_that_was_not_given_out_is_a_bad_request(store: Store, cursor: str) -> None:
    with pytest.raises(BadRequestError):
        store.sessions(cursor, 3)


def test_events_are_read_from_after_a_number_up_to_a_limit(store: Store) -> None:
    for n in range(6):
        store.append(A, None, note(EventType.CONFIG_OUTCOME, n=n), float(n))
    assert [e.seq for e in store.events(A, 2, 3)] == [3, 4, 5]
    assert [e.data["n"] for e in store.events(A, 4, 10)] == [4, 5]
    assert store.events(A, 6, 10) == store.events(A, 10**30, 10) == store.events(A, 0, 0) == ()
    assert len(store.events(A, -5, 10**30)) == 6


def test_the_events_of_a_turn_are_its_own(store: Store) -> None:
    lease = leased(store)
    other = admit(store)
    store.commit(Change(lease, (note(), note(EventType.MODEL_COMPLETED, text="ü"))), 2.0)
    assert [e.seq for e in store.turn_events(lease.turn_id)] == [1, 3, 4]
    assert [e.seq for e in store.turn_events(other)] == [2]


def test_a_conversation_is_the_completed_turns_before_one_turn_after_turn(store: Store) -> None:
    first, failed = leased(store, text="one"), leased(store, text="two")
    elsewhere = leased(store, B)
    third, now = leased(store, text="three"), leased(store, text="now")
    after = leased(store, text="after")
    for lease in (third, elsewhere, first, after):
        store.commit(Change(lease, (note(EventType.MODEL_COMPLETED),)), 3.0)
        end(store, lease)
    end(store, failed, TurnState.FAILED)
    told = store.conversation(A, now.turn_id)
    one_turn = [EventType.INPUT_ADMITTED, EventType.MODEL_COMPLETED, EventType.TURN_COMPLETED]
    assert [event.type for event in told] == one_turn * 2
    assert [event.turn_id for event in told] == [first.turn_id] * 3 + [third.turn_id] * 3


@pytest.mark.parametrize("state", [TurnState.FAILED, TurnState.CANCELLED])
def test_a_turn_without_a_reply_is_told_if_a_tool_was_started(
    store: Store, state: TurnState
) -> None:
    vain, done, now = (leased(store, text=text) for text in ("vain", "done", "now"))
    store.commit(Change(vain, (note(EventType.MODEL_COMPLETED),)), 3.0)
    store.commit(Change(done, (note(EventType.MODEL_COMPLETED),)), 3.0)
    store.commit(Change(done, (note(EventType.TOOL_STARTED),)), 3.0)
    assert store.conversation(A, now.turn_id) == (), "neither has ended"
    end(store, vain, state)
    end(store, done, state)
    assert {event.turn_id for event in store.conversation(A, now.turn_id)} == {done.turn_id}


@pytest.mark.parametrize(
    ("slug", "is_told"),
    [
        ("provider-unavailable", True),
        ("provider-unauthorized", True),
        ("provider-refused", False),
        ("context-overflow", False),
        ("internal-error", False),
    ],
)
def test_what_failed_is_told_unless_it_may_be_the_cause(
    store: Store, slug: str, is_told: bool
) -> None:
    failed, now = leased(store, text="in vain"), leased(store, text="try again")
    event = note(EventType.TURN_FAILED, slug=slug, reason="No.")
    store.commit(Change(failed, (event,), TurnState.FAILED), 3.0)
    told = {event.turn_id for event in store.conversation(A, now.turn_id)}
    assert told == ({failed.turn_id} if is_told else set())


def test_a_conversation_begins_with_the_newest_summary_and_what_it_does_not_cover(
    store: Store,
) -> None:
    first, second, third = (leased(store, text=text) for text in ("one", "two", "three"))
    failed, now = leased(store, text="four"), leased(store, text="now")
    for lease in (first, second):
        store.commit(Change(lease, (note(EventType.MODEL_COMPLETED),)), 3.0)
        end(store, lease)
    covered = store.turn_events(first.turn_id)[-1].seq

    def summarise(lease: Lease, upto_seq: int, text: str) -> None:
        data = {"upto_seq": upto_seq, "text": text}
        store.commit(Change(lease, (note(EventType.CONTEXT_SUMMARISED, **data),)), 4.0)

    summarise(third, covered, "One.")
    end(store, third)
    summary, *told = store.conversation(A, now.turn_id)
    assert (summary.type, summary.turn_id) == (EventType.CONTEXT_SUMMARISED, third.turn_id)
    assert summary.data["text"] == "One."
    assert {event.turn_id for event in told} == {second.turn_id, third.turn_id}
    assert all(event.type is not EventType.CONTEXT_SUMMARISED for event in told)
    # That of a turn which failed then, too; and the turn's own.
    summarise(failed, store.turn_events(second.turn_id)[-1].seq, "Two.")
    end(store, failed, TurnState.FAILED)
    summary, *told = store.conversation(A, now.turn_id)
    assert summary.data["text"] == "Two."
    assert {event.turn_id for event in told} == {third.turn_id}
    summarise(now, store.turn_events(third.turn_id)[-1].seq, "Three.")
    (summary,) = store.conversation(A, now.turn_id)
    assert summary.data["text"] == "Three."
    assert len(all_events(store)) == store.session(A).last_seq, "the events stay"
    summary, *_ = store.conversation(A, failed.turn_id)
    assert summary.data["text"] == "Two.", "what came later is not told to an earlier turn"


def test_open_turns_are_those_that_have_not_ended_in_order_of_admission(store: Store) -> None:
    leases = [leased(store, session) for session in (A, B, A, B)]
    for lease, state in zip(leases, (TurnState.PARKED, TurnState.CANCELLED), strict=False):
        end(store, lease, state)
    assert [turn.id for turn in store.open_turns()] == [leases[n].turn_id for n in (0, 2, 3)]


def test_the_next_turn_of_a_session_is_its_oldest_that_has_not_ended(store: Store) -> None:
    assert store.next_turn(A) is store.next_turn(NOBODY) is None
    leased(store, B)
    first, second = leased(store), leased(store)
    assert store.next_turn(A) == store.turn(first.turn_id)
    end(store, first)
    assert store.next_turn(A) == store.turn(second.turn_id)
    end(store, second, TurnState.CANCELLED)
    assert store.next_turn(A) is None


# -- the outbox and approvals ----------------------------------------------------------------------

P, S, D, X = OutboxState.PENDING, OutboxState.SENDING, OutboxState.SENT, OutboxState.AMBIGUOUS


@pytest.mark.parametrize("road", [(P,), (P, S), (P, S, D), (P, S, X, S, D), (P, S, X, D)])
def test_a_reply_moves_through_the_outbox(store: Store, road: tuple[OutboxState, ...]) -> None:
    lease = leased(store)
    for state in road:
        text, receipt = (
            ("réply \ud83d", None) if state is P else (None, "r-1" if state is D else None)
        )
        store.commit(Change(lease, outbox=OutboxChange(state, text, receipt)), 3.0)
    (entry,) = store.outbox([road[-1]])
    assert (entry.turn_id, entry.session_id, entry.channel) == (lease.turn_id, A, "api")
    assert (entry.state, entry.text) == (road[-1], "réply \ud83d")
    assert entry.receipt == ("r-1" if road[-1] is D else None)
    assert store.outbox([state for state in OutboxState if state is not road[-1]]) == ()


@pytest.mark.parametrize(
    ("road", "refused"),
    [
        ((), (S, D, X)),
        ((P,), (P, D, X)),
        ((P, S), (P, S)),
        ((P, S, D), (P, S, D, X)),
        ((P, S, X), (P, X)),
    ],
)
def test_a_reply_makes_no_other_move(
    store: Store, road: tuple[OutboxState, ...], refused: tuple[OutboxState, ...]
) -> None:
    lease = leased(store)
    for state in road:
        store.commit(Change(lease, outbox=OutboxChange(state, "reply")), 3.0)
    before = store.outbox()
    for state in refused:
        with pytest.raises(ConflictError):
            store.commit(Change(lease, (note(),), outbox=OutboxChange(state, "x", "r")), 3.0)
    assert (store.outbox(), numbers(store)) == (before, [1])


def test_the_outbox_is_read_oldest_first(store: Store) -> None:
    leases = [leased(store), leased(store, B), leased(store)]
    for lease in reversed(leases):
        store.commit(Change(lease, outbox=OutboxChange(P, lease.turn_id)), 3.0)
    store.commit(Change(leases[1], outbox=OutboxChange(S)), 3.0)
    order = [lease.turn_id for lease in reversed(leases)]
    assert [entry.turn_id for entry in store.outbox()] == order
    assert [entry.turn_id for entry in store.outbox([S, P])] == order
    assert [entry.turn_id for entry in store.outbox([P])] == [order[0], order[2]]


def ask(lease: Lease, approval_id: str) -> Change:
    asked = ApprovalChange(
        ApprovalId(approval_id), ApprovalState.PENDING, f"{approval_id} \ud83d?", CallId("c-1")
    )
    return Change(lease, approvals=(asked,))


def decide(lease: Lease, approval_id: str, state: ApprovalState) -> Change:
    decided = ApprovalChange(ApprovalId(approval_id), state, decided_by="uid 1000")
    return Change(lease, approvals=(decided,))


DECISIONS = (ApprovalState.GRANTED, ApprovalState.DENIED, ApprovalState.EXPIRED)


@pytest.mark.parametrize("state", DECISIONS)
def test_an_approval_is_asked_and_decided_once(store: Store, state: ApprovalState) -> None:
    lease = leased(store)
    store.commit(ask(lease, "a-1"), 3.5)
    store.commit(ask(lease, "a-2"), 4.0)
    (first, _) = store.approvals(pending_only=True)
    assert (first.id, first.session_id, first.turn_id) == ("a-1", A, lease.turn_id)
    assert (first.call_id, first.question, first.asked_at) == ("c-1", "a-1 \ud83d?", 3.5)
    assert (first.state, first.decided_by) == (ApprovalState.PENDING, None)
    store.commit(decide(lease, "a-1", state), 5.0)
    decided = store.approval(ApprovalId("a-1"))
    assert decided == replace(first, state=state, decided_by="uid 1000")
    assert [a.id for a in store.approvals(pending_only=True)] == ["a-2"]
    assert [a.id for a in store.approvals(pending_only=False)] == ["a-1", "a-2"]
    for again in (*DECISIONS, ApprovalState.PENDING):
        with pytest.raises(ConflictError):
            store.commit(decide(lease, "a-1", again), 6.0)
    assert store.approval(ApprovalId("a-1")) == decided


def test_an_approval_of_another_turn_is_not_found(store: Store) -> None:
    lease, other = leased(store), leased(store)
    store.commit(ask(lease, "a-1"), 3.0)
    with pytest.raises(NotFoundError):
        store.commit(decide(other, "a-1", ApprovalState.GRANTED), 4.0)
    assert len(store.approvals(pending_only=True)) == 1


# -- the restart journal ---------------------------------------------------------------------------


def test_the_journal_keeps_each_restart_newest_first(backend: Backend, store: Store) -> None:
    records = [
        RestartRecord(RestartId(f"r-{n}"), Outcome.PENDING, "hup", "uid 0", float(n), generation=n)
        for n in (1, 2, 3)
    ]
    for record in records:
        store.record_restart(record)
    done = replace(
        records[0],
        outcome=Outcome.APPLIED,
        ended_at=9.5,
        new_generation=2,
        changed_keys=("daemon.listen", "drain.new_work"),
        gap_ms=31.5,
        code_changed=True,
        reason="line\nbreak",
    )
    store.record_restart(done)
    again = backend.reopen()
    assert again.restarts(10) == (records[2], records[1], done)
    assert again.restarts(1) == (records[2],)
    assert (again.restarts(0), again.restart(done.id)) == ((), done)


# -- callbacks, counters, closing ------------------------------------------------------------------


def test_callbacks_hear_of_each_session_with_new_events_in_order(store: Store) -> None:
    heard: list[tuple[SessionId, int]] = []
    store.on_commit(lambda session, seq: heard.append((session, seq)))
    leases = [leased(store, A), leased(store, B)]
    store.commit_all([Change(each, (note(), note())) for each in leases], 3.0)
    store.commit(Change(leases[0], resumes=1), 3.0)
    store.append(B, None, note(), 3.0)
    wait_for(lambda: (B, 4) in heard, 5, "the last callback")
    assert heard == [(A, 1), (B, 1), (A, 3), (B, 3), (B, 4)]


def test_what_a_callback_hears_of_can_be_read_at_once(store: Store) -> None:
    heard: list[tuple[int, int]] = []
    store.on_commit(lambda session, seq: heard.append((seq, all_events(store, session)[-1].seq)))
    for _ in range(20):
        admit(store)
    wait_for(lambda: len(heard) == 20, 5, "the callbacks")
    assert all(told <= read for told, read in heard)


def test_a_callback_that_fails_hurts_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def fail(_: SessionId, seq: int) -> None:
        raise RuntimeError(f"at {seq}")

    store.on_commit(fail)
    store.on_commit(lambda _, seq: heard.append(seq))
    admit(store)
    admit(store)
    wait_for(lambda: heard == [1, 2], 5, "the other callback")
    assert "callback" in caplog.text


def test_a_callback_may_wait_for_a_lock_that_a_writer_holds(store: Store) -> None:
    lock = threading.Lock()
    heard: list[int] = []

    def callback(_: SessionId, seq: int) -> None:
        with lock:
            heard.append(seq)

    store.on_commit(callback)
    with lock:
        admit(store)
    wait_for(lambda: heard == [1], 5, "the callback")


def test_counters_count_what_was_written(store: Store) -> None:
    start = store.counters()
    lease = leased(store)  # an admission, a generation, a lease
    store.commit(Change(lease, (note(), note())), 3.0)
    new = an_input(key="k")
    store.admit(new, 3.0)
    store.admit(replace(new, turn_id=NO_TURN), 3.0)
    assert isinstance(outcome(lambda: admit(store, NOBODY)), NotFoundError)
    now = store.counters()
    assert {name: now[name] - start[name] for name in now} == {
        "admissions": 2,
        "commits": 5,
        "events": 4,
    }


def test_preparing_to_close_changes_nothing_that_can_be_seen(store: Store) -> None:
    turn = admit(store)
    for _ in range(2):
        store.prepare_close()
        assert [event.turn_id for event in all_events(store)][:1] == [turn]
    admit(store)
    assert numbers(store) == [1, 2]
    store.close()
    store.prepare_close()


def test_after_close_every_call_says_that_it_is_closed(backend: Backend, store: Store) -> None:
    lease = leased(store)
    store.close()
    store.close()
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.begin_generation(1.0, None),
        lambda: store.admit(an_input(), 1.0),
        lambda: store.commit(Change(lease, (note(),)), 1.0),
        lambda: store.record_restart(
            RestartRecord(RestartId("r"), Outcome.PENDING, "hup", "", 1.0)
        ),
        lambda: store.session(A),
        lambda: store.events(A, 0, 10),
        lambda: store.open_turns(),
    )
    for call in calls:
        with pytest.raises(StoreClosedError):
            call()
    assert numbers(backend.open()) == [1]


def test_a_close_under_load_loses_no_acknowledged_write(backend: Backend, store: Store) -> None:
    acknowledged: list[TurnId] = []
    enough = threading.Event()

    def client(n: int) -> None:
        if n == 0:
            enough.wait(30)
            store.close()
            return
        while isinstance(turn := outcome(lambda: admit(store)), str):
            acknowledged.append(turn)
            if len(acknowledged) > 100:
                enough.set()
        assert isinstance(turn, StoreClosedError)

    at_once(client, range(9))
    again = backend.open()
    assert {turn.id for turn in again.open_turns()} == set(acknowledged)
    assert numbers(again) == list(range(1, len(acknowledged) + 1))
