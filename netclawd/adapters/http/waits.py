"""Requests that wait without a worker: long polls and tickets. In the pump's thread alone.

Their sockets stay the loop's, which doesn't look at them meanwhile; here is watched only whether the
client is still there. What has waited is woken once: its request is run again by a worker.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable
from itertools import count

from netclawd.adapters.http.relay import Ticket
from netclawd.core.session import SessionId
from netclawd.errors import NetclawError
from netclawd.ports import Service

_GONE_FOR_GOOD = select.EPOLLHUP | select.EPOLLERR


class Poll:
    """A parked long poll."""

    __slots__ = ("after", "fd", "session_id", "until", "waiting", "wake")

    def __init__(
        self, fd: int, session_id: SessionId, after: int, until: float, wake: Callable[[], None]
    ) -> None:
        self.fd = fd
        self.session_id = session_id
        self.after = after
        self.until = until
        self.wake = wake
        self.waiting = True


class Waits:
    """``release`` gives back the place among the streams that each of them takes."""

    def __init__(self, service: Service, epoll: select.epoll, release: Callable[[], None]) -> None:
        self._service = service
        self._epoll = epoll
        self._release = release
        self._polls: dict[SessionId, set[Poll]] = {}
        self._by_fd: dict[int, Poll | Ticket] = {}
        self._timers: list[tuple[float, int, Poll]] = []
        self._order = count()
        self._draining = False

    def __len__(self) -> int:
        return len(self._by_fd)

    def concerns(self, session_id: SessionId) -> bool:
        """Whether events of this session are waited for; from any thread."""
        return session_id in self._polls

    def until(self, otherwise: float) -> float:
        """Return when the next of them is over, at the latest ``otherwise``."""
        return min(otherwise, self._timers[0][0]) if self._timers else otherwise

    def on_ready(self, fd: int, mask: int) -> bool:
        """Hear that a client may be gone; False when nothing waits under this descriptor."""
        waiting = self._by_fd.get(fd)
        if isinstance(waiting, Poll):
            # Gone, or half-closed: answering tells which.
            self._wake(waiting)
        elif waiting is not None:
            self._on_ticket_gone(waiting, mask)
        return waiting is not None

    def on_events(self, session_id: SessionId, last_seq: int) -> None:
        for poll in list(self._polls.get(session_id, ())):
            if last_seq > poll.after:
                self._wake(poll)

    def expire(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            self._wake(heapq.heappop(self._timers)[2])

    def drain(self) -> None:
        """Answer all that waits, now and from now on."""
        self._draining = True
        for waiting in list(self._by_fd.values()):
            if isinstance(waiting, Poll):
                self._wake(waiting)
            else:
                self._answer(waiting, lost=False)

    def undrain(self) -> None:
        self._draining = False

    # -- long polls ------------------------------------------------------------------------------

    def park(self, poll: Poll) -> None:
        self._by_fd[poll.fd] = poll
        self._polls.setdefault(poll.session_id, set()).add(poll)
        self._epoll.register(poll.fd, select.EPOLLRDHUP)
        if self._draining or self._last_seq(poll.session_id) > poll.after:
            self._wake(poll)
        else:
            heapq.heappush(self._timers, (poll.until, next(self._order), poll))

    def _last_seq(self, session_id: SessionId) -> float:
        try:
            return self._service.session(session_id).last_seq
        except NetclawError:
            # The request that is run again says what is wrong.
            return float("inf")

    def _wake(self, poll: Poll) -> None:
        if not poll.waiting:
            return
        poll.waiting = False
        del self._by_fd[poll.fd]
        self._epoll.unregister(poll.fd)
        polls = self._polls[poll.session_id]
        polls.discard(poll)
        if not polls:
            del self._polls[poll.session_id]
        poll.wake()
        self._release()

    # -- tickets ---------------------------------------------------------------------------------

    def hold(self, ticket: Ticket, fd: int, wake: Callable[[], None]) -> None:
        ticket.fd, ticket.wake, ticket.waiting = fd, wake, True
        self._by_fd[fd] = ticket
        self._epoll.register(fd, select.EPOLLRDHUP)
        if self._draining or ticket.answer is not None:
            self._answer(ticket, lost=False)

    def settle(self, ticket: Ticket) -> None:
        if ticket.waiting:
            self._answer(ticket, lost=False)

    def _on_ticket_gone(self, ticket: Ticket, mask: int) -> None:
        ticket.lose()
        if mask & _GONE_FOR_GOOD:
            self._answer(ticket, lost=True)
        else:
            # It may only have ended its side, and still read.
            self._epoll.modify(ticket.fd, 0)

    def _answer(self, ticket: Ticket, *, lost: bool) -> None:
        ticket.waiting = False
        del self._by_fd[ticket.fd]
        self._epoll.unregister(ticket.fd)
        ticket.over(lost=lost)
        ticket.wake()
        self._release()
