# ruff: noqa: S608 - only column lists and conditions of rows.py are put in; every value is bound
"""Every question that the store answers, each a function of one read connection.

Touches the database, never writes. A question that takes two statements asks about what never
goes back (a session or a turn, once there, stays), so that each answer is true of one instant.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from netclawd.adapters.store import rows
from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    Admitted,
    Approval,
    ApprovalId,
    EventType,
    InputId,
    OpenProposal,
    OutboxEntry,
    Page,
    RestartId,
    Session,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
)
from netclawd.errors import BadRequestError, KeyReusedError, NotFoundError

#: SQLite's largest integer; a larger one from a client would not bind.
MOST = 2**63 - 1

_TURN = f"""SELECT {rows.TURN_COLUMNS} FROM turns t
    JOIN sessions s ON s.n = t.session JOIN inputs i ON i.n = t.input WHERE t.id = ?"""
# Without INDEXED BY the planner, which has no statistics, walks through all turns there ever were.
_OPEN_TURNS = f"""SELECT {rows.TURN_COLUMNS} FROM turns t INDEXED BY turns_open
    JOIN sessions s ON s.n = t.session JOIN inputs i ON i.n = t.input
    WHERE {rows.OPEN_TURN} ORDER BY t.position"""
_NEXT_TURN = f"""SELECT {rows.TURN_COLUMNS} FROM sessions s
    JOIN turns t INDEXED BY turns_open ON t.session = s.n JOIN inputs i ON i.n = t.input
    WHERE s.id = ? AND {rows.OPEN_TURN} ORDER BY t.position LIMIT 1"""
_SUMMARY = f"""SELECT {rows.EVENT_COLUMNS} FROM events e INDEXED BY events_summarised
    JOIN turns t ON t.position = e.turn WHERE e.session = ? AND e.turn <= ?
    AND e.type = 'context.summarised' ORDER BY e.seq DESC LIMIT 1"""
#: What has had effects is told whatever became of the turn, lest they be had again. What a person said in
#: vain is told too ("try again" refers to it), unless it may be what the failure came of.
_IS_TOLD = """(t.state = 'completed' OR t.state IN ('failed', 'cancelled') AND EXISTS
    (SELECT 1 FROM events b WHERE b.turn = t.position AND (b.type = 'tool.started' OR
    b.type = 'turn.failed' AND json_extract(b.data, '$.slug') NOT IN
    ('context-overflow', 'internal-error', 'provider-refused'))))"""
_OUTBOX = f"""SELECT {rows.OUTBOX_COLUMNS} FROM outbox o
    JOIN turns t ON t.position = o.turn JOIN sessions s ON s.n = t.session"""
_APPROVALS = f"""SELECT {rows.APPROVAL_COLUMNS} FROM approvals a
    JOIN turns t ON t.position = a.turn JOIN sessions s ON s.n = t.session"""


def no_session(session_id: str) -> NotFoundError:
    return NotFoundError(f"There is no session {session_id}.", "List them: netclaw sessions list.")


def no_turn(turn_id: str) -> NotFoundError:
    return NotFoundError(f"There is no turn {turn_id}.", "See netclaw sessions show.")


def no_approval(approval_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no approval {approval_id}.", "List them: netclaw approvals list."
    )


def no_proposal(call_id: str) -> NotFoundError:
    return NotFoundError(f"The call {call_id} has written no configuration.", "See its turn.")


def session(db: sqlite3.Connection, session_id: SessionId) -> Session:
    found = db.execute(
        f"SELECT {rows.SESSION_COLUMNS} FROM sessions s WHERE s.id = ?", (session_id,)
    ).fetchone()
    if found is None:
        raise no_session(session_id)
    return rows.as_session(found)


def alias(db: sqlite3.Connection, channel: str, name: str) -> SessionId | None:
    """Return the session that a channel calls so, None without one."""
    found = db.execute(
        "SELECT id FROM sessions WHERE channel = ? AND alias = ?", (channel, name)
    ).fetchone()
    return None if found is None else SessionId(found[0])


def admitted(
    db: sqlite3.Connection, session_id: SessionId, source_id: str, text: str | None
) -> Admitted | None:
    found = db.execute("SELECT n FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if found is None:
        raise no_session(session_id)
    return first_answer(db, found[0], source_id, text)


def delivered(db: sqlite3.Connection, source_id: str) -> tuple[SessionId, Admitted] | None:
    """Return where a webhook's delivery was admitted; the index is of such source ids alone."""
    found = db.execute(
        """SELECT s.id, i.id, t.id, i.deferred FROM inputs i INDEXED BY inputs_by_delivery
            JOIN sessions s ON s.n = i.session JOIN turns t ON t.input = i.n
            WHERE i.source_id = ? AND i.source_id >= 'hook:' AND i.source_id < 'hook;'
            ORDER BY i.n LIMIT 1""",
        (source_id,),
    ).fetchone()
    return (
        None if found is None else (found[0], Admitted(found[1], found[2], bool(found[3]), False))
    )


def first_answer(
    db: sqlite3.Connection, place: int, source_id: str, text: str | None
) -> Admitted | None:
    """Return what the source id was answered first; KeyReusedError when the text was another."""
    found = db.execute(
        """SELECT i.id, t.id, i.deferred, i.text FROM inputs i JOIN turns t ON t.input = i.n
            WHERE i.session = ? AND i.source_id = ?""",
        (place, source_id),
    ).fetchone()
    if found is None:
        return None
    input_id, turn_id, deferred, first_text = found
    if text not in (None, first_text):
        raise KeyReusedError(
            "That idempotency key was used in this session with another text.",
            "Use a fresh key for a new message.",
        )
    return Admitted(InputId(input_id), TurnId(turn_id), bool(deferred), fresh=False)


def sessions(db: sqlite3.Connection, cursor: str | None, limit: int) -> Page:
    """Newest first; the cursor is the place of the last session of the page before."""
    below = MOST if cursor is None else _parse_cursor(cursor)
    if limit < 1:
        raise BadRequestError("A page has at least one session.", "Ask with a limit from 1.")
    limit = min(limit, MOST - 1)
    found = db.execute(
        f"SELECT {rows.SESSION_COLUMNS} FROM sessions s WHERE s.n < ? ORDER BY s.n DESC LIMIT ?",
        (below, limit + 1),
    ).fetchall()
    page = found[:limit]
    following = f"s{page[-1][0]:x}" if len(found) > limit else None
    return Page(tuple(rows.as_session(row) for row in page), following)


def _parse_cursor(cursor: str) -> int:
    digits = cursor[1:]
    if cursor[:1] == "s" and 1 <= len(digits) <= 15 and set(digits) <= set("0123456789abcdef"):
        return int(digits, 16)
    raise BadRequestError(
        "The cursor is not one that this API gave out.", "Use `next` of the page before, unchanged."
    )


def events(
    db: sqlite3.Connection, session_id: SessionId, after: int, limit: int
) -> tuple[SessionEvent, ...]:
    place = db.execute("SELECT n FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if place is None:
        raise no_session(session_id)
    found = db.execute(
        f"""SELECT {rows.EVENT_COLUMNS} FROM events e LEFT JOIN turns t ON t.position = e.turn
            WHERE e.session = ? AND e.seq > ? ORDER BY e.seq LIMIT ?""",
        (place[0], max(0, min(after, MOST)), max(0, min(limit, MOST))),
    ).fetchall()
    return tuple(rows.as_event(session_id, row) for row in found)


def newest_place(db: sqlite3.Connection) -> int:
    (place,) = db.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()
    return int(place)


def turn(db: sqlite3.Connection, turn_id: TurnId) -> Turn:
    found = db.execute(_TURN, (turn_id,)).fetchone()
    if found is None:
        raise no_turn(turn_id)
    return rows.as_turn(found)


def next_turn(db: sqlite3.Connection, session_id: SessionId) -> Turn | None:
    found = db.execute(_NEXT_TURN, (session_id,)).fetchone()
    return None if found is None else rows.as_turn(found)


def turn_events(db: sqlite3.Connection, turn_id: TurnId) -> tuple[SessionEvent, ...]:
    place = db.execute(
        "SELECT t.position, s.id FROM turns t JOIN sessions s ON s.n = t.session WHERE t.id = ?",
        (turn_id,),
    ).fetchone()
    if place is None:
        raise no_turn(turn_id)
    found = db.execute(
        f"""SELECT {rows.EVENT_COLUMNS} FROM events e JOIN turns t ON t.position = e.turn
            WHERE e.turn = ? ORDER BY e.seq""",
        (place[0],),
    ).fetchall()
    return tuple(rows.as_event(place[1], row) for row in found)


def open_turns(db: sqlite3.Connection) -> tuple[Turn, ...]:
    return tuple(rows.as_turn(row) for row in db.execute(_OPEN_TURNS).fetchall())


def conversation(
    db: sqlite3.Connection, session_id: SessionId, before: TurnId
) -> tuple[SessionEvent, ...]:
    """The newest summary; then what it doesn't cover, turn after turn in order of admission.

    Each turn's events are in order: an input that came while an earlier turn ran therefore follows
    that turn's reply.
    """
    place = db.execute(
        """SELECT t.session, t.position FROM turns t JOIN sessions s ON s.n = t.session
            WHERE t.id = ? AND s.id = ?""",
        (before, session_id),
    ).fetchone()
    if place is None:
        session(db, session_id)
        raise no_turn(before)
    summary = db.execute(_SUMMARY, place).fetchone()
    covered = 0
    if summary is not None:
        (covered,) = db.execute(
            "SELECT turn FROM events WHERE session = ? AND seq = ?",
            (place[0], rows.as_event(session_id, summary).data["upto_seq"]),
        ).fetchone()
    found = db.execute(
        f"""SELECT {rows.EVENT_COLUMNS} FROM turns t JOIN events e ON e.turn = t.position
            WHERE t.session = ? AND t.position < ? AND t.position > ? AND {_IS_TOLD}
            AND e.type <> ? ORDER BY t.position, e.seq""",
        (*place, covered, EventType.CONTEXT_SUMMARISED),
    ).fetchall()
    told = found if summary is None else [summary, *found]
    return tuple(rows.as_event(session_id, row) for row in told)


def outbox(db: sqlite3.Connection, states: Sequence[str]) -> tuple[OutboxEntry, ...]:
    marks = ", ".join("?" * len(states))
    which = f"WHERE o.state IN ({marks})" if states else ""
    found = db.execute(f"{_OUTBOX} {which} ORDER BY o.n", tuple(states)).fetchall()
    return tuple(rows.as_outbox_entry(row) for row in found)


def approvals(db: sqlite3.Connection, pending_only: bool) -> tuple[Approval, ...]:
    which = "WHERE a.state = 'pending'" if pending_only else ""
    found = db.execute(f"{_APPROVALS} {which} ORDER BY a.n").fetchall()
    return tuple(rows.as_approval(row) for row in found)


def approval(db: sqlite3.Connection, approval_id: ApprovalId) -> Approval:
    found = db.execute(f"{_APPROVALS} WHERE a.id = ?", (approval_id,)).fetchone()
    if found is None:
        raise no_approval(approval_id)
    return rows.as_approval(found)


def open_proposals(db: sqlite3.Connection) -> tuple[OpenProposal, ...]:
    found = db.execute(
        f"""SELECT {rows.PROPOSAL_COLUMNS} FROM proposals p JOIN turns t ON t.position = p.turn
            JOIN sessions s ON s.n = t.session WHERE p.outcome IS NULL ORDER BY p.at, p.rowid"""
    ).fetchall()
    return tuple(rows.as_proposal(row) for row in found)


def restarts(db: sqlite3.Connection, limit: int) -> tuple[RestartRecord, ...]:
    found = db.execute(
        "SELECT record FROM restarts ORDER BY n DESC LIMIT ?", (max(0, min(limit, MOST)),)
    ).fetchall()
    return tuple(rows.as_restart(row[0]) for row in found)


def restart(db: sqlite3.Connection, restart_id: RestartId) -> RestartRecord | None:
    found = db.execute("SELECT record FROM restarts WHERE id = ?", (restart_id,)).fetchone()
    return None if found is None else rows.as_restart(found[0])
