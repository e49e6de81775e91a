"""The ingress gate: whether new turns run, wait or are refused.

Reads never pass it. It is set by the arbiter and read by every thread that admits; a reader that
looked just before it closed has admitted a turn that the engine no longer starts, which is the same
as deferred.
"""

from __future__ import annotations

from netclawd.core.drain import retry_after_s
from netclawd.core.settings import NewWork
from netclawd.core.values import frozen, replace
from netclawd.errors import DrainingError


@frozen
class GateState:
    open: bool = False
    stopping: bool = False
    #: Monotonic end of the drain, None while nothing drains.
    deadline: float | None = None


class Gate:
    def __init__(self, new_work: NewWork) -> None:
        self._new_work = new_work
        self._state = GateState()

    @property
    def state(self) -> GateState:
        return self._state

    @property
    def defers(self) -> bool:
        """Whether what comes while it is closed is kept for later, rather than refused."""
        return self._new_work is NewWork.DEFER

    def open(self) -> None:
        self._state = GateState(open=True)

    def close(self, deadline: float, *, stopping: bool) -> None:
        """Close it for a drain that ends at ``deadline``; an earlier end that is known stands."""
        known = self._state.deadline
        end = deadline if known is None else min(known, deadline)
        self._state = GateState(stopping=stopping, deadline=end)

    def end_drain(self, deadline: float) -> None:
        """The turns are drained: only what requests get is left to wait for."""
        self._state = replace(self._state, deadline=deadline)

    def retry_after_s(self, now: float) -> int:
        return retry_after_s(self._state.deadline, now)

    def judge(self, now: float) -> bool:
        """Return whether an input that comes now is deferred; raise DrainingError if it is refused."""
        state = self._state
        if state.open:
            return False
        if self._new_work is NewWork.DEFER:
            return True
        raise self.refusal(now)

    def refusal(self, now: float) -> DrainingError:
        """Return what is said to new work that can't wait."""
        state = self._state
        return DrainingError(
            "The daemon is stopping." if state.stopping else "The daemon is restarting.",
            "Send the message again after the time in Retry-After.",
            retry_after_s=self.retry_after_s(now),
        )
