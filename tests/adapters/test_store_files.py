"""The store's files: their modes, who may open them, damage, and what each failure says."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netclawd.adapters.store import schema
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.outgoing import OutgoingId, Received
from netclawd.core.reminders import ReminderId
from netclawd.core.session import Change, EventType, ParkReason, SessionId, TurnState, Usage
from netclawd.core.values import replace
from netclawd.errors import (
    ConflictError,
    NotFoundError,
    StoreClosedError,
    StoreError,
    StoreNewerError,
)
from tests.adapters.channel_stores import message, notice, receive
from tests.adapters.stores import (
    A,
    B,
    admit,
    at_once,
    copy_as_a_crash_leaves_it,
    leased,
    leave_a_store,
    note,
    numbers,
    outcome,
)
from tests.leftovers import descriptors
from tests.waiting import scaled


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "netclawd.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        made.create_session(B, 2.0)
        yield made


def files(path: str) -> dict[str, bytes]:
    """Return what lies beside the store, and in it. Only for a store that we don't hold open."""
    return {p.name: p.read_bytes() for p in Path(path).parent.iterdir()}


# -- files -----------------------------------------------------------------------------------------


def test_the_files_are_the_owners_alone_and_one_is_left(store: SqliteStore, path: str) -> None:
    admit(store)
    numbers(store)
    folder = Path(path).parent
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 3
    store.close()
    assert [p.name for p in folder.iterdir()] == ["netclawd.db"]


def test_a_path_with_characters_that_mean_something_in_a_uri(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=memory&b#c%20d"
    folder.mkdir()
    leave_a_store(str(folder / "netclawd.db"))
    assert (folder / "netclawd.db").stat().st_size > 0


def test_threads_that_come_and_go_leave_no_connection_behind(store: SqliteStore, path: str) -> None:
    admit(store)
    for _ in range(10):
        at_once(lambda _: numbers(store), range(12))
    # SQLite keeps the descriptor of a connection that closes while others are open, and uses it
    # again for the next one: so there are as many as there ever were readers at once.
    assert [target for _, target in descriptors()].count(path) <= 12 + 1


def test_a_reader_in_the_middle_of_a_question_does_not_hold_up_the_close_for_ever(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netclawd.adapters.store.readers.CLOSE_TIMEOUT_S", 0.05)
    asked = threading.Event()

    def ask_without_end() -> None:
        with store._readers.lend() as db:
            asked.set()
            db.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
            ).fetchall()

    answers: list[object] = []
    reader = threading.Thread(target=lambda: answers.append(outcome(ask_without_end)))
    reader.start()
    assert asked.wait(scaled(5))
    store.close()
    reader.join(scaled(5))
    assert isinstance(answers[0], StoreError)


def test_a_reader_that_comes_back_after_the_close_is_closed_then(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netclawd.adapters.store.readers.CLOSE_TIMEOUT_S", 0.01)
    with store._readers.lend() as db:
        store.close()
        assert db.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(sqlite3.ProgrammingError):
        db.execute("SELECT 1")


# -- who may open it -------------------------------------------------------------------------------


def stamp(path: str, **meta: int) -> None:
    """Write versions into a closed store, as another release would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for key, value in meta.items():
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_a_newer_release_is_refused_and_not_touched(path: str, read_only: bool) -> None:
    leave_a_store(path)
    newer = schema.VERSION + 1
    stamp(path, schema=newer + 4, min_reader=newer)
    before = Path(path).read_bytes()
    with pytest.raises(StoreNewerError, match="newer netclawd") as refusal:
        SqliteStore.open(path, read_only=read_only)
    assert "a newer release" in refusal.value.remedy
    assert Path(path).read_bytes() == before


def test_a_downgrade_is_told_which_release_the_store_takes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_store(path)
    newer = schema.Migration(schema.VERSION + 1, schema.VERSION + 1, ())
    monkeypatch.setattr(schema, "__version__", "2.1.0")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db, path, (*schema.MIGRATIONS, newer))
    monkeypatch.setattr(schema, "__version__", "2.0.0")
    with pytest.raises(StoreNewerError) as refusal:
        SqliteStore.open(path)
    assert "it takes netclawd 2.1.0 or later (schema " in refusal.value.what
    assert "and this is 2.0.0 (schema " in refusal.value.what
    assert refusal.value.remedy == (
        "Install netclawd 2.1.0 or later again; the store was not touched."
    )


def test_a_store_of_the_first_schema_is_brought_up_to_date(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db, path, schema.MIGRATIONS[:1])
    with closing(SqliteStore.open(path)) as store:
        store.create_session(A, 1.0)
        admit(store)
        assert numbers(store)
    with closing(sqlite3.connect(path)) as db:
        assert schema.inspect(db, path) == schema.Found(schema.VERSION, 1)


def check_without_channels(store: SqliteStore) -> None:
    """Look for what a store has no tables of."""
    outbox, reminders = store.outgoing, store.reminders
    assert (outbox.due("slack", 1.0, 9), outbox.unsettled("slack")) == ((), ())
    assert (outbox.next_due("slack"), outbox.session_of("slack", "T/C/1")) == (None, None)
    assert (outbox.messages((), 9), outbox.tally()) == ((), {})
    assert (reminders.reminders(all_=True), reminders.of_session(A)) == ((), ())
    assert (reminders.due(1.0, 9), reminders.count()) == ((), {})
    assert reminders.page(all_=True, cursor=None, limit=9).reminders == ()
    assert reminders.overdue(1.0) == 0
    assert reminders.open_occurrences() == reminders.occurrences(ReminderId("r"), 9) == ()
    with pytest.raises(NotFoundError):
        outbox.message(OutgoingId("n"))
    with pytest.raises(NotFoundError):
        reminders.reminder(ReminderId("r"))


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_store_of_an_older_release_is_read_as_it_is(path: str, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.migrate(db, path, schema.MIGRATIONS[:version])
        db.execute("INSERT INTO sessions (id, created_at, channel) VALUES ('s-a', 1.0, 'api')")
        db.execute("INSERT INTO inputs VALUES (1, 'i', 1, NULL, 'hello', 0, 1.0)")
        db.execute("INSERT INTO turns (id, session, input, state) VALUES ('t', 1, 1, 'queued')")
    before = Path(path).read_bytes()
    with closing(SqliteStore.open(path, read_only=True)) as store:
        (session,) = store.sessions(None, 9).sessions
        (turn,) = store.open_turns()
        check_without_channels(store)
    assert (session.id, session.turn_state, session.usage) == (A, TurnState.QUEUED, Usage())
    assert (turn.id, turn.usage) == ("t", Usage())
    assert (session.alias, turn.channel, turn.origin) == (None, "api", {})
    assert Path(path).read_bytes() == before


def test_the_previous_release_opens_a_store_until_a_word_that_it_lacks_is_written(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_store(path)
    ours, previous = schema.VERSION, 2

    def open_as(version: int) -> SqliteStore:
        monkeypatch.setattr(schema, "VERSION", version)
        return SqliteStore.open(path)

    with closing(open_as(previous)) as store:
        assert numbers(store)
    with closing(open_as(ours)) as store:
        lease = leased(store)
        summary = note(EventType.CONTEXT_SUMMARISED, upto_seq=1, text="One.")
        with pytest.raises(ConflictError):  # The whole checkpoint is refused.
            store.commit(Change(lease, (summary,), park_reason=ParkReason.REQUEST), 1.0)
    with closing(open_as(previous)) as store:
        assert numbers(store)
    with closing(open_as(ours)) as store:
        store.commit(Change(leased(store), (summary,)), 1.0)
    with pytest.raises(StoreNewerError, match="or later \\(schema 3\\), and this is"):
        open_as(previous)
    with closing(open_as(ours)) as store:
        assert numbers(store)


def test_the_previous_release_opens_a_store_until_somebody_speaks_through_a_channel(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, previous = schema.VERSION, 3

    def open_as(version: int) -> SqliteStore:
        monkeypatch.setattr(schema, "VERSION", version)
        return SqliteStore.open(path)

    with closing(open_as(ours)) as store:
        store.create_session(A, 1.0)
        store.open_session("alice", SessionId("s-alice"), 1.0)
        receive(store, Received("slack", "E1", "T/C/1", messages=(notice(),)))
        taken = message("E2")
        assert taken.input
        bad = replace(taken, input=replace(taken.input, turn_id=admit(store)))
        assert isinstance(outcome(lambda: receive(store, bad)), StoreError | ConflictError)
    with closing(open_as(previous)) as store:
        assert numbers(store)
    with closing(open_as(ours)) as store:
        receive(store, message("E3"))
    with pytest.raises(StoreNewerError, match="or later \\(schema 4\\), and this is"):
        open_as(previous)
    with closing(open_as(ours)) as store:
        assert len(store.open_turns()) == 2


@pytest.mark.parametrize("named", [False, True])
def test_any_session_of_a_channel_keeps_the_previous_release_out(path: str, named: bool) -> None:
    with closing(SqliteStore.open(path)) as store:
        if named:
            store.open_session("T/C/1", A, 1.0, "slack")
        else:
            store.create_session(A, 1.0, "slack")
    with closing(sqlite3.connect(path)) as db:
        assert schema.inspect(db, path).min_reader == 4


def test_a_newer_store_that_was_left_by_a_crash_is_not_touched_either(path: str) -> None:
    leave_a_store(path)
    crashed = str(Path(path).parent / "crashed" / "netclawd.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = 99 WHERE key IN ('schema', 'min_reader')")
        copy_as_a_crash_leaves_it(path, crashed)
    before = files(crashed)
    with pytest.raises(StoreError, match="newer netclawd"):
        SqliteStore.open(crashed)
    after = files(crashed)
    assert {name: after[name] for name in before} == before


def test_a_store_that_a_newer_release_left_open_to_this_one_is_used_as_it_is(path: str) -> None:
    leave_a_store(path)
    stamp(path, schema=schema.VERSION + 1)
    with closing(SqliteStore.open(path)) as store:
        admit(store)
        assert numbers(store) == [1, 2, 3, 4]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == (
            schema.VERSION + 1,
        )


def test_a_migration_runs_once_whole_or_not_at_all(path: str) -> None:
    leave_a_store(path)
    version = schema.VERSION + 1
    add_column = "ALTER TABLE sessions ADD COLUMN title TEXT NOT NULL DEFAULT ''"
    good = schema.Migration(version, schema.MIGRATIONS[-1].min_reader, (add_column,))
    bad = schema.Migration(version, version, (add_column, "CREATE TABLE sessions (n)"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(db, path, (*schema.MIGRATIONS, bad))
        assert schema.inspect(db, path).schema == schema.VERSION
        for _ in range(2):
            schema.migrate(db, path, (*schema.MIGRATIONS, good))
        assert schema.inspect(db, path) == schema.Found(version, good.min_reader)
    leave_more = SqliteStore.open(path)
    with closing(leave_more) as store:
        store.create_session(B, 2.0)
        admit(store, B)


def test_migrations_are_numbered_and_the_previous_release_can_open_each() -> None:
    assert [m.version for m in schema.MIGRATIONS] == list(range(1, schema.VERSION + 1))
    for migration in schema.MIGRATIONS[1:]:
        assert migration.min_reader < migration.version


def test_a_start_that_died_before_the_first_table_is_made_good(path: str) -> None:
    Path(path).touch(0o600)
    with pytest.raises(StoreError, match="empty"):
        SqliteStore.open(path, read_only=True)
    leave_a_store(path)


def test_reading_beside_a_running_daemon(store: SqliteStore, path: str) -> None:
    with closing(SqliteStore.open(path, read_only=True)) as reader:
        turn = admit(store)
        assert [event.turn_id for event in reader.events(A, 0, 10)] == [turn]
        assert reader.counters() == {"admissions": 0, "commits": 0, "events": 0}
        with pytest.raises(StoreError, match="for reading only"):
            admit(reader)
        reader.prepare_close()
    with pytest.raises(StoreClosedError):
        admit(reader)
    assert admit(store)


def test_reading_where_there_is_no_store_creates_nothing(path: str) -> None:
    with pytest.raises(StoreError, match="no session store"):
        SqliteStore.open(path, read_only=True)
    assert list(Path(path).parent.iterdir()) == []


# -- damage ----------------------------------------------------------------------------------------


def overwrite(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_database_says_so(path: str, read_only: bool) -> None:
    Path(path).write_text("not a database at all\n" * 100)
    before = files(path)
    with pytest.raises(StoreError, match="is not a database"):
        SqliteStore.open(path, read_only=read_only)
    assert files(path) == before


def test_a_database_of_another_program_says_so_and_is_not_touched(path: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = files(path)
    with pytest.raises(StoreError, match="not a session store of netclawd"):
        SqliteStore.open(path)
    assert files(path) == before


@pytest.mark.parametrize("cut", [0.3, 0.6])
def test_a_truncated_store_says_that_it_is_damaged(path: str, cut: float) -> None:
    leave_a_store(path)
    os.truncate(path, int(Path(path).stat().st_size * cut) // 4096 * 4096)
    with pytest.raises(StoreError, match="is damaged") as refusal:
        read_everything(path)
    assert "backup" in refusal.value.remedy


def test_bytes_overwritten_say_that_it_is_damaged(path: str) -> None:
    leave_a_store(path)
    size = Path(path).stat().st_size
    overwrite(path, 4096, b"\xa5" * (size - 4096))
    with pytest.raises(StoreError, match="is damaged"):
        read_everything(path)


def read_everything(path: str) -> None:
    with closing(SqliteStore.open(path)) as store:
        for session in store.sessions(None, 10).sessions:
            store.events(session.id, 0, 100)
        store.open_turns()
        store.outbox()
        store.approvals(pending_only=False)
        store.restarts(10)


def test_a_store_that_may_only_be_read_says_so_at_the_first_write(path: str) -> None:
    leave_a_store(path)
    # Bytes 18 and 19 of the header: a write version above 2 makes the file read-only.
    overwrite(path, 18, b"\x03")
    with (
        closing(SqliteStore.open(path)) as store,
        pytest.raises(StoreError, match="read-only") as refusal,
    ):
        admit(store)
    assert "remount" in refusal.value.remedy


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be created: No such file"):
        SqliteStore.open(str(tmp_path / "nowhere" / "netclawd.db"))
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match="can't be created: File exists"):
        SqliteStore.open(str(tmp_path / "folder.db"))


def test_a_thread_that_can_not_start_leaves_nothing_open(path: str) -> None:
    def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        SqliteStore.open(path, spawn=spawn)
    leave_a_store(path)
