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
            while board.runs and not board.stopping and board.drain is not None:
                now = self._clock.monotonic()
                if now >= board.drain.deadline:
                    break
                board.cond.wait(self._cancel_due(now) - now)
            left = len(board.runs) if board.drain is not None else 0
            if left:
                board.abandon_runs()
        if left:
            _log.warning("drain ends with turns still running: %d", left)
        self._on_drained()

    def _cancel_due(self, now: float) -> float:
        """Cancel what is due and return when the next thing is."""
        assert self._board.drain is not None
        next_due = self._board.drain.deadline
        for run in self._board.runs.values():
            due = self._board.drain.due(run.doing)
            if due <= now:
                run.cancel.set()
            else:
                next_due = min(next_due, due)
        return next_due
