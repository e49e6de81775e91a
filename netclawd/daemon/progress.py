"""Whether the parts without which nothing is answered make progress: what WATCHDOG=1 stands for.

The arbiter asks between two effects, so that it makes progress itself is told by its asking. A part that
isn't there in this phase (a closed store, a loop that pauses for execve) is not judged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from netclawd.core import budgets
from netclawd.core.notices import Notice
from netclawd.ports import HttpServer, Store

log = logging.getLogger("netclawd.lifecycle")

#: The shortest limit: the loop of HTTP turns once a second when it has nothing to do.
_LEAST_S = 1.5
#: So often WATCHDOG=1 is sent within the supervisor's time.
_TIMES = 3


def watchdog_s(environ: Mapping[bytes, bytes], pid: int) -> float | None:
    """Return the time within which the supervisor wants WATCHDOG=1; None without a watchdog.

    See sd_watchdog_enabled(3): a WATCHDOG_PID that isn't ours means somebody else.
    """
    text = environ.get(b"WATCHDOG_USEC", b"")
    mine = str(pid).encode()
    if not text.isdigit() or int(text) == 0 or environ.get(b"WATCHDOG_PID", mine) != mine:
        return None
    return int(text) / 1_000_000


class Progress:
    def __init__(self, watchdog: float | None) -> None:
        self._watchdog_s = watchdog
        #: The parts that make none, for people; empty while all do.
        self.stuck = ""

    @property
    def limit_s(self) -> float:
        """Return how long a part may take: STUCK_S, or half of the supervisor's time if that is less."""
        if self._watchdog_s is None:
            return budgets.STUCK_S
        return max(_LEAST_S, min(budgets.STUCK_S, self._watchdog_s / 2))

    def tick_s(self, longest: float) -> float:
        """Return how often to look, seconds: often enough for the supervisor, and each ``longest``."""
        return longest if self._watchdog_s is None else min(longest, self._watchdog_s / _TIMES)

    def look(self, store: Store | None, http: HttpServer | None, now: float) -> bool:
        """Return whether all make progress; the log says it when that changes."""
        stuck = " and ".join(
            name
            for name, since in _waiting(store, http)
            if since is not None and now - since >= self.limit_s
        )
        if stuck != self.stuck:
            if stuck:
                text = "no progress in %g s, WATCHDOG=1 is withheld: %s"
                log.error(text, self.limit_s, stuck, extra={"MESSAGE_ID": Notice.DEGRADED})
            else:
                log.warning("there is progress again: %s", self.stuck)
            self.stuck = stuck
        return not stuck


def _waiting(store: Store | None, http: HttpServer | None) -> Iterator[tuple[str, float | None]]:
    """Yield each part that is there with the instant since which nothing has come of it."""
    if store is not None:
        yield "session store", store.waiting_since()
    if http is not None:
        yield "HTTP loop", http.last_turn()
