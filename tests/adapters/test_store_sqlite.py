"""What is SQLite's own: group commit, crashes, files of other releases, and what each failure says."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from netclawd.adapters.store import schema, sqlite, writer
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.session import Admitted, SessionId
from netclawd.errors import KeyReusedError, NotFoundError, StoreClosedError, StoreError
from tests.adapters.stores import A, B, admit, an_input, at_once, numbers, outcome
from tests.leftovers import descriptors
from tests.waiting import scaled, wait_for


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "netclawd.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        made.create_session(B, 2.0)
        yield made


def leave_a_store(path: str) -> None:
    """Leave a closed store with the session A and three events."""
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        for _ in range(3):
            admit(made)


def files(path: str) -> dict[str, bytes]:
    """Return what lies beside the store, and in it. Only for a store that we don't hold open."""
    return {p.name: p.read_bytes() for p in Path(path).parent.iterdir()}


class Gate:
    """Stops the writer between two groups, so that a test can say what the next group holds."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._open = threading.Event()
        self._reached = threading.Event()
        store.on_commit(self._stop_here)
        admit(store, B)
        assert self._reached.wait(scaled(5))

    def _stop_here(self, *_: object) -> None:
        self._reached.set()
        self._open.wait(scaled(30))

    def pass_together(self, work: list[Callable[[], object]]) -> list[object]:
        """Submit all, each from a thread of its own, and let them through as one group."""
        opener = threading.Thread(target=self._open_for, args=(len(work),))
        opener.start()
        results = at_once(lambda each: outcome(each), work)
        opener.join()
        return results

    def _open_for(self, count: int) -> None:
        waiting = self._store._writer
        assert waiting is not None
        try:
            wait_for(lambda: len(waiting._pending) == count, 10, f"{count} submissions")
        finally:
            self._open.set()


# -- group commit ------------------------------------------------------------------------------


def test_what_is_submitted_together_shares_one_commit(store: SqliteStore) -> None:
    gate = Gate(store)
    before = store.counters()
    results = gate.pass_together([lambda: admit(store) for _ in range(32)])
    assert len(set(results)) == 32
    assert store.counters()["commits"] == before["commits"] + 1
    assert numbers(store) == list(range(1, 33))


def test_one_that_fails_does_not_harm_the_others_in_its_group(store: SqliteStore) -> None:
    store.admit(an_input(key="k"), 1.0)
    gate = Gate(store)
    before = store.counters()
    good: list[Callable[[], object]] = [lambda: store.admit(an_input(), 1.0) for _ in range(6)]
    bad: list[Callable[[], object]] = [
        lambda: store.admit(an_input(key="k", text="other"), 1.0),
        lambda: store.admit(an_input(SessionId("s-nobody")), 1.0),
    ]
    results = gate.pass_together(good[:3] + bad + good[3:])
    assert [type(r) for r in results[3:5]] == [KeyReusedError, NotFoundError]
    assert all(isinstance(r, Admitted) for r in results[:3] + results[5:])
    after = store.counters()
    assert {name: after[name] - before[name] for name in after} == {
        "admissions": 6,
        "commits": 1,
        "events": 6,
    }
    assert numbers(store) == list(range(1, 8))


def test_a_defect_in_one_piece_of_work_reaches_its_submitter_alone(store: SqliteStore) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    results = Gate(store).pass_together([lambda: admit(store), lambda: store._submit(defect)])
    assert isinstance(results[1], ZeroDivisionError)
    assert numbers(store) == [1]
    assert admit(store)


def test_32_clients_average_8_admissions_or_more_to_a_commit(store: SqliteStore) -> None:
    before = store.counters()
    at_once(lambda _: [admit(store) for _ in range(15)], range(32))
    after = store.counters()
    assert after["admissions"] - before["admissions"] == 480
    assert 480 / (after["commits"] - before["commits"]) >= 8


def test_a_lone_writer_is_never_made_to_wait_for_company(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LINGER_EACH_S", "LINGER_MOST_S"):
        monkeypatch.setattr(writer, name, scaled(30))
    begun = time.monotonic()
    for _ in range(5):
        admit(store)
    assert time.monotonic() - begun < scaled(30)


def test_a_close_does_not_wait_for_a_lingering_group(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gate(store).pass_together([lambda: admit(store) for _ in range(8)])
    for name in ("LINGER_EACH_S", "LINGER_MOST_S"):
        monkeypatch.setattr(writer, name, scaled(30))
    begun = time.monotonic()
    last: list[object] = []
    client = threading.Thread(target=lambda: last.append(outcome(lambda: admit(store))))
    client.start()
    wait_for(lambda: store._writer and store._writer._wake_at == 8, 5, "the writer to linger")
    store.close()
    client.join()
    assert time.monotonic() - begun < scaled(30)
    assert isinstance(last[0], str)


def test_every_commit_is_synced_to_the_disk(store: SqliteStore) -> None:
    """No test can cut the power; what SQLite was asked for can be looked at."""
    assert store._connection is not None
    asked = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    got = {name: store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked}
    assert got == asked


# -- a commit that fails -------------------------------------------------------------------------


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Make every write that would make a file larger fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_commit_that_fails_is_told_to_all_and_changes_nothing(store: SqliteStore) -> None:
    gate = Gate(store)
    before = store.counters()
    with no_file_may_grow():
        results = gate.pass_together([lambda: admit(store) for _ in range(6)])
    assert [type(r) for r in results] == [StoreError] * 6
    assert len({id(r) for r in results}) == 6
    assert numbers(store) == []
    assert store.counters() == before
    assert admit(store)
    assert numbers(store) == [1]


def test_a_full_disk_says_so_and_the_store_goes_on_when_there_is_room(store: SqliteStore) -> None:
    assert store._connection is not None
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(StoreError, match="full") as refusal:
        store.admit(an_input(text="x" * 100_000), 1.0)
    assert "Free space" in refusal.value.remedy
    store._connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    store.admit(an_input(text="x" * 100_000), 1.0)
    assert numbers(store) == [1]


def test_a_store_that_another_program_locks_says_so(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_store(path)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 50)
    with closing(SqliteStore.open(path)) as store, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another program"):
            admit(store)
        other.execute("ROLLBACK")
        admit(store)
        assert numbers(store) == [1, 2, 3, 4]


def test_a_writer_that_breaks_down_leaves_nobody_waiting(path: str) -> None:
    class BreakdownError(BaseException):
        pass

    def breakdown(*_: object) -> None:
        raise BreakdownError

    def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
        def quiet() -> None:
            try:
                target()
            except BreakdownError:
                broken.set()

        return sqlite.start_thread(name, quiet)

    broken = threading.Event()
    with closing(SqliteStore.open(path, spawn=spawn)) as store:
        store.create_session(A, 1.0)
        store.create_session(B, 1.0)
        together = [lambda: admit(store), lambda: store._submit(breakdown), lambda: admit(store)]
        results = Gate(store).pass_together(list(together))
        assert [type(r) for r in results] == [StoreError] * 3
        assert broken.wait(scaled(5))
        with pytest.raises(StoreClosedError):
            admit(store)


# -- crashes ---------------------------------------------------------------------------------------


def test_sigkill_under_load_loses_nothing_that_was_acknowledged(path: str) -> None:
    acknowledged: set[str] = set()
    command = [sys.executable, "-m", "tests.adapters.store_load", path, "8"]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            for line in child.stdout:
                acknowledged.add(line.strip())
                if len(acknowledged) % 120 == 0:
                    break
            child.kill()
            acknowledged.update(line.strip() for line in child.stdout)
        with closing(SqliteStore.open(path)) as store:
            assert acknowledged <= {turn.id for turn in store.open_turns()}
            for session in store.sessions(None, 10).sessions:
                assert numbers(store, session.id) == list(range(1, session.last_seq + 1))
    assert len(acknowledged) >= 360


def test_a_store_left_by_a_crash_is_whole_for_a_reader_who_may_not_write(path: str) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(closing(SqliteStore.open(path)))
        store.create_session(A, 1.0)
        turn = admit(store)
        crashed = str(Path(path).parent / "crashed" / "netclawd.db")
        copy_as_a_crash_leaves_it(path, crashed)
    before = Path(crashed).read_bytes()
    with closing(SqliteStore.open(crashed, read_only=True)) as reader:
        assert [event.turn_id for event in reader.events(A, 0, 10)] == [turn]
    assert Path(crashed).read_bytes() == before


def copy_as_a_crash_leaves_it(path: str, target: str) -> None:
    """Copy the database and its WAL; by another process, or our locks on them would be lost."""
    Path(target).parent.mkdir()
    for suffix in ("", "-wal"):
        subprocess.run(["cp", path + suffix, target + suffix], check=True)


def test_what_is_prepared_to_close_is_in_the_database_itself(store: SqliteStore, path: str) -> None:
    turns = [admit(store) for _ in range(5)]
    store.prepare_close()
    target = str(Path(path).parent / "without-wal.db")
    subprocess.run(["cp", path, target], check=True)
    with closing(SqliteStore.open(target)) as copy:
        assert [turn.id for turn in copy.open_turns()] == turns
    store.close()
    store.prepare_close()


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
    with pytest.raises(StoreError, match="newer netclawd") as refusal:
        SqliteStore.open(path, read_only=read_only)
    assert "newer release" in refusal.value.remedy
    assert Path(path).read_bytes() == before


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
