"""Follows one durable turn for a client that waits for its answer. In the pump's thread alone.

The store has what is sure, in order; deltas say the same earlier and may come too late or too early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from netclawd.core.answer import Answer
from netclawd.core.session import Delta, EventType, SessionId, TurnId, TurnState
from netclawd.errors import NetclawError
from netclawd.ports import Service

logger = logging.getLogger("netclawd.http.following")

#: Events read from the store at once.
_BATCH = 200


class Teller(Protocol):
    """Who is told; never asked to wait."""

    def on_start(self, answer: Answer) -> None:
        """Hear that what is known of the turn by now was read, before all else."""

    def on_text(self, text: str) -> None: ...
    def on_end(self, answer: Answer) -> None:
        """Hear that ``answer.end`` is there."""

    def on_error(self, error: NetclawError) -> None: ...


class Follower:
    """Tells text as it comes and then, once, the end."""

    def __init__(
        self,
        service: Service,
        session_id: SessionId,
        turn_id: TurnId,
        teller: Teller,
        *,
        live: bool,
    ) -> None:
        self.session_id = session_id
        self._service = service
        self._answer = Answer(turn_id, patient=not live)
        self._teller = teller
        #: Whether text is told before it is durable, and an interruption at once.
        self._live = live
        #: Number of the last event that was read.
        self._cursor = 0
        self.done = False

    def start(self) -> None:
        """Take what has happened already; who calls has registered the follower before."""
        history = self._service.turn_events(self._answer.turn_id)
        self._cursor = max((event.seq for event in history), default=0)
        self._answer.take_history(history)
        self._teller.on_start(self._answer)
        self._look_ahead()
        self._fill()
        self._tell()

    def fail(self, error: NetclawError) -> None:
        """End without an answer: the turn can't be read."""
        if not self.done:
            self.done = True
            self._teller.on_error(error)

    def on_events(self, last_seq: int) -> None:
        if self._cursor < last_seq:
            self._read()
            self._tell()

    def on_delta(self, delta: Delta) -> None:
        if not self._live:
            return
        if not self._answer.place(delta):
            # A commit that this worker has made is not told yet, or a delta came before we listened.
            self._read()
            self._fill()
        self._tell()

    def _read(self) -> None:
        while not self.done:
            events = self._service.events(self.session_id, self._cursor, _BATCH)
            for event in events:
                self._cursor = event.seq
                self._answer.take(event)
            if any(event.type is EventType.TURN_PARKED for event in events):
                self._look_ahead()
            if len(events) < _BATCH:
                return

    def _look_ahead(self) -> None:
        """See whether the turn can't begin because one before it waits for a person."""
        answer = self._answer
        if answer.started or answer.end is not None:
            return
        if self._service.session(self.session_id).turn_state is TurnState.PARKED:
            asked = self._service.approvals(pending_only=True)
            questions = {a.id: a.question for a in asked if a.session_id == self.session_id}
            answer.wait_behind(self.session_id, {str(k): v for k, v in questions.items()})

    def _fill(self) -> None:
        whole = self._service.live_text(self.session_id) if self._live else None
        if whole is not None:
            self._answer.place(whole)

    def _tell(self) -> None:
        if self.done:
            return
        text = self._answer.take_fresh()
        if text:
            self._teller.on_text(text)
        if self._answer.end is not None:
            self.done = True
            self._teller.on_end(self._answer)


class Followers:
    """Those who follow, by their sessions."""

    def __init__(self) -> None:
        self._found: dict[SessionId, set[Follower]] = {}

    def __contains__(self, session_id: SessionId) -> bool:
        """Whether anybody follows this session; from any thread."""
        return session_id in self._found

    def add(self, follower: Follower) -> None:
        # Before it reads: a commit that nobody was told of is then read.
        self._found.setdefault(follower.session_id, set()).add(follower)
        self._guarded(follower, follower.start)

    def discard(self, follower: Follower) -> None:
        found = self._found.get(follower.session_id, set())
        found.discard(follower)
        if not found:
            self._found.pop(follower.session_id, None)

    def on_events(self, session_id: SessionId, last_seq: int) -> None:
        for follower in list(self._found.get(session_id, ())):
            self._guarded(follower, partial(follower.on_events, last_seq))

    def on_delta(self, delta: Delta) -> None:
        for follower in list(self._found.get(delta.session_id, ())):
            self._guarded(follower, partial(follower.on_delta, delta))

    def _guarded(self, follower: Follower, tell: Callable[[], None]) -> None:
        try:
            tell()
        except NetclawError as error:
            follower.fail(error)
        except Exception:  # nobody else would ever tell who waits
            logger.exception("an answer could not be followed")
            follower.fail(
                NetclawError("The daemon has a defect.", "Look in its log, and report it.")
            )
        if follower.done:
            self.discard(follower)
