"""The session store on SQLite: what is acknowledged is on the disk, in order, without holes.

It joins one writer (``writer.py``: group commit) and a pool of readers (``readers.py``) into the
``Store`` port. ``writes.py`` and ``changes.py`` hold what is written, ``reads.py`` what is asked,
``outgoing.py`` what passes through channels, ``reminders.py`` reminders, ``counts.py`` what the metrics ask,
``schema.py`` the tables and who may open them, ``faults.py`` the words of failures.

**How to think about it.** The store is the truth; everything else in the daemon is a cache of it or
a hint about it. A client's input, a model's reply, the start of a tool call: each becomes real at
one instant, the COMMIT of the group that holds it, and is acknowledged after that instant. So a
crash has only two cases for each write, and both are known: the client has an acknowledgement and
the write is there, or it has none and must ask again, with its own key, to learn which. What is
never possible is an acknowledgement without a write.

**The order of a write.**

1. The caller's thread turns data into JSON (a value that isn't JSON fails here, alone) and submits.
2. The writer takes all that is pending as one group; with several submitters about it lingers up to
   2 ms for the others. BEGIN IMMEDIATE.
3. Each piece of work runs in its own SAVEPOINT: it checks (fencing, idempotency key, legal moves),
   then writes. A refusal undoes that SAVEPOINT alone.
4. COMMIT, with one fsync of the WAL (``synchronous=FULL``). This is the commit point.
5. Submitters are answered, then callbacks hear of sessions that have new events, each once.

A crash before 4 leaves nothing of the group, after 4 all of it. A crash between 4 and 5 leaves
writes that nobody was told of: the idempotency key makes the client's retry harmless. When the COMMIT
itself fails the group is rolled back and all are told; should the power fail right then, frames
that had reached the disk may still be found by the next start, which for the client is the case
between 4 and 5.

**Numbers.** An event's number comes from ``sessions.last_seq`` inside the transaction, and a
SAVEPOINT that is undone gives its numbers back. Since there is one writer, no reader ever sees
number N+1 before N.

**Fencing.** A generation is a row; the newest row is who may write. Both ``lease`` and ``commit`` look it up
inside their transaction, so a daemon that was taken for dead and goes on is refused by the first
write it tries. A turn carries the generation that leases it.

**Files.** The database, 0600, its ``-wal`` and ``-shm``. While the store is open no code opens them but
SQLite: closing any descriptor of a file drops all POSIX locks that this process holds on it
(https://sqlite.org/howtocorrupt.html). ``files.py`` looks into the log before, and asks for the names
around each commit: what is written to a deleted file is not acknowledged. The readers are opened
``mode=ro``; the last connection to close is the writer's, which leaves one file behind.

**The end.** ``close`` lies in the gap of a restart. What takes time is copying the WAL into the database,
so the daemon calls ``prepare_close`` while turns drain; then ``close`` has next to nothing to copy.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TypeVar

from netclawd.adapters.store import changes, reads, rows, schema, writes
from netclawd.adapters.store.faults import explain
from netclawd.adapters.store.files import check_log, check_room, check_writable
from netclawd.adapters.store.readers import Readers
from netclawd.adapters.store.writer import Spawn, Work, Writer, Written, closed, touch
from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    AdmitInput,
    Admitted,
    Approval,
    ApprovalId,
    CallId,
    Change,
    Lease,
    NewEvent,
    OpenProposal,
    OutboxEntry,
    Page,
    ProposalOutcome,
    RestartId,
    Session,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
)
from netclawd.errors import StoreError

if TYPE_CHECKING:
    # Nor is any of these on the way to serving.
    from netclawd.adapters.store.outgoing import SqliteOutbox
    from netclawd.adapters.store.reminders import SqliteReminders
    from netclawd.core.counters import EventCounts
    from netclawd.core.reading import Census

T = TypeVar("T")
Callback = Callable[[SessionId, int], None]

#: How long to wait for a lock that another program holds, milliseconds.
BUSY_TIMEOUT_MS = 5000
#: The same while closing: a program that reads must not lengthen the gap of a restart.
BUSY_AT_CLOSE_MS = 20

log = logging.getLogger(__name__)


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread; the daemon passes its own, which blocks signals around the start."""
    thread = threading.Thread(name=name, target=target, daemon=True)
    thread.start()
    return thread


class SqliteStore:
    """The ``Store`` port on one SQLite file; see the module's essay."""

    def __init__(self, path: str, readers: Readers, connection: sqlite3.Connection | None) -> None:
        """Use :meth:`open`. Without a connection to write on the store is read-only."""
        self._path = path
        self._readers = readers
        self._connection = connection
        self._writer: Writer | None = None
        self._callbacks: list[Callback] = []
        self._outgoing: SqliteOutbox | None = None
        self._reminders: SqliteReminders | None = None
        #: Schema of the store.
        self._schema = schema.VERSION
        self._close_lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(
        cls, path: str, *, read_only: bool = False, spawn: Spawn = start_thread
    ) -> SqliteStore:
        """Open the store at ``path``; create it (0600) or bring it up to date unless ``read_only``.

        ``read_only`` works beside a daemon that has the store open, and creates nothing where there
        is no store. ``spawn(name, target)`` starts the writer's thread. Raises StoreError.
        """
        path = os.path.abspath(path)
        try:
            return cls._open(path, read_only, spawn)
        except sqlite3.Error as error:
            raise explain(error, path) from error

    @classmethod
    def _open(cls, path: str, read_only: bool, spawn: Spawn) -> SqliteStore:
        if not os.path.isfile(path):
            if read_only:
                raise StoreError(f"There is no session store {path}.", "Start the daemon once.")
            _create(path)
        if not read_only:
            check_writable(path)
            check_log(path)
        with ExitStack() as undo:
            # The first reader also looks whether we may open the store: it can't change the file,
            # and, unlike a writer, copies no WAL into it when it closes.
            reader = undo.enter_context(closing(_connect(path, "ro")))
            found = schema.inspect(reader, path)
            if read_only and found.schema == 0:
                raise StoreError(f"The session store {path} is empty.", "Start the daemon once.")
            connection = None
            if not read_only:
                connection = undo.enter_context(closing(_open_for_writing(path, found)))
                if found.schema == 0:
                    schema.inspect(reader, path)  # Now that there is a log the reader has it open.
            store = cls(path, Readers(path, lambda: _connect(path, "ro"), reader), connection)
            if connection is None:
                store._schema = found.schema
            else:
                store._writer = Writer(connection, path, spawn, store._tell)
            undo.pop_all()
        return store

    # -- writes ---------------------------------------------------------------------------------

    def begin_generation(self, at: float, restart_id: RestartId | None, above: int = 0) -> int:
        """Allot the next generation and fence all older ones."""
        return self._submit(lambda db, _: writes.begin_generation(db, at, restart_id, above))

    def create_session(self, session_id: SessionId, at: float, channel: str = "api") -> Session:
        """Create a session; ConflictError when the id is taken."""
        self._submit(lambda db, _: writes.create_session(db, session_id, at, channel))
        return Session(session_id, at, channel, 0, None)

    def open_session(
        self, alias: str, session_id: SessionId, at: float, channel: str = "api"
    ) -> Session:
        """Return the session that the channel calls so; make it, with this id, if there is none."""
        # An alias, once there, stays: most who ask need not wait for the writer.
        with self._readers.lend() as db:
            known = reads.alias(db, channel, alias)
        return self.session(
            known
            or self._submit(lambda db, _: writes.open_session(db, alias, session_id, at, channel))
        )

    def admit(self, new: AdmitInput, at: float) -> Admitted:
        """Make an input and its queued turn durable; a repeated source id writes nothing."""
        data = writes.admission(new)
        return self._submit(lambda db, written: writes.admit(db, written, new, data, at))

    def lease(self, turn_id: TurnId, generation: int, *, resumed: bool = False) -> Lease:
        """Bind a turn to the current generation; ConflictError when it has ended."""
        return self._submit(lambda db, _: writes.lease(db, turn_id, generation, resumed=resumed))

    def lease_all(self, turn_ids: Sequence[TurnId], generation: int) -> tuple[Lease, ...]:
        """Lease many turns in one transaction: all of them or none."""
        if not turn_ids:
            return ()
        return self._submit(
            lambda db, _: tuple(writes.lease(db, each, generation) for each in turn_ids)
        )

    def commit(self, change: Change, at: float) -> tuple[SessionEvent, ...]:
        """Commit one checkpoint whole; return its events as :meth:`events` will."""
        events = _encode(change)
        last = self._submit(lambda db, written: changes.apply(db, written, change, events, at))
        lease, first = change.lease, last - len(events) + 1
        return tuple(
            rows.as_event(lease.session_id, (seq, kind, at, lease.turn_id, data))
            for seq, (kind, data) in enumerate(events, first)
        )

    def commit_all(self, changes_: Sequence[Change], at: float) -> None:
        """Commit many checkpoints in one transaction: all of them or none."""
        pairs = [(change, _encode(change)) for change in changes_]

        def work(db: sqlite3.Connection, written: Written) -> None:
            for change, events in pairs:
                changes.apply(db, written, change, events, at)

        if pairs:
            self._submit(work)

    def append(
        self, session_id: SessionId, turn_id: TurnId | None, event: NewEvent, at: float
    ) -> int:
        """Append one event outside a lease; it may belong to a turn that has ended."""
        encoded = (event.type.value, rows.encode(event.data))
        return self._submit(
            lambda db, written: writes.append(db, written, session_id, turn_id, encoded, at)
        )

    def close_proposal(
        self,
        call_id: CallId,
        outcome: ProposalOutcome,
        event: NewEvent,
        generation: int,
        at: float,
    ) -> bool:
        """Tell a proposal's outcome with its event; False when it was told before."""
        encoded = (event.type.value, rows.encode(event.data))
        return self._submit(
            lambda db, written: writes.close_proposal(
                db, written, call_id, outcome, encoded, generation, at
            )
        )

    def record_restart(self, record: RestartRecord) -> None:
        """Insert or replace a journal entry."""
        text = rows.encode(record.as_dict())
        self._submit(lambda db, _: writes.record_restart(db, record, text))

    def try_to_write(self) -> None:
        """Commit what changes nothing, with room for more; StoreError when that can't be done now."""
        check_room(self._path)
        self._submit(touch)

    # -- reads ----------------------------------------------------------------------------------

    def admitted(self, session_id: SessionId, source_id: str, text: str | None) -> Admitted | None:
        with self._readers.lend() as db:
            return reads.admitted(db, session_id, source_id, text)

    def delivered(self, source_id: str) -> tuple[SessionId, Admitted] | None:
        with self._readers.lend() as db:
            return reads.delivered(db, source_id)

    def session(self, session_id: SessionId) -> Session:
        with self._readers.lend() as db:
            return reads.session(db, session_id)

    def sessions(self, cursor: str | None, limit: int) -> Page:
        with self._readers.lend() as db:
            return reads.sessions(db, cursor, limit)

    def events(self, session_id: SessionId, after: int, limit: int) -> tuple[SessionEvent, ...]:
        with self._readers.lend() as db:
            return reads.events(db, session_id, after, limit)

    def turn(self, turn_id: TurnId) -> Turn:
        with self._readers.lend() as db:
            return reads.turn(db, turn_id)

    def next_turn(self, session_id: SessionId) -> Turn | None:
        with self._readers.lend() as db:
            return reads.next_turn(db, session_id)

    def turn_events(self, turn_id: TurnId) -> tuple[SessionEvent, ...]:
        with self._readers.lend() as db:
            return reads.turn_events(db, turn_id)

    def open_turns(self) -> tuple[Turn, ...]:
        with self._readers.lend() as db:
            return reads.open_turns(db)

    def conversation(self, session_id: SessionId, before: TurnId) -> tuple[SessionEvent, ...]:
        with self._readers.lend() as db:
            return reads.conversation(db, session_id, before)

    def outbox(self, states: Sequence[str] = ()) -> tuple[OutboxEntry, ...]:
        with self._readers.lend() as db:
            return reads.outbox(db, states)

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]:
        with self._readers.lend() as db:
            return reads.approvals(db, pending_only)

    def approval(self, approval_id: ApprovalId) -> Approval:
        with self._readers.lend() as db:
            return reads.approval(db, approval_id)

    def open_proposals(self) -> tuple[OpenProposal, ...]:
        with self._readers.lend() as db:
            return reads.open_proposals(db)

    def restarts(self, limit: int) -> tuple[RestartRecord, ...]:
        with self._readers.lend() as db:
            return reads.restarts(db, limit)

    def restart(self, restart_id: RestartId) -> RestartRecord | None:
        with self._readers.lend() as db:
            return reads.restart(db, restart_id)

    def newest_place(self) -> int:
        with self._readers.lend() as db:
            return reads.newest_place(db)

    def count_events(self, after: int, most: int) -> EventCounts:
        from netclawd.adapters.store import counts

        with self._readers.lend() as db:
            return counts.count_events(db, after, most)

    def census(self) -> Census:
        from netclawd.adapters.store import counts

        with self._readers.lend() as db:
            return counts.census(db)

    # -- channels and reminders -------------------------------------------------------------------

    # What serves no channel and has no reminder need not wait for this code.
    @property
    def outgoing(self) -> SqliteOutbox:
        """What channels receive, and what goes out through them."""
        if self._outgoing is None:
            from netclawd.adapters.store.outgoing import SqliteOutbox

            there = self._schema >= schema.CHANNELS
            self._outgoing = SqliteOutbox(self._submit, self._readers, there=there)
        return self._outgoing

    @property
    def reminders(self) -> SqliteReminders:
        """Reminders and their occurrences."""
        if self._reminders is None:
            from netclawd.adapters.store.reminders import SqliteReminders

            there = self._schema >= schema.CHANNELS
            self._reminders = SqliteReminders(self._submit, self._readers, there=there)
        return self._reminders

    # -- watching and closing ---------------------------------------------------------------------

    def on_commit(self, callback: Callback) -> None:
        """Register a callback; it runs in the writer's thread, must be quick, must not write."""
        self._callbacks.append(callback)

    def counters(self) -> Mapping[str, int]:
        """Return counts since open; a transaction that wrote nothing is no commit."""
        if self._writer is None:
            return {"admissions": 0, "commits": 0, "events": 0}
        return self._writer.counters()

    def trouble(self) -> str:
        """Return why the last write failed, for people; empty once one has gone through."""
        return self._writer.trouble() if self._writer is not None else ""

    def waiting_since(self) -> float | None:
        """Return since when what was submitted waits without progress, monotonic; None at rest."""
        return self._writer.waiting_since() if self._writer is not None else None

    def prepare_close(self) -> None:
        """Copy the WAL into the database now and empty it, so that :meth:`close` is quick.

        Beside readers and the writer, which waits for a moment at the end. A convenience: what goes
        wrong is logged, and left to :meth:`close`.
        """
        if self._connection is None or self._closed:
            return
        try:
            with closing(_connect(self._path, "rw")) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                # Most is copied; what came meanwhile is copied with the writer held off.
                _empty_wal(connection)
        except sqlite3.Error as error:
            log.warning("the session store was not prepared to close: %s", error)

    def close(self) -> None:
        """Finish what was submitted, checkpoint the WAL, close. Idempotent."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            if self._writer is not None:
                self._writer.close()
            self._readers.close()
            if self._connection is not None:
                _close_writing(self._connection)

    # -- inside -----------------------------------------------------------------------------------

    def _submit(self, work: Work[T]) -> T:
        if self._writer is not None:
            return self._writer.submit(work)
        if self._closed:
            raise closed(self._path)
        raise StoreError(
            f"The session store {self._path} was opened for reading only.",
            "Ask the running daemon to write.",
        )

    def _tell(self, written: Written) -> None:
        for session_id, seq in written.newest.items():
            for callback in tuple(self._callbacks):
                try:
                    callback(session_id, seq)
                except Exception:
                    # One watcher's defect must not stop the writer, which all sessions need.
                    log.exception(
                        "a callback after a commit failed", extra={"SESSION_ID": session_id}
                    )


def _encode(change: Change) -> list[writes.Encoded]:
    return [(event.type.value, rows.encode(event.data)) for event in change.events]


def _create(path: str) -> None:
    """Create an empty file, 0600; SQLite gives its ``-wal`` and ``-shm`` the same mode.

    O_EXCL: the file is new, so closing this descriptor can't drop a lock on it. Crash: an empty file
    is a store without tables, which the next start fills.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(
            f"The session store {path} can't be created: {error.strerror}.",
            "Check that its folder exists, that this user may write it, and what has its name.",
        ) from error


def _connect(path: str, mode: str) -> sqlite3.Connection:
    """Open an existing file; ``mode`` is ro or rw (https://sqlite.org/uri.html)."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{quoted}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
    )


def _open_for_writing(path: str, found: schema.Found) -> sqlite3.Connection:
    connection = _connect(path, "rw")
    try:
        ((mode,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise StoreError(
                f"The session store {path} lies on a file system that can't share memory.",
                "Put the state folder on a local file system.",
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        if found.schema < schema.VERSION:
            schema.migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _close_writing(connection: sqlite3.Connection) -> None:
    """Copy the WAL into the database and close. What can't be copied now stays, safe, in the WAL."""
    try:
        _empty_wal(connection)
    except sqlite3.Error as error:
        log.warning("the session store was closed without a checkpoint: %s", error)
    finally:
        connection.close()


def _empty_wal(connection: sqlite3.Connection) -> None:
    """Copy the WAL into the database and truncate it, unless a reader of another program is in it."""
    connection.execute(f"PRAGMA busy_timeout = {BUSY_AT_CLOSE_MS}").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
