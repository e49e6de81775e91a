"""The read connections: lent to one thread at a time, taken back, closed at the end.

It touches SQLite connections opened with ``mode=ro``. A pool rather than a connection per thread:
threads end without telling, and their connections would stay open. Invariant: a connection is
either idle in the pool or lent to exactly one caller.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netclawd.adapters.store.faults import explain
from netclawd.adapters.store.writer import closed

#: Idle connections kept for the next reader; more than that are closed when they come back.
IDLE_MOST = 8
#: At close, how long readers get to finish before and after they are interrupted, seconds.
CLOSE_TIMEOUT_S = 1.0


class Readers:
    """A pool of read connections."""

    def __init__(
        self, path: str, connect: Callable[[], sqlite3.Connection], first: sqlite3.Connection
    ) -> None:
        self._path = path
        self._connect = connect
        self._idle = [first]
        self._lent: set[sqlite3.Connection] = set()
        self._returned = threading.Condition()
        self._closed = False

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; StoreClosedError after close, StoreError for what SQLite reports."""
        try:
            connection = self._take()
        except sqlite3.Error as error:  # The file is gone, or no descriptor is free.
            raise explain(error, self._path) from error
        try:
            yield connection
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise explain(error, self._path) from error
        finally:
            self._put_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._returned:
            if self._closed:
                raise closed(self._path)
            # Opening one inside the lock costs a reader a moment now and then; a connection that
            # is opened while the pool closes would cost a leak.
            connection = self._idle.pop() if self._idle else self._connect()
            self._lent.add(connection)
            return connection

    def _put_back(self, connection: sqlite3.Connection) -> None:
        with self._returned:
            self._lent.discard(connection)
            if self._closed or len(self._idle) >= IDLE_MOST:
                connection.close()
            else:
                self._idle.append(connection)
            if not self._lent:
                self._returned.notify_all()

    def close(self) -> None:
        """Close all connections; a reader that takes too long is interrupted first. Idempotent."""
        with self._returned:
            self._closed = True
            if not self._returned.wait_for(self._all_back, CLOSE_TIMEOUT_S):
                for connection in self._lent:
                    connection.interrupt()
                self._returned.wait_for(self._all_back, CLOSE_TIMEOUT_S)
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _all_back(self) -> bool:
        return not self._lent
