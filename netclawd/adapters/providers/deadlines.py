"""Ends model calls: by a cancel, or at a deadline, whatever their socket is doing.

A thread that waits for a socket (a connection, a TLS handshake, a head, a body) is woken by shutting
the socket down from outside: shutdown(2) never blocks and ends them all, a connection in the making
too. So a cancel takes effect at once, and one thread keeps the deadlines of all calls; it lives while
there are any.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Self


class Cut(Enum):
    """Why a call was ended."""

    CANCELLED = auto()
    CONNECT = auto()
    FIRST_BYTE = auto()
    IDLE = auto()
    TOTAL = auto()
    #: The reply is whole, and what lies behind it did not come in time.
    REST = auto()


class LineCutError(OSError):
    """The call was ended meanwhile; its line says why."""


class Line:
    """One attempt of a call: its deadline, and its socket, by a descriptor of our own."""

    def __init__(self, deadlines: Deadlines, total_at: float) -> None:
        self._deadlines = deadlines
        self._total_at = total_at
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._woken = threading.Event()
        #: Monotonic instant of the deadline, and which it is.
        self.due: tuple[float, Cut] = (total_at, Cut.TOTAL)
        self.why: Cut | None = None
        #: Whether the connection was made for an earlier call, until it is made for this one.
        self.reused = True
        #: The head has come; its http.client.HTTPResponse.
        self.answer: Any = None

    def __enter__(self) -> Self:
        self._deadlines.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._deadlines.remove(self)
        with self._lock:
            held, self._socket = self._socket, None
        if held is not None:
            held.close()

    def cancel(self) -> None:
        """End the call; may be called in any thread and never blocks."""
        self.cut(Cut.CANCELLED)

    def cut(self, why: Cut) -> None:
        with self._lock:
            if self.why is None:
                self.why = why
            if self._socket is not None:
                _shut(self._socket)
        self._woken.set()

    def allow(self, cut: Cut, seconds: float) -> None:
        """Set the deadline anew; the total one stands."""
        at = time.monotonic() + seconds
        self.due = (at, cut) if at < self._total_at else (self._total_at, Cut.TOTAL)
        self._deadlines.moved(self.due[0])

    def attach(self, connection: Any) -> None:
        """Hold this socket from now on; LineCutError when the call has been ended."""
        # A TLS socket has no dup(); and after a handshake the plain socket has no descriptor.
        held = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            before, self._socket = self._socket, held
        if before is not None:
            before.close()
        self.check()

    def check(self) -> None:
        if self.why is not None:
            raise LineCutError("the call was ended")

    def connect(self, host: str, port: int, options: Sequence[tuple[Any, ...]]) -> socket.socket:
        """Connect to the first address that answers, in the time that is left."""
        addresses = self._resolve(host, port)
        problem: OSError = OSError("its name has no address")
        for place, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                for option in options:
                    connection.setsockopt(*option)
                self.attach(connection)
                left = self.due[0] - time.monotonic()
                connection.settimeout(max(0.01, left / (len(addresses) - place)))
                connection.connect(address)
            except OSError as error:
                connection.close()
                self.check()
                problem = error
            else:
                connection.settimeout(None)
                return connection
        raise problem

    def _resolve(self, host: str, port: int) -> Sequence[Any]:
        """Find the addresses of a name, in a thread of its own: nothing ends a getaddrinfo(3)."""
        try:
            return socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            pass  # It is no address but a name.
        found: list[Sequence[Any]] = []
        failed: list[Exception] = []

        def look() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                failed.append(error)
            self._woken.set()

        threading.Thread(target=look, name="resolve", daemon=True).start()
        self._woken.wait()  # Bounded by the line's deadline, which ends it.
        self.check()
        if failed:
            words = getattr(failed[0], "strerror", None) or "it is no host name"
            raise OSError(f"its name can't be resolved ({words})")
        return found[0]


class Deadlines:
    """Cuts each line at its deadline."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: set[Line] = set()
        self._running = False
        #: When the thread looks again by itself.
        self._looks_at = math.inf

    def add(self, line: Line) -> None:
        with self._changed:
            if not self._running:
                # It waits for the lock, and finds the line. Where no thread can be had nothing is changed.
                threading.Thread(target=self._run, name="deadlines", daemon=True).start()
                self._running = True
            self._lines.add(line)
        self.moved(line.due[0])

    def moved(self, at: float) -> None:
        """Take note of a deadline; later ones are found when their time has come."""
        if at < self._looks_at:
            with self._changed:
                self._changed.notify()

    def remove(self, line: Line) -> None:
        with self._changed:
            self._lines.discard(line)
            if not self._lines:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._lines:
                now = time.monotonic()
                for line in [line for line in self._lines if line.due[0] <= now]:
                    self._lines.discard(line)
                    line.cut(line.due[1])
                # Whatever moves while the earliest is looked for makes this look again.
                self._looks_at = math.inf
                self._looks_at = min((line.due[0] for line in self._lines), default=now)
                if self._lines:
                    self._changed.wait(self._looks_at - now)
            self._running = False
            self._looks_at = math.inf


def _shut(held: socket.socket) -> None:
    try:
        held.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It is not connected: nothing waits for it.
        pass
