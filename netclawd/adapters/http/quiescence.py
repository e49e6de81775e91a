"""Making the HTTP side quiet, without losing a connection. Runs in the loop's thread.

Accepting stops (the kernel's queue keeps newcomers) and idle connections are left alone (their next
bytes are for the new image), while what is running, half received or unsent goes on. That takes
milliseconds, unless a request takes longer than 200 ms: then newcomers are accepted and answered again
until it has ended, so that one slow client doesn't keep all others waiting. At the deadline each that is
still unfinished gets exactly one answer, 503, and is read to its end. When nothing is in progress the
loop pauses.

Crash: at any line the clients see the connection end without an answer, which is what a client that
sent a request and got nothing must expect of a crash; nothing here is durable.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from netclawd.adapters.http import problem
from netclawd.adapters.http.channel import Channel
from netclawd.adapters.http.loop import Loop
from netclawd.adapters.http.sockets import unread
from netclawd.core import budgets
from netclawd.core.listeners import Kept
from netclawd.ports import Quiesced

logger = logging.getLogger("netclawd.http")

#: What an answer that has begun at the deadline gets to become whole, seconds.
_ANSWER_GRACE_S = 0.1
#: What the pump gets beyond the deadline to give back what it has, seconds.
_PUMP_GRACE_S = 1.0
#: At a stop: what an idle client gets to notice the end of its connection, seconds.
_IDLE_LINGER_S = 0.2


class Quiescence:
    """One drain of the HTTP side."""

    def __init__(
        self,
        loop: Loop,
        deadline: float,
        retry_after_s: int,
        done: Callable[[Quiesced], None],
    ) -> None:
        self._loop = loop
        self._deadline = deadline
        self._retry_after_s = retry_after_s
        self._done = done
        self._last_accept = 0.0
        self._cut = 0
        #: What each busy channel is busy with, and since when, as far as we have seen.
        self._seen: dict[Channel, tuple[object, float]] = {}

    def begin(self) -> None:
        """Stop accepting and end the streams."""
        self._last_accept = time.monotonic()
        self._loop.quiescing = True
        self._loop.pump.drain(self._retry_after_s)
        self._loop.each_turn = self.turn

    def turn(self, now: float) -> None:
        """Look whether all is quiet; at the deadline see to it."""
        busy = self._look(now)
        slow = [channel for channel in busy if self._age(channel, now) >= budgets.REQUEST_MINIMUM_S]
        if now >= self._deadline:
            for channel in slow:
                self._overdue(channel, now)
            busy, slow = self._look(now), []
        self._accept(bool(slow), now)
        late = now >= self._deadline + _PUMP_GRACE_S
        # The order matters: what the pump gives back is posted before it ceases to count.
        if busy or ((self._loop.pump.open() or not self._loop.settled()) and not late):
            return
        self._finish()

    def _look(self, now: float) -> list[Channel]:
        """Return the busy channels; note since when each has been busy with the same request."""
        busy = [channel for channel in self._loop.channels() if channel.busy]
        seen = {}
        for channel in busy:
            doing = channel.requests[0] if channel.requests else channel.request
            known = self._seen.get(channel)
            seen[channel] = known if known is not None and known[0] is doing else (doing, now)
        self._seen = seen
        return busy

    def _age(self, channel: Channel, now: float) -> float:
        return now - self._seen[channel][1]

    def _accept(self, accepting: bool, now: float) -> None:
        if not accepting and not self._loop.quiescing:
            self._last_accept = now
        self._loop.quiescing = not accepting

    def _overdue(self, channel: Channel, now: float) -> None:
        unanswered = bool(channel.requests or channel.half_received)
        if unanswered and channel.cut_off():
            self._cut += 1
            raw = problem.cut_response(self._loop.generation(), self._retry_after_s, channel.path)
            self._loop.answer(channel, raw)
        elif not unanswered or now >= self._deadline + _ANSWER_GRACE_S:
            self._loop.answer(channel, b"")

    def _finish(self) -> None:
        self._loop.each_turn = None
        self._loop.paused = True
        kept: list[Kept] = []
        for channel in self._loop.channels():
            # Blank lines after a request are no request.
            channel.request = None
            fd = channel.socket.fileno()
            kept.append(Kept(fd, _peer(channel.peer), channel.listener))
        for lingering in self._loop.lingering():
            fd = lingering.socket.fileno()
            kept.append(Kept(fd, _peer(lingering.peer), lingering.listener, lingering=True))
        self._done(Quiesced(tuple(kept), self._last_accept, self._cut))


def _peer(peer: object) -> tuple[str | int, ...]:
    """Return the peer's address as a tuple.

    A Unix socket's is one empty string: a client may bind its own to any bytes, which no record has
    to carry.
    """
    return peer if isinstance(peer, tuple) else ("",)


class Closing:
    """The end of a quiet server: every connection is closed politely, then the loop ends."""

    def __init__(
        self, loop: Loop, retry_after_s: int, until: float, leave: Collection[str] = ()
    ) -> None:
        self._loop = loop
        self._retry_after_s = retry_after_s
        self._until = until
        self._leave = frozenset(leave)

    def begin(self) -> None:
        """Take what waits in the accept queues, close the listeners, say the end to everybody."""
        loop = self._loop
        now = time.monotonic()
        # A socket that systemd holds keeps its queue for the next daemon; it is its own (the name is no
        # address), or was given to it to keep.
        ours = [n for n in loop.listener_names() if "=" in n and n not in self._leave]
        loop.close_listeners(ours)
        for channel in loop.channels():
            raw = problem.cut_response(loop.generation(), self._retry_after_s, channel.path)
            asked = channel.socket is not None and unread(channel.socket)
            loop.answer(channel, raw if asked else b"")
        for lingering in loop.lingering():
            answered = unread(lingering.socket)
            budget = budgets.LINGER_S if answered else _IDLE_LINGER_S
            lingering.until = min(self._until, now + budget)
        loop.paused = False
        loop.each_turn = self.turn

    def turn(self, now: float) -> None:
        """End the loop when the last connection has ended or its time is up."""
        if all(now >= lingering.until for lingering in self._loop.lingering()):
            self._loop.end()
