"""What is SQLite's own: group commit, commits that fail, crashes."""

from __future__ import annotations

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

from netclawd.adapters.store import sqlite, writer
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.session import Admitted, SessionId
from netclawd.errors import KeyReusedError, NotFoundError, StoreClosedError, StoreError
from tests.adapters.stores import (
    A,
    B,
    admit,
    an_input,
    at_once,
    copy_as_a_crash_leaves_it,
    leave_a_store,
    numbers,
    outcome,
)
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
    Gate(store).pass_together([lambda: admit(store) for _ in range(3)])
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


def test_what_is_prepared_to_close_is_in_the_database_itself(store: SqliteStore, path: str) -> None:
    turns = [admit(store) for _ in range(5)]
    store.prepare_close()
    target = str(Path(path).parent / "without-wal.db")
    subprocess.run(["cp", path, target], check=True)
    with closing(SqliteStore.open(target)) as copy:
        assert [turn.id for turn in copy.open_turns()] == turns
    store.close()
    store.prepare_close()
