"""Denies what nobody has answered in time: one thread that waits for the next approval to expire.

Nothing expires while the gate is closed: a person who finds the daemon draining, or not ready yet,
can still answer, and what is overdue at a start expires once the gate opens.
"""

from __future__ import annotations

import logging
import threading

from netclawd.core.approvals import is_overdue
from netclawd.core.session import SessionId, TurnId
from netclawd.daemon.board import Board
from netclawd.daemon.decisions import Decisions
from netclawd.daemon.turn_parts import Parts
from netclawd.errors import ConflictError, NetclawError, StoreClosedError

_log = logging.getLogger(__name__)

#: The wall clock may jump, and the machine may have slept: look at it this often while one is pending.
_LOOK_S = 30.0
#: Without one, and with a closed gate: :meth:`Expiry.look` comes first.
_IDLE_S = 3600.0
#: Before one that is due but couldn't be expired is tried again.
_LEAST_S = 0.1


class Expiry:
    def __init__(self, parts: Parts, board: Board, decisions: Decisions) -> None:
        self._parts = parts
        self._board = board
        self._decisions = decisions
        self._wake = threading.Event()

    def look(self) -> None:
        """Look again: something was asked, the gate has opened, or the engine stops. From any thread."""
        self._wake.set()

    def run(self) -> None:
        """Expire one after the other until the engine stops."""
        while True:
            self._wake.clear()
            if self._board.stopping:
                return
            try:
                self.expire_due()
                pause_s = self._until_next()
            except StoreClosedError:
                return
            except NetclawError as error:
                _log.warning("approvals are not expired now, trying again: %s", error.what)
                pause_s = _LOOK_S
            self._wake.wait(pause_s)

    def expire_due(self) -> int:
        """Expire what is due, and return how many approvals that were."""
        if not self._board.lets_expire():
            return 0
        pending = self._parts.store.approvals(pending_only=True)
        now, timeout_s = self._parts.clock.wall(), self._parts.agent.approval_timeout_s
        turns = {a.turn_id: a.session_id for a in pending if is_overdue(a, timeout_s, now)}
        return sum(self._expire(session, turn) for turn, session in turns.items())

    def _expire(self, session_id: SessionId, turn_id: TurnId) -> int:
        try:
            return self._decisions.expire(session_id, turn_id)
        except ConflictError:
            return 0  # Somebody decides about it right now; the next look finds what is left.

    def _until_next(self) -> float:
        if not self._board.lets_expire():
            return _IDLE_S
        asked_at = [asked.asked_at for asked in self._parts.store.approvals(pending_only=True)]
        if not asked_at:
            return _IDLE_S
        left_s = min(asked_at) + self._parts.agent.approval_timeout_s - self._parts.clock.wall()
        return min(max(_LEAST_S, left_s), _LOOK_S)
