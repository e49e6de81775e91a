"""Which replies of a channel's sessions are being made, and when each may be shown again.

Text comes from the turns' workers, the courier takes it: a message is changed at most once in
:data:`netclawd.core.delivery.EDIT_S`, and first shown so long after its first word, so that a quick
reply is posted once and whole. Nothing here is durable, and nothing is lost with it: the text is
:class:`netclawd.daemon.broadcast.Broadcast`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from netclawd.core.delivery import EDIT_S
from netclawd.core.session import Delta, SessionId, TurnId
from netclawd.daemon.broadcast import Broadcast
from netclawd.errors import NotFoundError


@dataclass(slots=True)
class _Live:
    turn_id: TurnId
    #: Monotonic instant before which it isn't shown.
    show_at: float
    #: Whether it goes through this channel; None: nobody has looked.
    ours: bool | None = None
    #: There is text that was not shown.
    fresh: bool = True


class LiveReplies:
    """Implements :class:`netclawd.ports.Watch`; the other methods are the courier's."""

    def __init__(
        self,
        broadcast: Broadcast,
        monotonic: Callable[[], float],
        is_ours: Callable[[TurnId], bool],
        look: Callable[[], None],
    ) -> None:
        self._broadcast = broadcast
        self._monotonic = monotonic
        self._is_ours = is_ours
        #: Lets the courier look what there is to do.
        self._look = look
        self._lock = threading.Lock()
        self._live: dict[SessionId, _Live] = {}

    def on_events(self, session_id: SessionId, last_seq: int) -> None:  # noqa: ARG002 - the port names them
        """Hear of a commit: it may have put something into the outbox."""
        self._look()

    def on_delta(self, delta: Delta) -> None:
        with self._lock:
            live = self._live.get(delta.session_id)
            if live is not None and live.turn_id == delta.turn_id:
                waits = live.ours is False or live.fresh
                live.fresh = True
            else:
                waits = False
                self._live[delta.session_id] = _Live(delta.turn_id, self._monotonic() + EDIT_S)
        if not waits:
            self._look()

    def due(self) -> tuple[TurnId, str] | None:
        """Return the turn that waits longest of those whose text may be shown now, with all of it; None
        without one. StoreError.

        It counts as shown from here on.
        """
        now = self._monotonic()
        self._sort_out()
        with self._lock:
            ready = [
                (session, live)
                for session, live in self._live.items()
                if live.ours and live.fresh and live.show_at <= now
            ]
        for session_id, live in sorted(ready, key=lambda each: each[1].show_at):
            with self._lock:
                live.fresh, live.show_at = False, now + EDIT_S
            text = self._broadcast.live_text(session_id)
            if text is not None and text.turn_id == live.turn_id and text.text.strip():
                return live.turn_id, text.text
        return None

    def _sort_out(self) -> None:
        """Find out whose replies are ours."""
        self.forget_ended()
        with self._lock:
            unknown = [live for live in self._live.values() if live.ours is None]
        for live in unknown:
            live.ours = self._is_ours_now(live.turn_id)

    def forget_ended(self) -> None:
        """Forget the replies that aren't made any more."""
        with self._lock:
            known = list(self._live.items())
        for session_id, live in known:
            text = self._broadcast.live_text(session_id)
            if text is None or text.turn_id != live.turn_id:
                self._forget(session_id, live)

    def _is_ours_now(self, turn_id: TurnId) -> bool:
        try:
            return self._is_ours(turn_id)
        except NotFoundError:
            return False

    def _forget(self, session_id: SessionId, live: _Live) -> None:
        with self._lock:
            if self._live.get(session_id) is live:
                del self._live[session_id]

    def mute(self, turn_id: TurnId) -> None:
        """Show this one only when it is whole."""
        with self._lock:
            for live in self._live.values():
                if live.turn_id == turn_id:
                    live.ours = False

    def put_off(self, turn_id: TurnId, pause_s: float) -> None:
        """Show this one again, not before so long."""
        with self._lock:
            for live in self._live.values():
                if live.turn_id == turn_id:
                    live.fresh, live.show_at = True, self._monotonic() + pause_s

    def next_at(self) -> float | None:
        """Return the monotonic instant at which there is something to show, None without."""
        with self._lock:
            return min(
                (
                    live.show_at
                    for live in self._live.values()
                    if live.ours is not False and live.fresh
                ),
                default=None,
            )
