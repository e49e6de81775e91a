"""Waitress's task dispatcher on threads of our making, whose signals are blocked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from waitress.task import ThreadedTaskDispatcher

#: Starts a thread with this name; the daemon blocks signals around it.
Spawn = Callable[[str, Callable[[], None]], threading.Thread]


class Workers(ThreadedTaskDispatcher):  # type: ignore[misc]
    """The threads that run requests."""

    def __init__(self, spawn: Spawn, threads: int) -> None:
        super().__init__()
        # Waitress warns there whenever a request has to wait for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._spawn = spawn
        self._running: list[threading.Thread] = []
        self.set_thread_count(threads)

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        self._running.append(self._spawn(f"http-worker-{thread_no}", lambda: target(thread_no)))

    def end(self, until: float) -> bool:
        """Let the threads end, at most until this monotonic instant; return whether all have."""
        self.set_thread_count(0)
        for thread in self._running:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._running)
