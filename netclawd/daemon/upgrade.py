"""Looks for the markers of a package upgrade, and keeps what waits for the end of it.

Asked when a request is judged, when a rehearsal has ended and right before execve, because unpacking
may begin at any moment of a restart. :mod:`netclawd.core.upgrade` says what the marker means.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from netclawd.core import upgrade
from netclawd.core.events import Refusal, Request
from netclawd.ports import Clock


class Upgrade:
    """The main thread writes; any thread may look."""

    def __init__(self, paths: Sequence[str], clock: Clock) -> None:
        self._paths = paths
        self._clock = clock
        #: What is asked again when the upgrade is over.
        self.waiting: Request | None = None
        #: Whether the marker was there at the last tick.
        self.seen = False

    def refusal(self) -> Refusal | None:
        """Return what a restart is told now, None when it may go on."""
        fresh = (path for path in self._paths if self._is_fresh(path))
        return next(map(upgrade.refusal, fresh), None)

    def _is_fresh(self, path: str) -> bool:
        try:
            written_at = os.stat(path).st_mtime
        except OSError:
            return False
        return upgrade.is_fresh(written_at, self._clock.wall())

    def hold_back(self, request: Request) -> None:
        """Keep a request that was refused because of the upgrade."""
        self.waiting = upgrade.join(self.waiting, request)

    def take_over(self) -> Request | None:
        """Return what waited, once, when the upgrade is over."""
        if self.seen or self.waiting is None:
            return None
        request, self.waiting = self.waiting, None
        return request

    def look(self) -> bool:
        """Look for the marker; tell whether that has changed since the last look."""
        before, self.seen = self.seen, self.refusal() is not None
        return before != self.seen
