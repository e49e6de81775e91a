"""How a message of the outbox comes about and moves on: work of the writer, inside its transaction.

It decides which state a message takes when its text changes or a try of it ends. Invariants:

- What was posted, or may have been, is not PENDING without its receipts: only from PENDING a message
  is posted without a look whether it is there. So the reply of a turn whose first part is under way
  (STREAMING without a receipt) is SENDING, not PENDING, once its whole text is there.
- A turn has at most one row of the kind REPLY. One that a question ends is SAID from then on, under the
  identity that it had; the reply gets another.
- A text that changes counts up ``version``; the state then follows :data:`NEW_TEXT`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from netclawd.adapters.store import reads, rows, writes
from netclawd.core.outgoing import (
    NewOutgoing,
    Outgoing,
    OutgoingId,
    OutgoingKind,
    answered,
    reply_id,
)
from netclawd.core.session import (
    API,
    USER,
    ApprovalChange,
    ApprovalState,
    OutboxChange,
    OutboxState,
    TurnId,
    TurnState,
)
from netclawd.errors import ConflictError, NotFoundError

#: Where a message stands once its text has changed. STREAMING: if it has receipts; otherwise its first post
#: is under way or was cut, and it is SENDING. Nobody knows of an AMBIGUOUS one yet, nor wants a DROPPED one.
NEW_TEXT: dict[OutboxState, OutboxState] = {
    OutboxState.STREAMING: OutboxState.PENDING,
    OutboxState.PENDING: OutboxState.PENDING,
    OutboxState.SENDING: OutboxState.SENDING,
    OutboxState.SENT: OutboxState.PENDING,
    OutboxState.FAILED: OutboxState.PENDING,
    OutboxState.AMBIGUOUS: OutboxState.AMBIGUOUS,
    OutboxState.DROPPED: OutboxState.DROPPED,
}
#: Where a reply stands that was shown before its text was there, or was meant to be.
_WITHOUT_TEXT = (OutboxState.STREAMING, OutboxState.AMBIGUOUS, OutboxState.FAILED)
_MOOT = "It was decided before it was asked here."

MESSAGE = """SELECT o.id, o.channel, o.route, o.kind, o.state, o.text, o.version, o.receipts, s.id, t.id,
    o.requester, o.error, o.attempts, o.at, o.changed_at, o.due_at, o.expires_at
    FROM outgoing o LEFT JOIN sessions s ON s.n = o.session LEFT JOIN turns t ON t.position = o.turn"""
_OF_TURN = """SELECT t.position, t.id, t.state, s.n, s.channel, s.alias, i.origin FROM turns t
    JOIN sessions s ON s.n = t.session JOIN inputs i ON i.n = t.input"""

_BEFORE = """SELECT 1 FROM outgoing INDEXED BY outgoing_by_state
    WHERE state IN ('pending', 'sending') AND channel = ? AND route = ? LIMIT 1"""


def change_reply(db: sqlite3.Connection, position: int, change: OutboxChange, at: float) -> None:
    """Put the reply of a turn of a channel's session into the outbox, or change it there."""
    if change.state is not OutboxState.PENDING or change.text is None:
        raise ConflictError("A reply through a channel enters the outbox PENDING, with its text.")
    turn = db.execute(f"{_OF_TURN} WHERE t.position = ?", (position,)).fetchone()
    message_id, known = find_reply(db, TurnId(turn[1]))
    if known is None:
        _insert_of_turn(db, turn, OutgoingKind.REPLY, message_id, change.text, at)
    else:
        _show(db, known, change.text, at)


def change_question(
    db: sqlite3.Connection, position: int, change: ApprovalChange, at: float
) -> None:
    """Put a question that a turn of a channel's session asks into the outbox, or tell how it was decided."""
    if change.state is ApprovalState.PENDING:
        turn = db.execute(f"{_OF_TURN} WHERE t.position = ?", (position,)).fetchone()
        text = change.question or ""
        _insert_of_turn(db, turn, OutgoingKind.QUESTION, change.id, text, at)
        return
    asked = find(db, OutgoingId(change.id))
    if asked is None:
        return
    _show(db, asked, answered(asked.text, change.state, change.decided_by or ""), at)
    asked = get(db, asked.id)
    if asked.state is OutboxState.PENDING and _is_moot(asked):
        _move(db, asked, OutboxState.DROPPED, at, error=_MOOT)


def put_notice(db: sqlite3.Connection, position: int, seq: int, text: str, at: float) -> None:
    """Put a sentence about a turn into the outbox, once for the event of this number."""
    turn = db.execute(f"{_OF_TURN} WHERE t.position = ?", (position,)).fetchone()
    message_id = f"notice:{turn[1]}:{seq}"
    _insert_of_turn(db, turn, OutgoingKind.NOTICE, message_id, text, at)


def end_reply(db: sqlite3.Connection, turn_id: TurnId, at: float) -> None:
    """Leave no reply STREAMING whose turn has ended without one."""
    _, reply = find_reply(db, turn_id)
    if reply is not None and not reply.version and reply.state in _WITHOUT_TEXT:
        _move(db, reply, OutboxState.DROPPED, at, error="The turn ended without a reply.")


def leave_said(db: sqlite3.Connection, turn_id: TurnId, said: str, at: float) -> None:
    """Let what was shown of a reply in the making stay, with all of ``said``; what comes goes elsewhere.

    Without ``said`` (the model call was cut) it stays as it is, if it is known where.
    """
    _, reply = find_reply(db, turn_id)
    if reply is None or reply.version or reply.state not in _WITHOUT_TEXT:
        return
    if said.strip():
        _show(db, reply, said, at)
    elif reply.state is OutboxState.STREAMING and reply.receipts:
        _move(db, reply, OutboxState.SENT, at)
    else:
        return
    db.execute("UPDATE outgoing SET kind = ? WHERE id = ?", (OutgoingKind.SAID, reply.id))


# -- work of the outbox -------------------------------------------------------------------------------


def put(db: sqlite3.Connection, messages: Sequence[NewOutgoing], at: float) -> None:
    db.executemany(
        """INSERT INTO outgoing (id, channel, route, kind, session, turn, requester, state, text, at,
            changed_at, due_at, expires_at)
            VALUES (?, ?, ?, ?, (SELECT n FROM sessions WHERE id = ?),
            (SELECT position FROM turns WHERE id = ?), ?, 'pending', ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO NOTHING""",
        [
            (
                *(new.id, new.channel, new.route, new.kind, new.session_id, new.turn_id),
                *(new.requester, rows.encode_text(new.text), at, at, at, new.expires_at),
            )
            for new in messages
        ],
    )


def _insert_of_turn(
    db: sqlite3.Connection,
    turn: rows.Row,
    kind: OutgoingKind,
    message_id: str,
    text: str,
    at: float,
    state: OutboxState = OutboxState.PENDING,
) -> None:
    position, _, _, session, channel, alias, origin = turn
    requester = rows.decode(origin).get(USER, "") if origin else ""
    db.execute(
        """INSERT INTO outgoing (id, channel, route, kind, session, turn, requester, state, text, at,
            changed_at, due_at, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO NOTHING""",
        (
            *(message_id, channel, alias or "", kind, session, position, requester, state),
            *(rows.encode_text(text), at, at, at, state is not OutboxState.STREAMING),
        ),
    )


def stream(db: sqlite3.Connection, turn_id: TurnId, at: float) -> Outgoing | None:
    turn = db.execute(f"{_OF_TURN} WHERE t.id = ?", (turn_id,)).fetchone()
    if turn is None:
        raise reads.no_turn(turn_id)
    if turn[4] == API:
        raise ConflictError(f"The turn {turn_id} answers through no channel.")
    message_id, known = find_reply(db, turn_id)
    if known is None:
        if TurnState(turn[2]).ended:
            raise writes.ended(turn_id, turn[2])
        if TurnState(turn[2]) is TurnState.PARKED:
            raise ConflictError(f"The turn {turn_id} is parked: what it said belongs above that.")
        if db.execute(_BEFORE, (turn[4], turn[5])).fetchone() is not None:
            return None
        state = OutboxState.STREAMING
        _insert_of_turn(db, turn, OutgoingKind.REPLY, message_id, "", at, state)
        return get(db, message_id)
    if known.state is not OutboxState.STREAMING:
        raise ConflictError(f"The reply of the turn {turn_id} is {known.state.value} already.")
    return known


def begin(db: sqlite3.Connection, message: Outgoing, at: float) -> bool:
    now = find(db, message.id)
    if now is None or now.state is not OutboxState.PENDING or now.version != message.version:
        return False
    if now.expires_at is not None and now.expires_at <= at:
        _move(db, now, OutboxState.DROPPED, at, error="It was out of date before it could be sent.")
        return False
    _move(db, now, OutboxState.SENDING, at)
    return True


def record(db: sqlite3.Connection, message: Outgoing, receipts: tuple[str, ...], at: float) -> None:
    now = find(db, message.id)
    if now is None:
        return
    _keep(db, now, receipts, at)
    if message.state is OutboxState.STREAMING and now.state is OutboxState.SENDING:
        # The whole reply came while its first part was on its way: now it can be shown there.
        _move(db, now, OutboxState.PENDING, at)


def sent(
    db: sqlite3.Connection, message: Outgoing, receipts: tuple[str, ...], at: float
) -> OutboxState:
    now = get(db, message.id)
    _keep(db, now, receipts, at)
    if now.state is OutboxState.STREAMING:
        return now.state
    state = OutboxState.SENT if now.version == message.version else OutboxState.PENDING
    _move(db, now, state, at, due_at=at, attempts=0)
    return state


def put_off(
    db: sqlite3.Connection, message: Outgoing, due_at: float, error: str, at: float
) -> None:
    now = find(db, message.id)
    if now is None:
        return
    if now.state is OutboxState.STREAMING:
        # Without a receipt there is nothing of it: it begins anew, or with the whole reply.
        if not now.receipts:
            db.execute("DELETE FROM outgoing WHERE id = ?", (now.id,))
        return
    if now.state not in (OutboxState.SENDING, OutboxState.PENDING):
        return
    if _is_moot(now):
        _move(db, now, OutboxState.DROPPED, at, error=_MOOT)
        return
    attempts = now.attempts + 1
    _move(db, now, OutboxState.PENDING, at, error=error, due_at=due_at, attempts=attempts)


def settle(
    db: sqlite3.Connection, message: Outgoing, state: OutboxState, error: str, at: float
) -> None:
    now = find(db, message.id)
    if now is None or now.state in (OutboxState.SENT, OutboxState.DROPPED):
        return
    if state is OutboxState.FAILED and _is_moot(now):
        _move(db, now, OutboxState.DROPPED, at, error=_MOOT)
    elif state is OutboxState.FAILED and now.version != message.version:
        _move(db, now, OutboxState.PENDING, at, due_at=at)  # It was another text that failed.
    else:
        # What is dropped was not tried.
        attempts = now.attempts + (state is not OutboxState.DROPPED)
        _move(db, now, state, at, error=error, attempts=attempts)


def retry(db: sqlite3.Connection, message_id: OutgoingId, at: float) -> Outgoing:
    now = get(db, message_id)
    if now.state not in (OutboxState.AMBIGUOUS, OutboxState.FAILED, OutboxState.PENDING):
        raise ConflictError(
            f"The message {message_id} is {now.state.value}; only one that is ambiguous, failed or "
            "pending can be tried again.",
            "List them: netclaw outbox list.",
        )
    if not now.version:
        raise ConflictError(f"The reply {message_id} is not made yet.", "Try again when it is.")
    _move(db, now, OutboxState.PENDING, at, due_at=at, attempts=0)
    if now.state is not OutboxState.PENDING:  # A person wants it, whatever time it is.
        db.execute("UPDATE outgoing SET expires_at = NULL WHERE id = ?", (message_id,))
    return get(db, message_id)


def drop(db: sqlite3.Connection, message_id: OutgoingId, at: float) -> Outgoing:
    now = get(db, message_id)
    if now.state in (OutboxState.SENT, OutboxState.SENDING):
        what = "was sent" if now.state is OutboxState.SENT else "is being sent"
        raise ConflictError(f"The message {message_id} {what}.", "It can't be dropped now.")
    if now.state is not OutboxState.DROPPED:
        _move(db, now, OutboxState.DROPPED, at, error="Dropped by an operator.")
    return get(db, message_id)


# -- rows ----------------------------------------------------------------------------------------------


def _show(db: sqlite3.Connection, now: Outgoing, text: str, at: float) -> None:
    """Change what a message says; nothing where it says that already."""
    if now.text == text and now.state is not OutboxState.STREAMING:
        return
    state = NEW_TEXT[now.state]
    if now.state is OutboxState.STREAMING and not now.receipts:
        state = OutboxState.SENDING
    db.execute(
        "UPDATE outgoing SET text = ?, version = version + 1 WHERE id = ?",
        (rows.encode_text(text), now.id),
    )
    if state is OutboxState.PENDING and now.state is not OutboxState.PENDING:
        _move(db, now, state, at, due_at=at, attempts=0)
    else:
        _move(db, now, state, at, error=now.error)


def _move(
    db: sqlite3.Connection,
    now: Outgoing,
    state: OutboxState,
    at: float,
    *,
    error: str = "",
    due_at: float | None = None,
    attempts: int | None = None,
) -> None:
    db.execute(
        """UPDATE outgoing SET state = ?, changed_at = ?, error = ?, due_at = coalesce(?, due_at),
            attempts = coalesce(?, attempts) WHERE id = ?""",
        (state, at, error, due_at, attempts, now.id),
    )


def _keep(db: sqlite3.Connection, now: Outgoing, receipts: tuple[str, ...], at: float) -> None:
    db.execute(
        "UPDATE outgoing SET receipts = ?, changed_at = ? WHERE id = ?",
        (json.dumps(receipts), at, now.id),
    )


def _is_moot(now: Outgoing) -> bool:
    """Whether it is a question that was decided and that nobody has seen here."""
    return now.kind is OutgoingKind.QUESTION and now.version > 1 and not now.receipts


def find(db: sqlite3.Connection, message_id: OutgoingId) -> Outgoing | None:
    found = db.execute(f"{MESSAGE} WHERE o.id = ?", (message_id,)).fetchone()
    return None if found is None else as_outgoing(found)


def find_reply(db: sqlite3.Connection, turn_id: TurnId) -> tuple[OutgoingId, Outgoing | None]:
    """Return a turn's reply, if there is one yet, and its name."""
    number = 1
    while (found := find(db, reply_id(turn_id, number))) and found.kind is OutgoingKind.SAID:
        number += 1
    return reply_id(turn_id, number), found


def get(db: sqlite3.Connection, message_id: OutgoingId) -> Outgoing:
    found = find(db, message_id)
    if found is None:
        raise no_message(message_id)
    return found


def no_message(message_id: OutgoingId) -> NotFoundError:
    return NotFoundError(
        f"There is no message {message_id} in the outbox.", "List them: netclaw outbox list."
    )


def as_outgoing(row: rows.Row) -> Outgoing:
    message_id, channel, route, kind, state, text, version, receipts, session_id, *more = row
    turn_id, requester, error, attempts, at, changed_at, due_at, expires_at = more
    return Outgoing(
        id=message_id,
        channel=channel,
        route=route,
        kind=OutgoingKind(kind),
        state=OutboxState(state),
        text=rows.decode_text(text),
        version=version,
        receipts=tuple(json.loads(receipts)),
        session_id=session_id,
        turn_id=turn_id,
        requester=requester,
        error=error,
        attempts=attempts,
        at=at,
        changed_at=changed_at,
        due_at=due_at,
        expires_at=expires_at,
    )
