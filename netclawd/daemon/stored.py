"""What the supervisor keeps for the next start, so that a crash or a restart by it loses no newcomer.

The listeners are handed to it as soon as they are served, and taken back before one of them is retired.
It may be slow to read, so threads of their own tell it, one at a time, and nobody waits for long.
Invariant: what may lie in the store is never made invisible (``sharing.hide``), or the next start
would adopt a socket that nobody finds.

Crash: before they are stored the kernel closes what is new, as it did without a store. Between
taking one back and closing it nothing is left of it, as is meant.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from netclawd.core.notices import Notice
from netclawd.daemon.descriptors import Named
from netclawd.daemon.signals import spawn
from netclawd.errors import NetclawError
from netclawd.ports import FdStore

log = logging.getLogger("netclawd.lifecycle")

#: How long the main thread waits for what is being told, seconds.
_TIMEOUT_S = 2.0


_DEGRADED = {"MESSAGE_ID": Notice.DEGRADED}


class Stored:
    """Called on the main thread."""

    def __init__(self, open_store: Callable[[], FdStore] | None) -> None:
        """``open_store`` is None where no supervisor asks to be told."""
        self._open = open_store
        self._store: FdStore | None = None
        #: Whether the supervisor keeps descriptors; None while nobody knows.
        self._taken: bool | None = None if open_store is not None else False
        #: Names that were taken back.
        self._removed: set[str] = set()
        self._thread: threading.Thread | None = None
        self._ended = False
        #: Why nothing is kept though it should be; empty when all is well.
        self.trouble = ""

    def keep(self, named: Sequence[Named], unclaimed: Sequence[str]) -> None:
        """Have these kept, and nothing more under the names that nobody claimed. Doesn't wait."""
        if self._open is not None and self.rest():
            self._ended = False
            self._thread = spawn("fd-store", lambda: self._keep(named, unclaimed))

    def keeps(self, name: str) -> bool:
        """Whether it may lie in the store; ask at :meth:`rest`."""
        return self._taken is not False and name not in self._removed

    def remove(self, names: Sequence[str]) -> None:
        """Take these back; return when the supervisor has closed them, or after a moment."""
        if not self.rest():
            log.warning("the supervisor does not read: it may hold %s still", ", ".join(names))
            return
        if self._store is None:
            return
        self._removed.update(names)
        self._ended = False
        self._thread = spawn("fd-store", lambda: self._remove(names))
        if not self._join():
            log.warning("the supervisor does not say that it let go of: %s", ", ".join(names))

    def rest(self) -> bool:
        """Touch no descriptor from here on; return whether that is certain."""
        joined = self._join()
        self._ended = True
        return joined

    def _join(self) -> bool:
        if self._thread is None:
            return True
        self._thread.join(_TIMEOUT_S)
        return not self._thread.is_alive()

    # -- on a thread of their own --------------------------------------------------------------

    def _keep(self, named: Sequence[Named], unclaimed: Sequence[str]) -> None:
        try:
            self._taken = self._try_to_keep(named, unclaimed)
        except NetclawError as error:
            log.warning("%s", error, extra=_DEGRADED)
            self.trouble, self._taken = str(error), False
        except OSError as error:
            log.warning("the supervisor was not given the listeners to keep: %s", error)

    def _try_to_keep(self, named: Sequence[Named], unclaimed: Sequence[str]) -> bool | None:
        """Return whether all are kept, None when that is not known."""
        assert self._open is not None
        store = self._store or self._open()
        if unclaimed:
            store.remove(unclaimed)
        for item in named:
            if self._ended:
                return None
            store.store(item.name, item.fd)
        self._store = store
        if store.takes():
            return True
        # Half of them would be worse than none: who ends the process must know which are kept.
        store.remove([item.name for item in named])
        if store.takes():
            self.trouble = (
                "The supervisor has no room for the listeners, which a crash will close: "
                f"set FileDescriptorStoreMax= of the unit to {len(named) + 1} or more."
            )
            log.warning("%s", self.trouble, extra=_DEGRADED)
        else:
            log.info("the supervisor keeps no descriptors: a crash closes the listeners")
        return False

    def _remove(self, names: Sequence[str]) -> None:
        assert self._store is not None
        try:
            if self._store.remove(names):
                return
        except OSError as error:
            log.warning("the supervisor could not be told to let go of listeners: %s", error)
        log.warning("the supervisor may still hold: %s", ", ".join(names))
