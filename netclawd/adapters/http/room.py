"""One watched session: what its watchers have been told, and what a newcomer must hear. Pure.

Durable events have numbers and are broadcast in order. Deltas have none: a room places them by turn,
step, attempt and offset. Invariants: ``seq`` is the number of the last event that every live watcher
has; the text that live watchers have is exactly ``text``, without a hole or a repeat; no delta of a
step is let through after the step's ``model.completed``, whatever thread was faster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from netclawd.adapters.http import sse
from netclawd.core.session import Delta, EventType, SessionEvent, SessionId, TurnId
from netclawd.core.values import replace

W = TypeVar("W")

#: Rendered events that a room keeps for newcomers, so that a crowd doesn't read the store.
_REMEMBERED_BYTES = 1 << 20
_REMEMBERED_EVENTS = 1024
#: Turns whose late deltas are recognised.
_ENDED_TURNS = 16

_ENDINGS = frozenset({EventType.TURN_COMPLETED, EventType.TURN_FAILED, EventType.TURN_CANCELLED})


class HoleError(Exception):
    """A delta begins after the end of the text that is known."""


class Room(Generic[W]):
    """What the watchers of one session share."""

    def __init__(self, session_id: SessionId, seq: int) -> None:
        self.session_id = session_id
        self.seq = seq
        self.watchers: set[W] = set()
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        #: (turn, step, attempt) whose text is being made.
        self._key: tuple[TurnId, int, int] | None = None
        self._pieces: list[str] = []
        self._end = 0
        #: Deltas of this turn below (step, attempt) are superseded.
        self._floor: tuple[TurnId, int, int] | None = None
        self._ended: deque[TurnId] = deque(maxlen=_ENDED_TURNS)

    def remember(self, events: Iterable[SessionEvent]) -> None:
        """Take events up to ``seq`` that were there before the room was."""
        for event in events:
            if event.seq <= self.seq:
                self._take(event)

    def advance(self, events: Iterable[SessionEvent]) -> Iterator[tuple[int, bytes]]:
        """Take the events that follow ``seq``; yield number and rendering of each."""
        for event in events:
            if event.seq == self.seq + 1:
                self.seq = event.seq
                yield event.seq, self._take(event)

    def recent(self, after: int) -> Iterator[tuple[int, bytes]] | None:
        """Return the remembered events after this number, None when they don't reach back to it."""
        first = self.seq - len(self._recent) + 1
        if after + 1 < first:
            return None
        start = after + 1 - first
        return zip(range(after + 1, self.seq + 1), islice(self._recent, start, None), strict=True)

    def place(self, delta: Delta) -> Delta | None:
        """Return what of a delta is new, None for nothing; HoleError when text before it is missing."""
        key = (delta.turn_id, delta.step, delta.attempt)
        if self._superseded(key):
            return None
        if key != self._key:
            if self._key is not None and key[0] == self._key[0] and key < self._key:
                return None
            self._key, self._pieces, self._end = key, [], 0
        if delta.offset > self._end:
            raise HoleError
        fresh = delta.text[self._end - delta.offset :]
        if not fresh:
            return None
        placed = replace(delta, offset=self._end, text=fresh)
        self._pieces.append(fresh)
        self._end += len(fresh)
        return placed

    def text(self) -> Delta | None:
        """Return the text so far as one delta, None without any."""
        if self._key is None or not self._end:
            return None
        turn, step, attempt = self._key
        self._pieces = ["".join(self._pieces)]
        return Delta(self.session_id, turn, step, attempt, 0, self._pieces[0])

    def _superseded(self, key: tuple[TurnId, int, int]) -> bool:
        if key[0] in self._ended:
            return True
        return self._floor is not None and key[0] == self._floor[0] and key < self._floor

    def _take(self, event: SessionEvent) -> bytes:
        self._supersede(event)
        rendered = sse.durable(event)
        self._recent.append(rendered)
        self._recent_bytes += len(rendered)
        while len(self._recent) > 1 and (
            self._recent_bytes > _REMEMBERED_BYTES or len(self._recent) > _REMEMBERED_EVENTS
        ):
            self._recent_bytes -= len(self._recent.popleft())
        return rendered

    def _supersede(self, event: SessionEvent) -> None:
        if event.turn_id is None:
            return
        if event.type is EventType.MODEL_COMPLETED:
            self._floor = (event.turn_id, int(event.data.get("step", 0)) + 1, 0)
        elif event.type is EventType.STEP_RETRY:
            step, attempt = int(event.data.get("step", 0)), int(event.data.get("attempt", 0))
            self._floor = (event.turn_id, step, attempt)
        elif event.type in _ENDINGS:
            self._ended.append(event.turn_id)
        if self._key is not None and self._superseded(self._key):
            self._key, self._pieces, self._end = None, [], 0
