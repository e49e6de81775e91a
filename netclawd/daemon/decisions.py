"""What people decide about turns: cancel one, grant or deny an approval.

A decision is durable when the call returns. A turn is reserved while it is decided about, so that
no worker takes it; a turn that a worker has is asked to stop, and ended over the worker's head if
that takes too long.
"""

from __future__ import annotations

from netclawd.core.session import (
    Approval,
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    Change,
    EventType,
    NewEvent,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.turn import read_turn
from netclawd.daemon.board import Board
from netclawd.daemon.turn_run import Parts, cancellation
from netclawd.errors import ConflictError, NotFoundError

#: How long a cancelled turn's worker may take to write what its tool did.
_CANCEL_TIMEOUT_S = 1.0


class Decisions:
    def __init__(self, parts: Parts, board: Board) -> None:
        self._parts = parts
        self._board = board

    def cancel(self, session_id: SessionId, turn_id: TurnId, by: str) -> Turn:
        """End a turn, wherever it stands; ConflictError when it has ended otherwise."""
        self._open_turn(session_id, turn_id)
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

    def _open_turn(self, session_id: SessionId, turn_id: TurnId) -> None:
        turn = self._parts.store.turn(turn_id)
        if turn.session_id != session_id:
            raise NotFoundError(
                f"The session {session_id} has no turn {turn_id}.", "See its events for its turns."
            )
        if turn.state.ended:
            raise _ended(turn)

    def decide(self, approval_id: ApprovalId, granted: bool, by: str) -> Approval:
        """Write the decision; a worker takes the turn up from there, in this image or the next."""
        store = self._parts.store
        asked = store.approval(approval_id)
        with self._board.reserved(asked.session_id, asked.turn_id, first=True):
            asked = store.approval(approval_id)
            if asked.state is not ApprovalState.PENDING:
                raise ConflictError(
                    f"The approval {approval_id} is {asked.state.value} already.",
                    "See netclaw approvals list.",
                )
            lease = store.lease(asked.turn_id, self._board.generation)
            type_ = EventType.APPROVAL_GRANTED if granted else EventType.APPROVAL_DENIED
            state = ApprovalState.GRANTED if granted else ApprovalState.DENIED
            data = {"approval_id": approval_id, "call_id": asked.call_id, "by": by}
            store.commit(
                Change(
                    lease,
                    (NewEvent(type_, data),),
                    approval=ApprovalChange(approval_id, state, decided_by=by),
                ),
                self._parts.clock.wall(),
            )
        return store.approval(approval_id)


def _ended(turn: Turn) -> ConflictError:
    return ConflictError(
        f"The turn {turn.id} is {turn.state.value} already.", "Send a new message."
    )
