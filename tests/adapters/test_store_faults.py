"""What befalls a store: held by others, full, deleted under us, its log cut or overwritten.

Nothing that was acknowledged is lost without a word, nothing is acknowledged that isn't stored, and
what heals is noticed without anybody's help. The full disk itself is in tests/process.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.errors import (
    NetclawError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreLockedError,
)
from tests.adapters.stores import A, B, admit, leave_a_store, numbers
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netclawd.adapters.store.sqlite.BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr("netclawd.adapters.store.writer.PROBE_S", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> str:
    folder = tmp_path / "state"
    folder.mkdir()
    return str(folder / "netclawd.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(path)) as made:
        made.create_session(A, 1.0)
        admit(made)
        yield made


def write_fails(store: SqliteStore, kind: type[StoreError], words: str) -> NetclawError:
    """Try to admit an input; insist on this error, on its place in the status, on what was before."""
    before = numbers(store)
    with pytest.raises(kind, match=words) as refusal:
        admit(store)
    assert refusal.value.remedy
    assert words in store.trouble()
    assert numbers(store) == before, "what can be read is what was acknowledged"
    return refusal.value


def heals(store: SqliteStore) -> None:
    """The trouble ends by itself, without a client that tries; then inputs are taken."""
    wait_for(lambda: not store.trouble(), 5.0, "the store to notice that it can be written again")
    before = numbers(store)
    admit(store)
    assert len(numbers(store)) > len(before)


# -- held by another program -----------------------------------------------------------------------

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: str) -> Iterator[None]:
    """Let another program hold the store."""
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        yield
        other.communicate()


def test_a_store_that_another_program_holds_is_read_and_heals(
    store: SqliteStore, path: str
) -> None:
    with held(path):
        error = write_fails(store, StoreLockedError, "is locked by another program")
        assert "fuser" in error.remedy
        assert (error.slug, error.status, error.exit_code) == ("store-locked", 503, 75)
        with pytest.raises(StoreLockedError):
            store.try_to_write()
    heals(store)


def test_a_start_on_a_store_that_another_program_holds_says_so(path: str) -> None:
    leave_a_store(path)
    with (
        held(path),
        pytest.raises(StoreLockedError, match="is locked by another program"),
        closing(SqliteStore.open(path)) as store,
    ):
        store.begin_generation(1.0, None)
    with closing(SqliteStore.open(path)) as store:
        assert store.begin_generation(2.0, None) == 1


# -- no room, no descriptor ------------------------------------------------------------------------


def test_a_store_that_can_not_grow_is_read_and_heals(store: SqliteStore) -> None:
    assert store._connection is not None
    ((pages,),) = store._connection.execute("PRAGMA page_count").fetchall()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFullError, match="is full") as refusal:
        admit(store, text="x" * 100_000)
    assert (refusal.value.slug, refusal.value.status) == ("store-full", 507)
    assert refusal.value.exit_code == 75
    assert "Free space" in refusal.value.remedy
    store._connection.execute("PRAGMA max_page_count = 1000000")
    heals(store)


def test_a_reader_without_a_descriptor_says_so(store: SqliteStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with store._readers.lend():  # The one that is idle.
        highest = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            with pytest.raises(StoreError, match="can't be opened"):
                numbers(store)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert numbers(store)


# -- deleted under the daemon ----------------------------------------------------------------------


def test_what_is_written_to_a_deleted_file_is_not_acknowledged(
    store: SqliteStore, path: str
) -> None:
    shutil.rmtree(Path(path).parent)
    error = write_fails(store, StoreGoneError, "was moved or deleted")
    assert f"/proc/{os.getpid()}/fd" in error.remedy
    assert (error.slug, error.status) == ("store-gone", 503)


def test_a_store_that_is_moved_back_heals(store: SqliteStore, path: str) -> None:
    folder = Path(path).parent
    folder.rename(folder.with_name("elsewhere"))
    write_fails(store, StoreGoneError, "was moved or deleted")
    folder.with_name("elsewhere").rename(folder)
    heals(store)


@pytest.mark.parametrize("name", ["netclawd.db", "netclawd.db-wal"])
def test_another_file_under_its_name_is_not_it(store: SqliteStore, path: str, name: str) -> None:
    there = Path(path).with_name(name)
    shutil.copyfile(there, there.with_name("copy"))
    there.with_name("copy").rename(there)
    write_fails(store, StoreGoneError, "was moved or deleted")


def test_a_store_deleted_within_a_commit_acknowledges_nothing(
    store: SqliteStore, path: str
) -> None:
    """Between the look before the transaction and its end."""

    def delete(db: sqlite3.Connection, _written: object) -> None:
        db.execute("UPDATE meta SET value = value")
        os.unlink(path)

    with pytest.raises(StoreGoneError):
        store._submit(delete)


# -- the write-ahead log ---------------------------------------------------------------------------


@pytest.fixture
def crashed(store: SqliteStore, path: str, tmp_path: Path) -> str:
    """A store as a SIGKILL leaves it: with a log that holds what was committed last."""
    store.create_session(B, 2.0)
    for _ in range(5):
        admit(store)
    target = tmp_path / "crashed"
    shutil.copytree(Path(path).parent, target)
    assert (target / "netclawd.db-wal").stat().st_size > 3 * 4096
    return str(target / "netclawd.db")


def content(path: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(path).parent.iterdir()}


def check_refused(path: str, words: str) -> None:
    before = content(path)
    with pytest.raises(StoreDamagedError, match=words) as refusal:
        SqliteStore.open(path)
    assert "move it and the -shm file beside it away" in refusal.value.remedy
    assert content(path) == before, "nothing was changed"
    # The remedy is one.
    for name in ("netclawd.db-wal", "netclawd.db-shm"):
        Path(path).with_name(name).unlink()
    with closing(SqliteStore.open(path)) as store:
        store.sessions(None, 10)


def check_whole(path: str, *, events: int) -> None:
    with closing(SqliteStore.open(path)) as store:
        assert len(numbers(store)) == events


def test_a_crash_is_no_damage(crashed: str, store: SqliteStore) -> None:
    check_whole(crashed, events=len(numbers(store)))


def test_a_log_that_was_overwritten_is_refused(crashed: str) -> None:
    log = Path(f"{crashed}-wal")
    log.write_bytes(b"\xa5" * log.stat().st_size)
    check_refused(crashed, "it begins with something else")


@pytest.mark.parametrize("bit", range(0, 32 * 8, 13))
def test_a_log_whose_header_has_a_changed_bit_is_refused(crashed: str, bit: int) -> None:
    log = Path(f"{crashed}-wal")
    whole = bytearray(log.read_bytes())
    whole[bit // 8] ^= 1 << bit % 8
    log.write_bytes(whole)
    check_refused(crashed, "it begins with something else")


@pytest.mark.parametrize("cut", [1, 4096, 3 * 4096])
def test_a_log_that_was_truncated_is_refused(crashed: str, cut: int) -> None:
    log = Path(f"{crashed}-wal")
    os.truncate(log, log.stat().st_size - cut)
    check_refused(crashed, "its end is missing")


def test_what_a_loss_of_power_leaves_is_no_damage(crashed: str, store: SqliteStore) -> None:
    """An index from before, one that is torn, or none; more behind the last commit."""
    events = len(numbers(store))
    log, index = Path(f"{crashed}-wal"), Path(f"{crashed}-shm")
    log.write_bytes(log.read_bytes() + b"\x17" * 1000)
    old = bytearray(index.read_bytes())
    old[32:40] = old[80:88] = struct.pack("=II", 1, 2)  # Of another log: with other salt.
    old[16:20] = old[64:68] = struct.pack("=I", 1 << 30)
    for left in (bytes(old), b"\x01" + bytes(old)[1:], bytes(old)[:50], b""):
        index.write_bytes(left)
        copy = Path(crashed).parent.with_name("copy")
        shutil.copytree(Path(crashed).parent, copy)
        check_whole(str(copy / "netclawd.db"), events=events)
        shutil.rmtree(copy)
    index.unlink()
    check_whole(crashed, events=events)


@pytest.mark.parametrize("left", [b"", b"\x37\x7f", bytes(32), bytes(40960)])
def test_a_log_in_which_nothing_was_committed_yet_is_no_damage(path: str, left: bytes) -> None:
    leave_a_store(path)
    Path(f"{path}-wal").write_bytes(left)
    leave = SqliteStore.open(path)
    with closing(leave) as store:
        assert store.session(A)
