"""One stream: its socket, and the bounded queue of what it was not sent yet; and who reads a session.

Touched by the pump's thread only.
"""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice

from netclawd.core.session import SessionId

#: A reader that lags by more is dropped; it comes back with Last-Event-ID. Larger than the event of the
#: largest message, so that one such event alone doesn't make a reader late.
MAX_QUEUED_BYTES = 2 << 20
#: A reader that catches up is given more only below this; one below it isn't late, however large an
#: event is (else no reader could ever pass that event).
LOW_WATER_BYTES = 256 << 10
#: Chunks given to one sendmsg(2).
_VECTOR = 64


class Stream:
    """A connection that carries one answer without an end in sight, and nothing else any more."""

    __slots__ = (
        "_chunks",
        "_pinned",
        "ending",
        "fd",
        "listener",
        "peer",
        "queued_bytes",
        "sent_at",
        "session_id",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        peer: tuple[str | int, ...],
        listener: str,
        session_id: SessionId | None,
        head: bytes,
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.listener = listener
        #: Whose text it carries, None when it is no session's.
        self.session_id = session_id
        #: Whether the last word has been queued.
        self.ending = False
        #: Monotonic instant of the last send.
        self.sent_at = 0.0
        #: The head of the response, and behind it what is said.
        self._chunks: deque[bytes | memoryview] = deque([head] if head else ())
        self.queued_bytes = len(head)
        #: Whether the first chunk must be kept: it is the head, or it is half sent.
        self._pinned = bool(head)

    def push(self, chunk: bytes) -> bool:
        """Queue a chunk; return False when the reader lags too far behind."""
        if self.ending:
            return True
        late = self.queued_bytes >= LOW_WATER_BYTES
        if late and self.queued_bytes + len(chunk) > MAX_QUEUED_BYTES:
            return False
        self._chunks.append(chunk)
        self.queued_bytes += len(chunk)
        return True

    def end(self, chunk: bytes) -> None:
        """Queue the last word right after the head, or after what is half sent.

        What was queued but not begun is dropped: it was never received, so the reader's
        Last-Event-ID asks for it again.
        """
        while len(self._chunks) > int(self._pinned):
            self._chunks.pop()
        self._chunks.append(chunk)
        self.queued_bytes = sum(len(c) for c in self._chunks)
        self.ending = True

    def send(self, now: float) -> bool:
        """Send what the socket takes; return whether the queue is empty. OSError: it is gone."""
        while self._chunks:
            try:
                sent = self.sock.sendmsg(list(islice(self._chunks, _VECTOR)))
            except (BlockingIOError, InterruptedError):
                return False
            self.sent_at = now
            self._skip(sent)
        return True

    def _skip(self, sent: int) -> None:
        self.queued_bytes -= sent
        self._pinned = False
        while sent:
            first = self._chunks.popleft()
            if sent < len(first):
                self._chunks.appendleft(memoryview(first)[sent:])
                self._pinned = True
                return
            sent -= len(first)


class Watcher(Stream):
    """A reader of a session's events."""

    __slots__ = ("cursor", "live")

    session_id: SessionId

    def __init__(
        self,
        sock: socket.socket,
        peer: tuple[str | int, ...],
        listener: str,
        session_id: SessionId,
        cursor: int,
        head: bytes,
    ) -> None:
        super().__init__(sock, peer, listener, session_id, head)
        #: Number of the last durable event queued for this reader.
        self.cursor = cursor
        #: Whether it has caught up, so that broadcasts are for it.
        self.live = False
