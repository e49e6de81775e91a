"""Tells watchers of commits and of text as it comes; keeps the text so far of each running reply.

Nothing here is durable. Watchers are called outside the lock, on the thread that has the news: the
store's writer for commits, the turn's worker for text. So the text of one attempt comes in order.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from netclawd.core.session import Delta, SessionId, TurnId
from netclawd.ports import Watch


@dataclass(slots=True)
class _Live:
    """A reply that is being made."""

    turn_id: TurnId
    step: int
    attempt: int
    #: Characters so far.
    length: int = 0
    parts: list[str] = field(default_factory=list)


class Broadcast:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: tuple[Watch, ...] = ()
        self._live: dict[SessionId, _Live] = {}

    def watch(self, watch: Watch) -> None:
        with self._lock:
            self._watches = (*self._watches, watch)

    def unwatch(self, watch: Watch) -> None:
        with self._lock:
            self._watches = tuple(w for w in self._watches if w is not watch)

    def on_commit(self, session_id: SessionId, last_seq: int) -> None:
        """Pass on a commit; the callback for :meth:`netclawd.ports.Store.on_commit`."""
        for watch in self._watches:
            watch.on_events(session_id, last_seq)

    def begin(self, session_id: SessionId, turn_id: TurnId, step: int, attempt: int) -> None:
        """Begin the text of an attempt, empty."""
        with self._lock:
            self._live[session_id] = _Live(turn_id, step, attempt)

    def say(self, session_id: SessionId, text: str) -> None:
        """Add to the text of the attempt that was begun last."""
        if not text:
            return
        with self._lock:
            live = self._live.get(session_id)
            if live is None:
                return
            delta = Delta(session_id, live.turn_id, live.step, live.attempt, live.length, text)
            live.parts.append(text)
            live.length += len(text)
            watches = self._watches
        for watch in watches:
            watch.on_delta(delta)

    def end(self, session_id: SessionId) -> None:
        """Forget the text: it is durable now, or was dropped."""
        with self._lock:
            self._live.pop(session_id, None)

    def live_text(self, session_id: SessionId) -> Delta | None:
        """Return the text so far as one delta, None when there is none."""
        with self._lock:
            live = self._live.get(session_id)
            if live is None or not live.length:
                return None
            live.parts = ["".join(live.parts)]
            return Delta(session_id, live.turn_id, live.step, live.attempt, 0, live.parts[0])
