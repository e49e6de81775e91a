"""What is SQLite's own about channels and reminders: work that fails half way, crashes, and what a question
costs in a store that has seen much."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.store.outgoing import FORGOTTEN_AT_ONCE
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.budgets import EVENT_MEMORY_S
from netclawd.core.outgoing import OutgoingId
from netclawd.core.reminders import OccurrenceState, ReminderId, Skip
from netclawd.core.session import (
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    CallId,
    Change,
    EventType,
    OutboxState,
    SessionId,
    TurnState,
)
from netclawd.core.values import replace
from netclawd.errors import StoreError
from tests.adapters.channel_stores import (
    SLACK,
    answer,
    begun,
    decide,
    found,
    message,
    notice,
    receive,
    spoken_to,
    streaming,
)
from tests.adapters.stores import A, note
from tests.adapters.test_store_contract_reminders import a_reminder, skipped, starting


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "netclawd.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        yield made


# -- work that fails half way ----------------------------------------------------------------------


class Failing:
    """The write connection, whose n-th statement of a piece of work fails."""

    def __init__(self, connection: sqlite3.Connection, nth: int) -> None:
        self._connection = connection
        self._left = nth
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT")):
            self._left -= 1
            if self._left == 0:
                self.failed = True
                raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *values)


def dump(path: str) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def receiving(store: SqliteStore) -> Callable[[], object]:
    received = replace(message(), messages=(notice(),))
    return lambda: receive(store, received)


def answering(store: SqliteStore) -> Callable[[], object]:
    lease = spoken_to(store)
    streaming(store, lease.turn_id, "1.1")
    asked = ApprovalChange(ApprovalId("a1"), ApprovalState.PENDING, "May I?", CallId("c"), "run")
    change = Change(
        lease,
        (note(EventType.TURN_PARKED, reason="request"), note(EventType.TURN_CANCELLED)),
        TurnState.CANCELLED,
        approvals=(asked,),
    )
    return lambda: store.commit(change, 20.0)


def deciding(store: SqliteStore) -> Callable[[], object]:
    lease = spoken_to(store)
    asked = ApprovalChange(ApprovalId("a1"), ApprovalState.PENDING, "May I?", CallId("c"), "run")
    store.commit(Change(lease, (note(),), approvals=(asked,)), 20.0)
    return lambda: decide(store, lease)


def sending(store: SqliteStore) -> Callable[[], object]:
    answer(store, lease := spoken_to(store))
    under_way = begun(store, lease.turn_id)
    return lambda: store.outgoing.sent(under_way, ("1.1",), 40.0)


def starting_one(store: SqliteStore) -> Callable[[], object]:
    store.reminders.add(a_reminder())
    one = starting(180.0, 240.0, skipped(60.0), skipped(120.0))
    return lambda: store.reminders.start(one, 181.0)


def adding(store: SqliteStore) -> Callable[[], object]:
    own = replace(a_reminder(session=SessionId("s-own")), own_session=True)
    return lambda: store.reminders.add(own)


def ending(store: SqliteStore) -> Callable[[], object]:
    store.reminders.add(a_reminder())
    store.reminders.start(starting(), 61.0)
    (one,) = store.reminders.open_occurrences()
    failed = replace(one, state=OccurrenceState.FAILED, ended_at=70.0)
    return lambda: store.reminders.end(failed, 5, "It failed 5 times in a row.")


@pytest.mark.parametrize(
    "prepare", [receiving, answering, deciding, sending, starting_one, adding, ending]
)
def test_wherever_work_fails_nothing_of_it_is_left(
    store: SqliteStore, path: str, prepare: Callable[[SqliteStore], Callable[[], object]]
) -> None:
    work = prepare(store)
    before, writer = dump(path), store._writer
    assert writer
    for nth in range(1, 100):
        failing = Failing(writer._connection, nth)
        writer._connection = failing  # type: ignore[assignment]
        try:
            work()
        except StoreError:
            assert dump(path) == before, f"after statement {nth}"
        finally:
            writer._connection = failing._connection
        if not failing.failed:
            break
    assert nth > 3
    assert dump(path) != before


def test_sigkill_while_a_channel_receives_loses_and_doubles_nothing(path: str) -> None:
    command = [sys.executable, "-m", "tests.adapters.receive_load", path, "4"]
    acknowledged: set[str] = set()
    for _ in range(2):  # What was received the first time is delivered again.
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            for line in child.stdout:
                acknowledged.add(line.strip())
                if len(acknowledged) % 80 == 0:
                    break
            child.kill()
            acknowledged.update(line.strip() for line in child.stdout)
    with closing(SqliteStore.open(path)) as store:
        said = [
            str(event.data["text"])
            for turn in store.open_turns()
            for event in store.turn_events(turn.id)
        ]
        assert acknowledged <= set(said)
        assert len(said) == len(set(said))
        assert len(store.sessions(None, 100).sessions) == 4
        notices = [each.id for each in store.outgoing.messages((), 10_000)]
        assert sorted(notices) == sorted(f"notice:{text}" for text in said)


# -- a store that has seen much --------------------------------------------------------------------

SENT, REMINDERS, EVENTS = 100_000, 10_000, 100_000
#: Instructions of SQLite's virtual machine, thousands: a look at each of so many rows takes hundreds.
MOST = 3


def fill(path: str) -> None:
    """Leave what long use leaves: messages that were sent, reminders for later, events to forget."""
    numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) "
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute(
            numbers.format(500) + "INSERT INTO sessions (n, id, created_at, channel) SELECT x,"
            " 'old-' || x, 1.0, 'api' FROM c"
        )
        db.execute(
            numbers.format(SENT)
            + "INSERT INTO outgoing (id, channel, route, kind, session, requester,"
            " state, text, receipts, at, changed_at, due_at) SELECT 'old-' || x, 'slack', 'T1/C1/' ||"
            " (x % 1000), 'reply', 1, 'U1', 'sent', '\"Fine.\"', '[\"1.1\"]', x, x, x FROM c"
        )
        db.execute(
            numbers.format(REMINDERS)
            + "INSERT INTO reminders (id, text, schedule, missed, max_late_s,"
            " session, own_session, origin, state, created_at, created_by, next_at) SELECT 'old-' || x,"
            " 'Later.', '{\"kind\":\"once\",\"zone\":\"UTC\"}', 'once', 60.0, 1 + x % 500, 0, '{}',"
            " CASE WHEN x % 10 = 0 THEN 'done' ELSE 'active' END, 1.0, 'uid 0', 1e9 + x FROM c"
        )
        db.execute(
            numbers.format(REMINDERS) + "INSERT INTO occurrences (reminder, due_at, state) SELECT"
            " 1 + x % 100, x, 'done' FROM c"
        )
        db.execute(
            numbers.format(EVENTS) + "INSERT INTO received SELECT 'slack', 'old-' || x, 1.0 FROM c"
        )
        db.execute("COMMIT")


def test_no_question_walks_through_all_that_there_ever_was(path: str) -> None:
    SqliteStore.open(path).close()
    fill(path)
    with closing(SqliteStore.open(path)) as store:
        store.create_session(A, 1.0)
        check_costs(store)


def check_costs(store: SqliteStore) -> None:
    outbox, reminders = store.outgoing, store.reminders
    lease = spoken_to(store)
    answer(store, lease)
    outbox.put([notice("n1"), notice("n2", route="T1/C2/1")], 10.0)
    reminders.add(a_reminder())
    under_way = begun(store, "n2")
    work: dict[str, Callable[[], object]] = {
        "receive": lambda: receive(store, message("E9", "m9"), 2 * EVENT_MEMORY_S),
        "put": lambda: outbox.put([notice("n3")], 10.0),
        "stream": lambda: outbox.stream(spoken_to(store, "E8").turn_id, 10.0),
        "record": lambda: outbox.record(under_way, ("1.1",), 20.0),
        "sent": lambda: outbox.sent(under_way, ("1.1",), 20.0),
        "begin": lambda: outbox.begin(found(store, "n1"), 20.0),
        "put_off": lambda: outbox.put_off(found(store, "n1"), 20.0, "", 20.0),
        "commit": lambda: answer(store, spoken_to(store, "E7")),
        "start": lambda: reminders.start(starting(), 61.0),
        "skip": lambda: reminders.skip([Skip(ReminderId("r1"), (skipped(120.0),), 180.0)]),
        "end": lambda: reminders.end(reminders.open_occurrences()[0], 0, ""),
        "due": lambda: outbox.due(SLACK, 1e9, 20),
        "next_due": lambda: outbox.next_due(SLACK),
        "unsettled": lambda: outbox.unsettled(SLACK),
        "tally": lambda: outbox.tally(),
        "messages": lambda: outbox.messages((), 10),
        "messages by state": lambda: outbox.messages(tuple(OutboxState), 3),
        "message": lambda: outbox.message(OutgoingId("old-7")),
        "session_of": lambda: outbox.session_of(SLACK, "T1/C1/17.1"),
        "reminders due": lambda: reminders.due(100.0, 20),
        "overdue": lambda: reminders.overdue(100.0),
        "of_session": lambda: reminders.of_session(SessionId("old-7")),
        "open": lambda: reminders.open_occurrences(),
        "occurrences": lambda: reminders.occurrences(ReminderId("old-1"), 10),
    }
    costs = {name: cost(store, each) for name, each in work.items()}
    assert {name: n for name, n in costs.items() if n > MOST} == {}


def cost(store: SqliteStore, work: Callable[[], object]) -> int:
    """Return how many thousands of instructions SQLite took for it."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    assert store._connection
    connections = [store._connection, *store._readers._idle]
    for connection in connections:
        connection.set_progress_handler(count, 1000)
    work()
    for connection in connections:
        connection.set_progress_handler(None, 0)
    return steps[0]


def test_old_events_are_forgotten_a_few_at_a_time(store: SqliteStore, path: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        old = [(f"old-{n}", float(n)) for n in range(3 * FORGOTTEN_AT_ONCE)]
        db.executemany("INSERT INTO received VALUES ('slack', ?, ?)", old)
        db.commit()
        left = []
        for n in range(4):
            receive(store, message(f"E{n}", f"m{n}"), EVENT_MEMORY_S + 250.0)
            left.append(db.execute("SELECT count(*) FROM received").fetchone()[0] - n - 1)
    assert left == [200, 100, 50, 50]
    again = message("old-0", "m-old")
    assert not receive(store, again, EVENT_MEMORY_S + 250.0).repeat
    assert receive(store, message("old-299"), EVENT_MEMORY_S + 250.0).repeat
