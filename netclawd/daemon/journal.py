"""The restart journal: outcomes by request, durable when something happened, and waited for.

An outcome that changed nothing (nothing to do) is remembered in memory only, unless somebody asked
over the control socket and may still be waiting: a file that is touched every minute must not fill
the store.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.errors import StoreClosedError, StoreError
from netclawd.ports import Store

log = logging.getLogger("netclawd.journal")

#: Outcomes kept in memory for those who ask.
KEPT = 256


class Journal:
    def __init__(self) -> None:
        self._recent: OrderedDict[RestartId, RestartRecord] = OrderedDict()
        self._changed = threading.Condition()
        self._store: Store | None = None
        #: Outcomes that came while the store was closed or could not be written.
        self._unwritten: list[RestartRecord] = []

    def attach(self, store: Store | None) -> None:
        """Use this store from now on; None while it is closed. Writes what came meanwhile."""
        self._store = store
        self._write_again()

    def record(self, record: RestartRecord) -> None:
        """Write an outcome and wake who waits for it; PENDING is written for the next start only."""
        if record.outcome is not Outcome.UNCHANGED or record.trigger == "control":
            self._write(record)
        if record.outcome is Outcome.PENDING:
            return
        with self._changed:
            self._recent[record.id] = record
            while len(self._recent) > KEPT:
                self._recent.popitem(last=False)
            self._changed.notify_all()

    def _write(self, record: RestartRecord) -> None:
        """Write it after those that could not be; what fails waits for the next one, or for the end."""
        self._unwritten.append(record)
        self._write_again()

    def _write_again(self) -> None:
        store = self._store
        if store is None:
            return
        try:
            while self._unwritten:
                store.record_restart(self._unwritten[0])
                del self._unwritten[0]
        except StoreError as error:
            log.error("restart not recorded yet: %s", error)
            del self._unwritten[:-KEPT]

    def outcome(self, restart_id: RestartId, wait_s: float) -> RestartRecord | None:
        """Return the outcome, waiting for it; None when it isn't known by then.

        An earlier image's is in the store only, and it would be in vain to wait for that.
        """
        with self._changed:
            known = self._recent.get(restart_id)
        known = known or self._stored(restart_id)
        if known is not None:
            return known
        with self._changed:
            self._changed.wait_for(lambda: restart_id in self._recent, timeout=wait_s)
            return self._recent.get(restart_id)

    def _stored(self, restart_id: RestartId) -> RestartRecord | None:
        store = self._store  # Read once: the arbiter may detach it meanwhile.
        try:
            stored = store.restart(restart_id) if store is not None else None
        except StoreClosedError:
            return None
        return stored if stored is None or stored.outcome is not Outcome.PENDING else None

    def last(self) -> RestartRecord | None:
        """Return the newest outcome that this image has seen or made, other than "unchanged"."""
        with self._changed:
            for record in reversed(self._recent.values()):
                if record.outcome is not Outcome.UNCHANGED:
                    return record
        return None
