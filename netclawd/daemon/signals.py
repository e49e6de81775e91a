"""Signals: blocked everywhere but in the main thread, delivered as bytes in a pipe.

Invariant: no handler does anything. The C-level handler of CPython writes the signal's number into
the wakeup pipe (signal.set_wakeup_fd) and the arbiter reads it. HUP, TERM, INT, USR1, USR2 and CHLD
are blocked before the first thread starts; every thread inherits that mask, so after
:meth:`SignalPipe.unblock` the kernel can deliver them to the main thread only. With only the main
thread's mask set, a TERM just before execve was seen to be taken by another thread and lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

#: What the arbiter hears of. CHLD only interrupts its wait.
HANDLED = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


def block() -> None:
    """Block the handled signals in this thread and in all that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Block the handled signals for a moment, so that a thread started inside never has them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread that will never be handed a signal."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    with blocked():
        thread.start()
    return thread


class SignalPipe:
    """The wakeup pipe and the handlers; made and used on the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._reader

    def install(self) -> None:
        """Install the handlers; signals that are pending stay pending until :meth:`unblock`."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _hear)

    def unblock(self) -> None:
        """Let signals in. Explicitly, because the mask was inherited through execve."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def read(self) -> list[int]:
        """Return the numbers of the signals that came, in order, without waiting."""
        numbers: list[int] = []
        while True:
            try:
                chunk = os.read(self._reader, 512)
            except BlockingIOError:
                return numbers
            numbers.extend(chunk)
            if len(chunk) < 512:
                return numbers

    def close(self) -> None:
        """Give the signals back their defaults and close the pipe."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)


def _hear(_number: int, _frame: object) -> None:
    """Do nothing: the byte in the pipe is the message."""
