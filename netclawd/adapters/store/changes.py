# ruff: noqa: S608 - only column names are put in; every value is bound
"""Apply one checkpoint of a turn: fencing first, then every part of the Change, or nothing.

Runs inside a SAVEPOINT on the write connection. Invariants: only the current generation writes, and
only for turns that it leases; an ended turn never changes again; the outbox and approvals move only
along :data:`OUTBOX_MOVES` and :data:`APPROVAL_MOVES`; a turn has a park reason only while PARKED.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from netclawd.adapters.store import rows, writes
from netclawd.adapters.store.reads import no_approval, no_turn
from netclawd.adapters.store.writer import Written
from netclawd.core.session import (
    API,
    ApprovalChange,
    ApprovalState,
    Change,
    OutboxChange,
    OutboxState,
    ProposalChange,
    TurnState,
    Usage,
)
from netclawd.core.values import frozen
from netclawd.errors import ConflictError, FencedError

#: Where an outbox entry may go from where; None is "there is none". From AMBIGUOUS only a person
#: moves it on: sent again, or found to have arrived.
OUTBOX_MOVES: dict[OutboxState | None, frozenset[OutboxState]] = {
    None: frozenset({OutboxState.PENDING}),
    OutboxState.PENDING: frozenset({OutboxState.SENDING}),
    OutboxState.SENDING: frozenset({OutboxState.SENT, OutboxState.AMBIGUOUS}),
    OutboxState.AMBIGUOUS: frozenset({OutboxState.SENDING, OutboxState.SENT}),
    OutboxState.SENT: frozenset(),
}

APPROVAL_MOVES: dict[ApprovalState | None, frozenset[ApprovalState]] = {
    None: frozenset({ApprovalState.PENDING}),
    ApprovalState.PENDING: frozenset(
        {ApprovalState.GRANTED, ApprovalState.DENIED, ApprovalState.EXPIRED}
    ),
    ApprovalState.GRANTED: frozenset(),
    ApprovalState.DENIED: frozenset(),
    ApprovalState.EXPIRED: frozenset(),
}


@frozen
class _Held:
    """The turn that a lease gives the right to write for."""

    position: int
    session: int
    state: TurnState
    #: The channel of its session.
    channel: str


def apply(
    db: sqlite3.Connection,
    written: Written,
    change: Change,
    events: Sequence[writes.Encoded],
    at: float,
) -> int:
    """Apply the change; return the number of its last event, 0 when it has none."""
    turn = _hold(db, change)
    _update_turn(db, turn, change)
    if change.usage is not None:
        _add_usage(db, turn, change.usage)
    if change.outbox is not None:
        _move_outbox(db, turn, change.outbox, at)
    if turn.channel != API:
        _leave_said(db, change, at)
    for approval in change.approvals:
        _move_approval(db, turn, approval, at)
    if change.proposal is not None:
        _open_proposal(db, turn, change.proposal, at)
    last = 0
    if events:
        session = (turn.session, change.lease.session_id)
        last = writes.append_events(db, written, session, turn.position, events, at)
    if turn.channel != API:
        _tell_channel(db, turn, change, last, at)
    return last


def _hold(db: sqlite3.Connection, change: Change) -> _Held:
    lease = change.lease
    writes.refuse_superseded(db, lease.generation)
    found = db.execute(
        """SELECT t.position, t.session, t.state, s.channel, t.generation FROM turns t
            JOIN sessions s ON s.n = t.session WHERE t.id = ? AND s.id = ?""",
        (lease.turn_id, lease.session_id),
    ).fetchone()
    if found is None:
        raise no_turn(lease.turn_id)
    position, session, state, channel, generation = found
    if generation == 0:  # Nobody has ever held it: a transaction of its own is saved.
        writes.lease(db, lease.turn_id, lease.generation)
    elif generation != lease.generation:
        raise FencedError(
            f"Generation {lease.generation} does not hold the turn {lease.turn_id}: "
            f"generation {generation} does.",
            "Lease the turn before committing for it.",
        )
    if TurnState(state).ended:
        raise writes.ended(lease.turn_id, state)
    return _Held(position, session, TurnState(state), channel)


def _update_turn(db: sqlite3.Connection, turn: _Held, change: Change) -> None:
    state = change.state or turn.state
    if change.park_reason is not None and state is not TurnState.PARKED:
        raise ConflictError(f"A turn that is {state} has no reason to be parked.")
    db.execute(
        """UPDATE turns SET state = ?,
            park_reason = CASE WHEN ? THEN coalesce(?, park_reason) END,
            resumes = CASE WHEN ? THEN 0 ELSE coalesce(?, resumes) END,
            interrupted_at = coalesce(?, CASE WHEN ? THEN NULL ELSE interrupted_at END)
            WHERE position = ?""",
        (
            state,
            state is TurnState.PARKED,
            change.park_reason,
            change.forgiven,
            change.resumes,
            change.interrupted_at,
            change.forgiven,
            turn.position,
        ),
    )


def _add_usage(db: sqlite3.Connection, turn: _Held, usage: Usage) -> None:
    more = "input_tokens = input_tokens + ?, output_tokens = output_tokens + ?"
    tokens = (usage.input_tokens, usage.output_tokens)
    db.execute(f"UPDATE turns SET {more} WHERE position = ?", (*tokens, turn.position))
    db.execute(f"UPDATE sessions SET {more} WHERE n = ?", (*tokens, turn.session))


def _leave_said(db: sqlite3.Connection, change: Change, at: float) -> None:
    """Leave above a question, or the sentence about a park, what people were shown of the reply."""
    from netclawd.adapters.store import outgoing_moves
    from netclawd.core import conversations

    asks = any(approval.state is ApprovalState.PENDING for approval in change.approvals)
    if asks or conversations.said_meanwhile(change.events) is not None:
        outgoing_moves.leave_said(db, change.lease.turn_id, change.said, at)


def _tell_channel(db: sqlite3.Connection, turn: _Held, change: Change, seq: int, at: float) -> None:
    """Put what people are told of a turn besides its reply into the outbox of the session's channel."""
    from netclawd.adapters.store import outgoing_moves
    from netclawd.core import conversations

    instead = conversations.said_instead(change.events)
    if instead is not None and change.outbox is None:
        said = OutboxChange(OutboxState.PENDING, instead)
        outgoing_moves.change_reply(db, turn.position, said, at)
    if (meanwhile := conversations.said_meanwhile(change.events)) is not None:
        outgoing_moves.put_notice(db, turn.position, seq, meanwhile, at)
    if change.state is not None and change.state.ended:
        outgoing_moves.end_reply(db, change.lease.turn_id, at)


def _move_outbox(db: sqlite3.Connection, turn: _Held, change: OutboxChange, at: float) -> None:
    if turn.channel != API:
        from netclawd.adapters.store import outgoing_moves

        outgoing_moves.change_reply(db, turn.position, change, at)
        return
    found = db.execute("SELECT state FROM outbox WHERE turn = ?", (turn.position,)).fetchone()
    old = OutboxState(found[0]) if found else None
    if change.state not in OUTBOX_MOVES[old]:
        raise ConflictError(f"A reply that is {old or 'not written'} can't become {change.state}.")
    if old is None:
        if change.text is None:
            raise ConflictError("A reply can't enter the outbox without its text.")
        db.execute(
            "INSERT INTO outbox (turn, state, text) VALUES (?, ?, ?)",
            (turn.position, change.state, rows.encode_text(change.text)),
        )
    else:
        db.execute(
            "UPDATE outbox SET state = ?, receipt = ? WHERE turn = ?",
            (change.state, change.receipt, turn.position),
        )


def _move_approval(db: sqlite3.Connection, turn: _Held, change: ApprovalChange, at: float) -> None:
    found = db.execute("SELECT state, turn FROM approvals WHERE id = ?", (change.id,)).fetchone()
    if found and found[1] != turn.position:
        raise no_approval(change.id)
    old = ApprovalState(found[0]) if found else None
    if old is None and change.state is not ApprovalState.PENDING:
        raise no_approval(change.id)
    if change.state not in APPROVAL_MOVES[old]:
        raise ConflictError(
            f"The approval {change.id} is {old} and can't become {change.state}.",
            "See netclaw approvals list.",
        )
    if old is None:
        _ask(db, turn, change, at)
    else:
        db.execute(
            "UPDATE approvals SET state = ?, decided_at = ?, decided_by = ? WHERE id = ?",
            (change.state, at, change.decided_by, change.id),
        )
    if turn.channel != API:
        from netclawd.adapters.store import outgoing_moves

        outgoing_moves.change_question(db, turn.position, change, at)


def _ask(db: sqlite3.Connection, turn: _Held, change: ApprovalChange, at: float) -> None:
    if change.question is None or change.call_id is None:
        raise ConflictError("An approval can't be asked for without its question and its call.")
    db.execute(
        """INSERT INTO approvals (id, turn, call_id, state, question, asked_at, name)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            change.id,
            turn.position,
            change.call_id,
            change.state,
            rows.encode_text(change.question),
            at,
            change.name,
        ),
    )


def _open_proposal(db: sqlite3.Connection, turn: _Held, change: ProposalChange, at: float) -> None:
    written = change.proposal
    try:
        db.execute(
            "INSERT INTO proposals (call_id, turn, digest, changes, at) VALUES (?, ?, ?, ?, ?)",
            (change.call_id, turn.position, written.digest, rows.encode(written.changes), at),
        )
    except sqlite3.IntegrityError:
        raise ConflictError(f"The call {change.call_id} has a proposal already.") from None
