"""Watches one drain: cancels what is due, and says when nothing runs any more.

Runs on a thread of its own and ends with the drain. Runs stop by themselves at their next
checkpoint; only what takes longer than its deadline needs this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from netclawd.daemon.board import Board
from netclawd.daemon.resumption import Resumption
from netclawd.ports import Clock

_log = logging.getLogger(__name__)


class DrainWatch:
    def __init__(
        self,
        clock: Clock,
        board: Board,
        resumption: Resumption,
        on_drained: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._board = board
        self._resumption = resumption
        self._on_drained = on_drained

    def run(self) -> None:
        self._resumption.stop_untaken()
        board = self._board
        with board.cond:
            while (board.runs or board.calls) and not board.stopping and board.drain is not None:
                now = self._clock.monotonic()
                if now >= board.drain.deadline:
                    break
                board.cond.wait(self._cancel_due(now) - now)
            left, calls = len(board.runs), len(board.calls)
            if board.drain is None:
                left = calls = 0
            if left or calls:
                board.abandon_runs()
        if left:
            _log.warning("drain ends with turns still running: %d", left)
        if calls:
            _log.warning("drain ends with model calls of clients still running: %d", calls)
        self._on_drained()

    def _cancel_due(self, now: float) -> float:
        """Cancel what is due and return when the next thing is."""
        assert self._board.drain is not None
        drain = self._board.drain
        next_due = drain.deadline
        for call in self._board.calls:
            if drain.model_deadline <= now:
                call.cancel.set()
            else:
                next_due = min(next_due, drain.model_deadline)
        for run in self._board.runs.values():
            due = drain.due(run.doing)
            if due <= now:
                run.cancel.set()
            else:
                next_due = min(next_due, due)
        return next_due
