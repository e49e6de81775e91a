"""Keeps the totals of the metrics, and folds new events of the store into them when somebody looks.

Nothing here runs between two looks, but for the two numbers of a restart that the store doesn't
hold. Invariant: each durable event is counted once, however many threads look at the same time and
whichever image committed it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from netclawd.core.counters import (
    DRAIN,
    GAP,
    Totals,
    add_events,
    count_from,
    observe,
    place_of,
)
from netclawd.errors import StoreError
from netclawd.ports import Store

if TYPE_CHECKING:
    from netclawd.core.reading import Census

log = logging.getLogger("netclawd.lifecycle")

#: Events that one question to the store counts at most: a closing store waits for the question.
AT_ONCE = 10_000


class Counters:
    def __init__(self) -> None:
        #: Replaced as a whole.
        self._totals: Totals = {}
        self._census: Census | None = None
        self._lock = threading.Lock()

    @property
    def totals(self) -> Totals:
        """What is counted so far, for the handoff record."""
        return self._totals

    def begin(self, store: Store, handed_over: Totals) -> None:
        """Go on with what the image before has counted; a cold start counts from now on.

        Called before this image writes its first event.
        """
        self._totals = handed_over
        try:
            self._place(store)
        except StoreError as error:
            log.warning("counting begins later: %s", error)  # A start is not held up by this.

    def observe_restart(self, gap_s: float, drain_s: float | None) -> None:
        """Note how long a restart took that has been carried out."""
        with self._lock:
            self._totals = observe(self._totals, GAP, gap_s)
            if drain_s is not None:
                self._totals = observe(self._totals, DRAIN, drain_s)

    def look(self, store: Store | None) -> tuple[Totals, Census | None, bool]:
        """Return the totals, the census, and whether they are fresh or only as last known."""
        if store is None:
            return self._totals, self._census, False
        try:
            self._fold(store)
            self._census = store.census()
        except StoreError:  # Closed for a restart, or out of order: the log of its users says why.
            return self._totals, self._census, False
        return self._totals, self._census, True

    def _fold(self, store: Store) -> None:
        while True:
            known = self._place(store)
            counts = store.count_events(known, AT_ONCE)
            with self._lock:
                if place_of(self._totals) == known:  # Else another look was quicker.
                    self._totals = add_events(self._totals, counts)
            if counts.events < AT_ONCE:
                return

    def _place(self, store: Store) -> int:
        """Return the place up to which events are counted; where there is none, begin now."""
        known = place_of(self._totals)
        if known is not None:
            return known
        newest = store.newest_place()
        with self._lock:
            if place_of(self._totals) is None:
                self._totals = count_from(self._totals, newest)
        return newest
