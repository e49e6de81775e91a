"""What people decide about turns: park, resume or cancel one, grant or deny an approval.

A decision is durable when the call returns. A turn is reserved while it is decided about, so that
no worker takes it; a turn that a worker has is asked to stop, and ended over the worker's head if
that takes too long.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from netclawd.core.approvals import is_overdue
from netclawd.core.session import (
    Approval,
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    Change,
    EventType,
    NewEvent,
    ParkReason,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.turn import read_turn
from netclawd.core.warm_up import plan_park
from netclawd.daemon import records
from netclawd.daemon.board import Board
from netclawd.daemon.resumption import Resumption
from netclawd.daemon.turn_parts import Begin, Parts
from netclawd.daemon.turn_run import TurnRun, cancellation
from netclawd.errors import ConflictError, NetclawError, NotFoundError

_log = logging.getLogger(__name__)

#: How long a cancelled turn's worker may take to write what its tool did.
_CANCEL_TIMEOUT_S = 1.0

_DECISIONS = {
    ApprovalState.GRANTED: EventType.APPROVAL_GRANTED,
    ApprovalState.DENIED: EventType.APPROVAL_DENIED,
    ApprovalState.EXPIRED: EventType.APPROVAL_EXPIRED,
}


class Decisions:
    def __init__(self, parts: Parts, board: Board, resumption: Resumption, begin: Begin) -> None:
        self._parts = parts
        self._board = board
        self._resumption = resumption
        self._begin = begin

    # -- park and resume -----------------------------------------------------------------------

    def park(
        self, session_id: SessionId, turn_id: TurnId | None, by: str, tool_timeout_s: float
    ) -> Turn:
        """Park a turn, and return it as it stands then.

        At once when no worker has it; otherwise at its next checkpoint, until when it is RUNNING: a
        model call is cancelled, a tool has ``tool_timeout_s`` to end. May be asked again; a turn
        that is parked already stays as it is.
        """
        turn = self._open_turn(session_id, turn_id)
        if turn.state is TurnState.PARKED:
            return turn
        told = self._board.park_run_or_reserve(session_id, turn.id, by)
        if told is None:
            return self._park_reserved(turn, by)
        run, in_tool = told
        if in_tool:
            self._begin("park", lambda: self._end_tool(run, tool_timeout_s))
        return self._parts.store.turn(turn.id)

    def _park_reserved(self, turn: Turn, by: str) -> Turn:
        store, parked = self._parts.store, False
        try:
            turn = self._open_turn(turn.session_id, turn.id)
            if turn.state is not TurnState.PARKED:
                ours = turn.generation == self._board.generation
                lease = store.lease(turn.id, self._board.generation)
                # Of what a dead image ran nobody knows whether a model call was under way.
                cut = turn.state is TurnState.RUNNING and not ours
                store.commit(plan_park(lease, by, cut=cut), self._parts.clock.wall())
                records.say_parked(lease, ParkReason.REQUEST)
            parked = True
        finally:
            self._board.release(turn.session_id, turn.id, first=False, parked=parked)
        return store.turn(turn.id)

    def _end_tool(self, run: TurnRun, timeout_s: float) -> None:
        if not self._board.await_end(run, timeout_s):
            run.cancel.set()

    def park_stopped(self, turn: Turn, by: str) -> None:
        """Park a turn that a drain has stopped instead; it is only resumed if that can't be written."""
        try:
            self.park(turn.session_id, turn.id, by, 0.0)
        except NetclawError as error:
            _log.warning("turn was not parked: %s", error.what, extra=records.ids(turn))

    def resume(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Let a parked turn go on with a new budget; while a drain is on: after the restart."""
        store, turn = self._parts.store, self._open_turn(session_id, turn_id)
        self._refuse_to_resume(turn)
        with self._board.reserved(session_id, turn.id, first=True):
            turn = self._open_turn(session_id, turn.id)
            self._refuse_to_resume(turn)
            self._resumption.take_up(turn, by)
            return store.turn(turn.id)

    def _refuse_to_resume(self, turn: Turn) -> None:
        """Raise ConflictError unless a person's word is all that the turn waits for."""
        if turn.state is not TurnState.PARKED:
            raise ConflictError(
                f"The turn {turn.id} is {turn.state.value}, not parked.",
                "Only a parked turn can be resumed.",
            )
        if turn.park_reason is not ParkReason.APPROVAL:
            return
        standing = read_turn(self._parts.store.turn_events(turn.id))
        pending = next(iter(standing.pending_approvals.values()), None)
        if pending is None:
            raise ConflictError(
                f"The approval that the turn {turn.id} waited for is decided.",
                "It goes on by itself.",
            )
        raise ConflictError(
            f"The turn {turn.id} waits for the approval {pending}.",
            f"Decide it: `netclaw approvals grant {pending}`, or deny it.",
        )

    # -- cancel --------------------------------------------------------------------------------

    def cancel(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """End a turn, wherever it stands; ConflictError when it has ended otherwise."""
        turn_id = self._open_turn(session_id, turn_id).id
        run = self._board.cancel_run(session_id, turn_id, by)
        if run is not None and not self._board.await_end(run, _CANCEL_TIMEOUT_S):
            run.end_as_cancelled(by)
        elif self._parts.store.turn(turn_id).state is not TurnState.CANCELLED:
            self._cancel_waiting(session_id, turn_id, by)
        turn = self._parts.store.turn(turn_id)
        if turn.state is not TurnState.CANCELLED:
            raise _ended(turn)
        return turn

    def _cancel_waiting(self, session_id: SessionId, turn_id: TurnId, by: str) -> None:
        store = self._parts.store
        with self._board.reserved(session_id, turn_id, first=False):
            self._open_turn(session_id, turn_id)
            lease = store.lease(turn_id, self._board.generation)
            change = cancellation(lease, read_turn(store.turn_events(turn_id)), by)
            store.commit(change, self._parts.clock.wall())

    def cancel_all(self, session_id: SessionId, by: str) -> tuple[Turn, ...]:
        """End all turns of a session, the newest first, so that none of them begins meanwhile."""
        store = self._parts.store
        first = self._open_turn(session_id, None)
        turns = [turn for turn in store.open_turns() if turn.session_id == session_id]
        ended = []
        for turn in reversed(turns):
            try:
                ended.append(self.cancel(session_id, turn.id, by))
            except ConflictError:
                if not store.turn(turn.id).state.ended:
                    raise
        if not ended:
            raise _ended(store.turn(first.id))
        return tuple(reversed(ended))

    # -- which turn ----------------------------------------------------------------------------

    def _open_turn(self, session_id: SessionId, turn_id: TurnId | None) -> Turn:
        """Return the turn, None: the one that is in flight. NotFoundError, ConflictError: it ended."""
        if turn_id is None:
            return self._turn_in_flight(session_id)
        turn = self._parts.store.turn(turn_id)
        if turn.session_id != session_id:
            raise NotFoundError(
                f"The session {session_id} has no turn {turn_id}.", "See its events for its turns."
            )
        if turn.state.ended:
            raise _ended(turn)
        return turn

    def _turn_in_flight(self, session_id: SessionId) -> Turn:
        turn = self._parts.store.next_turn(session_id)
        if turn is None:
            self._parts.store.session(session_id)
            raise ConflictError(
                f"The session {session_id} has no turn in flight.",
                "All its turns have ended; `netclaw sessions show` has them.",
            )
        return turn

    # -- approvals -----------------------------------------------------------------------------

    def decide(self, approval_id: ApprovalId, granted: bool, by: str) -> Approval:
        """Write the decision; a worker takes the turn up from there, in this image or the next."""
        store = self._parts.store
        asked = store.approval(approval_id)
        with self._board.reserved(asked.session_id, asked.turn_id, first=True):
            asked = store.approval(approval_id)
            if self._is_due(asked):
                self._decide_all([asked], ApprovalState.EXPIRED, "")
                asked = store.approval(approval_id)
            if asked.state is not ApprovalState.PENDING:
                raise ConflictError(
                    f"The approval {approval_id} is {asked.state.value} already.",
                    "See netclaw approvals list.",
                )
            state = ApprovalState.GRANTED if granted else ApprovalState.DENIED
            self._decide_all([asked], state, by)
        return store.approval(approval_id)

    def expire(self, session_id: SessionId, turn_id: TurnId) -> int:
        """Deny all that a turn has asked and that nobody has answered in time; return how many."""
        with self._board.reserved(session_id, turn_id, first=True):
            pending = self._parts.store.approvals(pending_only=True)
            due = [a for a in pending if a.turn_id == turn_id and self._is_due(a)]
            if due:
                self._decide_all(due, ApprovalState.EXPIRED, "")
        for asked in due:
            more = {"SESSION_ID": session_id, "TURN_ID": turn_id, "APPROVAL_ID": asked.id}
            _log.info("approval expired", extra=more)
        return len(due)

    def _is_due(self, asked: Approval) -> bool:
        now, timeout_s = self._parts.clock.wall(), self._parts.agent.approval_timeout_s
        return self._board.lets_expire() and is_overdue(asked, timeout_s, now)

    def _decide_all(self, asked: Sequence[Approval], state: ApprovalState, by: str) -> None:
        """Write what becomes of questions of one turn, which the caller has reserved."""
        store, type_ = self._parts.store, _DECISIONS[state]
        store.commit(
            Change(
                store.lease(asked[0].turn_id, self._board.generation),
                tuple(
                    NewEvent(type_, {"approval_id": a.id, "call_id": a.call_id, "by": by})
                    for a in asked
                ),
                approvals=tuple(ApprovalChange(a.id, state, decided_by=by) for a in asked),
            ),
            self._parts.clock.wall(),
        )


def _ended(turn: Turn) -> ConflictError:
    return ConflictError(
        f"The turn {turn.id} is {turn.state.value} already.", "Send a new message."
    )
