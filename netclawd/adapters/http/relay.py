"""Answers of which nobody knows when they come: a stream that is fed from any thread, and a wait.

Both have left their worker (leaving.py) and belong to the pump, so that a thousand of them hold no
thread. Who feeds one never waits: what is said lies in an inbox until the pump has its turn.

A :class:`Relay` sends its head with the first words, so that a failure before them is still an answer with a
status of its own. A head that was held back for long goes out alone: then comments can keep the
connection alive. A :class:`Ticket` has its request run again once the answer is there.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from netclawd.adapters.http.watcher import Stream
from netclawd.core.session import SessionId
from netclawd.core.values import frozen, replace
from netclawd.errors import NetclawError


class Words(Protocol):
    """How the answer of a relay looks on the wire."""

    def head(self) -> bytes:
        """Return the head of the response, and what comes before all else that is said."""

    def failure(self, error: NetclawError, *, begun: bool) -> bytes:
        """Return the last words of a stream, or a whole response if it has not ``begun``."""

    def cut(self) -> NetclawError:
        """Return what is to be said when a drain ends the stream."""


def _nothing() -> None:
    return None


@frozen
class Ends:
    """Who is told, in the pump's thread and once each."""

    #: The client has closed its connection, or reads too slowly.
    lost: Callable[[], None] = _nothing
    #: Nothing that is said is heard any more.
    over: Callable[[], None] = _nothing


_TOLD = Ends()


class Relay(Stream):
    """A stream whose words come from any thread."""

    __slots__ = ("_ends", "_inbox", "_poke", "_words", "attached", "begun", "is_over", "since")

    def __init__(
        self,
        words: Words,
        session_id: SessionId | None,
        poke: Callable[[Relay], None],
        ends: Ends,
    ) -> None:
        self._words = words
        self._poke = poke
        self._ends = ends
        #: Bytes to be sent; None behind the last of them; an error instead of both.
        self._inbox: deque[bytes | NetclawError | None] = deque()
        self.session_id = session_id
        #: Whether nobody listens any more.
        self.is_over = False
        #: Whether it has its socket.
        self.attached = False
        #: Whether the head has been queued.
        self.begun = False
        #: Monotonic instant at which it got its socket.
        self.since = 0.0

    # -- any thread ------------------------------------------------------------------------------

    def say(self, chunk: bytes) -> None:
        self._inbox.append(chunk)
        self._tell()

    def finish(self, chunk: bytes) -> None:
        """Say the last words."""
        self._inbox.append(chunk)
        self._inbox.append(None)
        self._tell()

    def fail(self, error: NetclawError) -> None:
        """End with an error."""
        self._inbox.append(error)
        self._tell()

    def _tell(self) -> None:
        # Whoever still feeds what is over must not wake a pump that has come to rest.
        if not self.is_over:
            self._poke(self)

    # -- the loop's thread, then the pump's --------------------------------------------------------

    def attach(
        self,
        sock: socket.socket,
        peer: Any,
        listener: str,
        pending: bytes,
        now: float,
    ) -> None:
        """Take the connection; ``pending`` is output of earlier requests."""
        super().__init__(sock, peer, listener, self.session_id, pending)
        self.attached, self.since = True, now

    def pull(self) -> bool:
        """Queue what the inbox has; return False when the reader lags too far behind."""
        while self._inbox and not self.ending:
            item = self._inbox.popleft()
            if isinstance(item, NetclawError):
                self._fail(item)
            elif item is None:
                self.ending = True
            else:
                self.begin()
                if not self.push(item):
                    return False
        return True

    def begin(self) -> None:
        """Queue the head, if that has not been done."""
        if not self.begun:
            self.begun = True
            # It must not be taken back by a last word.
            self._pinned = True
            begin = b"".join((*self._chunks, self._words.head()))
            self._chunks.clear()
            self._chunks.append(begin)
            self.queued_bytes = len(begin)

    def cut(self) -> None:
        """End with the words of a drain, unless the last words were said already."""
        self.pull()
        if not self.ending:
            self.end(self._words.failure(self._words.cut(), begun=self.begun))

    def _fail(self, error: NetclawError) -> None:
        self.push(self._words.failure(error, begun=self.begun))
        self.ending = True

    def over(self, *, lost: bool) -> None:
        """Hear that the stream is over."""
        self.is_over = True
        ends, self._ends = self._ends, _TOLD
        if lost:
            ends.lost()
        ends.over()


class Ticket:
    """A request that waits for its answer without a thread."""

    __slots__ = ("_answer", "_ends", "_is_over", "_settle", "fd", "waiting", "wake")

    def __init__(self, settle: Callable[[Ticket], None], ends: Ends) -> None:
        self._settle = settle
        self._ends = ends
        self._answer: Any = None
        self._is_over = False
        self.fd = -1
        #: Whether the pump watches over it.
        self.waiting = False
        self.wake: Callable[[], None] = _nothing

    @property
    def answer(self) -> Any:
        """What it was given; None when the wait was ended before that."""
        return self._answer

    def give(self, answer: Any) -> None:
        """Give it the answer, once; from any thread."""
        self._answer = answer
        if not self._is_over:
            self._settle(self)

    def lose(self) -> None:
        """Hear that the client may be gone; the answer is waited for all the same."""
        ends, self._ends = self._ends, replace(self._ends, lost=_nothing)
        ends.lost()

    def over(self, *, lost: bool) -> None:
        """Hear that nobody waits any more."""
        self._is_over = True
        ends, self._ends = self._ends, _TOLD
        if lost:
            ends.lost()
        ends.over()
