"""The thread that keeps the deadlines of all model calls misses none of them."""

from __future__ import annotations

import threading
import time

import pytest

from netclawd.adapters.providers.deadlines import Cut, Deadlines, Line
from tests.waiting import scaled, wait_for

LONG_S = 60.0


class _MovedMeanwhile(Line):
    """Gets a new deadline at the moment when the thread has read the old one."""

    armed = False
    _reads = 0

    @property
    def due(self) -> tuple[float, Cut]:
        found = self._due
        if self.armed and threading.current_thread().name == "deadlines":
            self._reads += 1
            if self._reads == 2:  # First for what is due, then for what is due next.
                self.armed = False
                moving = threading.Thread(target=lambda: self.allow(Cut.IDLE, scaled(0.4)))
                moving.start()
                moving.join(scaled(0.2))
        return found

    @due.setter
    def due(self, due: tuple[float, Cut]) -> None:
        self._due = due


def test_one_that_moves_while_the_next_is_looked_for_is_kept() -> None:
    deadlines = Deadlines()
    with _MovedMeanwhile(deadlines, time.monotonic() + LONG_S) as line:
        line.allow(Cut.IDLE, scaled(0.2))
        wait_for(lambda: deadlines._looks_at < time.monotonic() + 1, 5.0, "the nearer deadline")
        line.allow(Cut.FIRST_BYTE, LONG_S)
        line.armed = True
        wait_for(lambda: line.why is not None, 5.0, "the deadline that came meanwhile")
        assert line.why is Cut.IDLE


def test_a_thread_that_can_not_be_had_is_tried_again_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines = Deadlines()
    with monkeypatch.context() as patch:

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError), Line(deadlines, time.monotonic()):
            pass
    with Line(deadlines, time.monotonic()) as line:
        wait_for(lambda: line.why is Cut.TOTAL, 5.0, "the deadline")
