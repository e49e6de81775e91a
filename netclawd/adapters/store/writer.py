"""The one thread that writes: it gathers what clients submit into groups and commits each group once.

It decides who shares a commit, and for how long a group waits for company. It touches the write
connection, which nobody else uses. Invariants:

- A submitter is answered after the COMMIT that holds its work, never before; a refusal too, since
  it may rest on what the same group wrote.
- Each piece of work runs in its own SAVEPOINT: one that fails is rolled back alone.
- When the COMMIT (or the whole transaction) fails, everyone in the group is told so.
- Work is done in the order of submission.
- What is acknowledged lies in files that still have their names.

A failure is remembered until a write goes through; while there is one the writer tries by itself, so
that a disk that has room again is noticed without a client's help.

The linger follows ``commit_delay`` and ``commit_siblings`` of PostgreSQL
(https://www.postgresql.org/docs/current/runtime-config-wal.html): with several submitters about, a
group waits a moment for the others, because one fsync for many costs less than one for each. The
number to wait for is how many took part in the commit before or arrived during it; a lone writer is
never delayed. A group that waits ends its wait as soon as that number has arrived.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from netclawd.adapters.store.faults import explain
from netclawd.adapters.store.files import Presence, check_room
from netclawd.core.notices import Notice
from netclawd.core.session import SessionId
from netclawd.errors import (
    NetclawError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreGoneError,
)

T = TypeVar("T")
Spawn = Callable[[str, Callable[[], None]], threading.Thread]

#: After a failed commit one is tried this often, seconds.
PROBE_S = 2.0
#: A group waits for others only when at least this many submitters are about.
SIBLINGS = 4
#: The wait grows with the number of submitters that it waits for, seconds each …
LINGER_EACH_S = 0.0005
#: … up to this, seconds.
LINGER_MOST_S = 0.002

log = logging.getLogger(__name__)


class Written:
    """What a piece of work has written: for the counters and for those who watch sessions."""

    __slots__ = ("admissions", "events", "newest")

    def __init__(self) -> None:
        self.admissions = 0
        self.events = 0
        #: Session -> number of its newest event, in order of the first write.
        self.newest: dict[SessionId, int] = {}

    def add(self, other: Written) -> None:
        self.admissions += other.admissions
        self.events += other.events
        self.newest.update(other.newest)


#: Runs inside the group's transaction; writes, notes what it wrote, returns the answer.
Work = Callable[[sqlite3.Connection, Written], T]


class Submit(Protocol):
    """Runs work in the next group; returns its answer once that is durable."""

    def __call__(self, work: Work[T], /) -> T: ...


class _Job:
    """One submitted piece of work and its answer."""

    __slots__ = ("answer", "answered", "error", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.answer: Any = None
        self.error: Exception | None = None
        # A bare lock, held until the answer is there: the cheapest way to make a thread wait.
        self.answered = threading.Lock()
        self.answered.acquire()


class Writer:
    """Group commit over one connection that this object owns until :meth:`close`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        spawn: Spawn,
        on_group: Callable[[Written], None],
    ) -> None:
        self._connection = connection
        self._presence = Presence(path)
        #: Why the last commit failed; empty when it did not.
        self._trouble = ""
        self._path = path
        self._on_group = on_group
        self._mutex = threading.Lock()
        self._arrived = threading.Condition(self._mutex)
        self._pending: list[_Job] = []
        #: The writer sleeps until this many jobs are pending; 0 while it does not sleep.
        self._wake_at = 0
        self._closing = False
        #: Monotonic instant since which there is work and no group was finished; None at rest.
        self._waiting_since: float | None = None
        #: How many took part in the last commit or arrived during it.
        self._about = 0
        self._commits = 0
        self._admissions = 0
        self._events = 0
        self._thread = spawn("store", self._run)

    def submit(self, work: Work[T]) -> T:
        """Run the work in the next group and return its answer once that is durable.

        Raises what the work raised, or StoreError when the group could not be committed. The wait
        has no deadline: only the disk knows the outcome, and any earlier answer could be wrong.
        """
        job = _Job(work)
        with self._mutex:
            if self._closing:
                raise closed(self._path)
            self._pending.append(job)
            if self._waiting_since is None:
                self._waiting_since = time.monotonic()
            if 0 < self._wake_at <= len(self._pending):
                self._wake_at = 0
                self._arrived.notify()
        job.answered.acquire()
        if job.error is not None:
            raise job.error
        return cast(T, job.answer)

    def waiting_since(self) -> float | None:
        """Return since when what was submitted waits and no group was finished, None at rest."""
        return self._waiting_since

    def trouble(self) -> str:
        """Return why the last commit failed, empty when it did not."""
        return self._trouble

    def counters(self) -> dict[str, int]:
        with self._mutex:
            return {
                "admissions": self._admissions,
                "commits": self._commits,
                "events": self._events,
            }

    def close(self) -> None:
        """Do what was submitted, then end the thread. Later submissions get StoreClosedError."""
        with self._mutex:
            self._closing = True
            self._arrived.notify()
        self._thread.join()

    # -- the writer's thread ------------------------------------------------------------------

    def _run(self) -> None:
        jobs: Sequence[_Job] = ()
        try:
            while jobs := self._take():
                self._commit(jobs)
        except BaseException as error:  # whatever it is, nobody may wait for ever
            with self._mutex:
                self._closing = True
                left = [*(job for job in jobs if job.answered.locked()), *self._pending]
                self._pending = []
            self._fail(left, StoreError("The writer of the session store broke down.", str(error)))
            raise

    def _take(self) -> list[_Job]:
        """Wait for work, linger for company, return the group; empty when closed and done."""
        with self._mutex:
            self._waiting_since = time.monotonic() if self._pending else None
            while not self._pending and not self._closing:
                self._wake_at = 1
                waited = self._arrived.wait(PROBE_S if self._trouble else None)
                if not waited and self._has_room():
                    self._waiting_since = time.monotonic()
                    return [_Job(touch)]
            if self._about >= SIBLINGS and len(self._pending) < self._about:
                self._linger(self._about)
            self._wake_at = 0
            jobs, self._pending = self._pending, []
            return jobs

    def _has_room(self) -> bool:
        """Whether a try is worth while: the last pages of a disk take a small commit and no other."""
        try:
            check_room(self._path)
        except StoreFullError:
            return False
        return True

    def _linger(self, about: int) -> None:
        deadline = time.monotonic() + min(LINGER_EACH_S * about, LINGER_MOST_S)
        while len(self._pending) < about and not self._closing:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return
            self._wake_at = about
            self._arrived.wait(remaining_s)

    def _commit(self, jobs: Sequence[_Job]) -> None:
        written = Written()
        before = self._connection.total_changes
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._presence.check()
            for job in jobs:
                self._perform(job, written)
            # COMMIT POINT: when this returns the group's frames are in the WAL and fsync'ed.
            # Crash: before it none of the group is found by the next start, after it all of it.
            self._connection.execute("COMMIT")
            self._presence.check()
        except (sqlite3.Error, StoreGoneError) as error:
            self._roll_back()
            self._failed(jobs, error)
            return
        wrote = self._connection.total_changes != before
        if wrote and self._trouble:
            log.warning("the session store can be written again")
            self._trouble = ""
        with self._mutex:
            self._about = len(jobs) + len(self._pending)
            self._commits += wrote
            self._admissions += written.admissions
            self._events += written.events
        for job in jobs:
            job.answered.release()
        # After the answers: a callback may take a lock that a submitter holds while it waits.
        if written.newest:
            self._on_group(written)

    def _failed(self, jobs: Sequence[_Job], error: sqlite3.Error | StoreGoneError) -> None:
        meant = error if isinstance(error, StoreGoneError) else explain(error, self._path)
        if not self._trouble:
            log.error(
                "the session store can't be written: %s",
                meant,
                extra={"MESSAGE_ID": Notice.DEGRADED},
            )
        self._trouble = str(meant)
        self._fail(jobs, meant)

    def _perform(self, job: _Job, group: Written) -> None:
        db = self._connection
        written = Written()
        db.execute("SAVEPOINT job")
        try:
            job.answer = job.work(db, written)
        except Exception as error:
            # Whatever it is, a defect included: it is the submitter's, and the writer goes on.
            if not db.in_transaction:
                raise  # SQLite has rolled the whole group back (a full disk, an I/O error)
            if isinstance(error, sqlite3.Error | UnicodeEncodeError):
                job.error = explain(error, self._path)
            else:
                job.error = error
            db.execute("ROLLBACK TO job")
        else:
            group.add(written)
        db.execute("RELEASE job")

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("the session store could not roll back")

    @staticmethod
    def _fail(jobs: Sequence[_Job], error: NetclawError) -> None:
        for job in jobs:
            # One each: several threads raising one exception would mix their tracebacks.
            job.error = type(error)(error.what, error.remedy)
            job.answered.release()


def touch(db: sqlite3.Connection, _written: Written) -> None:
    """Write what changes nothing: whether it can be committed is the answer."""
    db.execute("UPDATE meta SET value = value WHERE key = 'schema'")


def closed(path: str) -> StoreClosedError:
    return StoreClosedError(
        f"The session store {path} is closed.", "Try again once the restart is over."
    )
