"""Every write that the store knows, but for a turn's checkpoints: each a piece of work for the writer.

Each runs inside its own SAVEPOINT on the write connection and may raise after it has written: the
writer takes that back. Invariant: ``sessions.last_seq`` and the events move together, in
:func:`append_events` alone, so that numbers have no holes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from netclawd.adapters.store import reads, rows, schema
from netclawd.adapters.store.reads import first_answer, no_proposal, no_session, no_turn
from netclawd.adapters.store.writer import Written
from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    API,
    USER,
    AdmitInput,
    Admitted,
    CallId,
    EventType,
    Lease,
    ProposalOutcome,
    RestartId,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.errors import ConflictError, FencedError

#: Type and data (as JSON) of an event that has no number yet.
Encoded = tuple[str, str]


def append_events(
    db: sqlite3.Connection,
    written: Written,
    session: tuple[int, SessionId],
    turn: int | None,
    events: Sequence[Encoded],
    at: float,
) -> int:
    """Give the events the next numbers of the session; return the number of the last."""
    place, session_id = session
    ((last,),) = db.execute(
        "UPDATE sessions SET last_seq = last_seq + ? WHERE n = ? RETURNING last_seq",
        (len(events), place),
    ).fetchall()
    first = last - len(events) + 1
    for seq, (kind, data) in enumerate(events, first):
        db.execute(
            "INSERT INTO events (session, seq, turn, type, at, data) VALUES (?, ?, ?, ?, ?, ?)",
            (place, seq, turn, kind, at, data),
        )
    if needed := max(schema.NEW_WORDS.get(kind, 0) for kind, _ in events):
        raise_min_reader(db, needed)
    written.events += len(events)
    written.newest[session_id] = last
    return int(last)


def begin_generation(
    db: sqlite3.Connection, at: float, restart_id: RestartId | None, above: int
) -> int:
    generation = max(current_generation(db), above) + 1
    db.execute("INSERT INTO generations VALUES (?, ?, ?)", (generation, at, restart_id))
    return generation


def current_generation(db: sqlite3.Connection) -> int:
    """Read it anew each time: the one that fences us may have been begun by another process."""
    (newest,) = db.execute("SELECT max(generation) FROM generations").fetchone()
    return newest or 0


def refuse_superseded(db: sqlite3.Connection, generation: int) -> None:
    """FencedError unless this is the current generation."""
    current = current_generation(db)
    if generation != current:
        raise FencedError(
            f"Generation {generation} may not write: the current one is {current}.",
            "A newer daemon has taken over; this one should end.",
        )


def create_session(db: sqlite3.Connection, session_id: SessionId, at: float, channel: str) -> None:
    _insert_session(db, session_id, at, channel, None)


def open_session(
    db: sqlite3.Connection, alias: str, session_id: SessionId, at: float, channel: str
) -> SessionId:
    """Return the session that the channel calls so; make it, with this id, if there is none."""
    found = reads.alias(db, channel, alias)
    if found is None:
        _insert_session(db, session_id, at, channel, alias)
    return found or session_id


def _insert_session(
    db: sqlite3.Connection, session_id: SessionId, at: float, channel: str, alias: str | None
) -> None:
    db.execute(
        "INSERT INTO sessions (id, created_at, channel, alias) VALUES (?, ?, ?, ?)",
        (session_id, at, channel, alias),
    )
    if channel != API:
        raise_min_reader(db, schema.CHANNELS)


def raise_min_reader(db: sqlite3.Connection, needed: int) -> None:
    """Keep releases out that know no such schema."""
    db.execute("UPDATE meta SET value = ? WHERE key = 'min_reader' AND value < ?", (needed, needed))


def admission(new: AdmitInput) -> str:
    """Return the data of the event that tells of an input, as JSON."""
    user = new.origin.get(USER)
    said_by = {"from": user} if user else {}
    return rows.encode(
        {"input_id": new.input_id, "text": new.text, "deferred": new.deferred, **said_by}
    )


def admit(
    db: sqlite3.Connection, written: Written, new: AdmitInput, data: str, at: float
) -> Admitted:
    """Write the input, its turn and its event; ``data`` is the event's, as JSON."""
    found = db.execute("SELECT n FROM sessions WHERE id = ?", (new.session_id,)).fetchone()
    if found is None:
        raise no_session(new.session_id)
    (session,) = found
    if new.source_id is not None and (first := first_answer(db, session, new.source_id, new.text)):
        return first
    input_row = db.execute(
        """INSERT INTO inputs (id, session, source_id, text, deferred, admitted_at, origin)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            new.input_id,
            session,
            new.source_id,
            new.text,
            new.deferred,
            at,
            rows.encode(new.origin) if new.origin else None,
        ),
    ).lastrowid
    turn = db.execute(
        "INSERT INTO turns (id, session, input, state) VALUES (?, ?, ?, ?)",
        (new.turn_id, session, input_row, TurnState.QUEUED),
    ).lastrowid
    event = (EventType.INPUT_ADMITTED, data)
    append_events(db, written, (session, new.session_id), turn, (event,), at)
    written.admissions += 1
    return Admitted(new.input_id, new.turn_id, new.deferred, fresh=True)


def lease(
    db: sqlite3.Connection, turn_id: TurnId, generation: int, *, resumed: bool = False
) -> Lease:
    refuse_superseded(db, generation)
    found = db.execute(
        """SELECT t.position, t.state, s.id FROM turns t JOIN sessions s ON s.n = t.session
            WHERE t.id = ?""",
        (turn_id,),
    ).fetchone()
    if found is None:
        raise no_turn(turn_id)
    position, state, session_id = found
    if TurnState(state).ended:
        raise ended(turn_id, state)
    db.execute(
        "UPDATE turns SET generation = ?, resumes = resumes + ? WHERE position = ?",
        (generation, resumed, position),
    )
    return Lease(turn_id, session_id, generation)


def ended(turn_id: TurnId, state: str) -> ConflictError:
    return ConflictError(f"The turn {turn_id} has ended: it is {state}.", "Send a new message.")


def append(
    db: sqlite3.Connection,
    written: Written,
    session_id: SessionId,
    turn_id: TurnId | None,
    event: Encoded,
    at: float,
) -> int:
    found = db.execute("SELECT n FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if found is None:
        raise no_session(session_id)
    turn = None
    if turn_id is not None:
        of_session = db.execute(
            "SELECT position FROM turns WHERE id = ? AND session = ?", (turn_id, found[0])
        ).fetchone()
        if of_session is None:
            raise no_turn(turn_id)
        (turn,) = of_session
    return append_events(db, written, (found[0], session_id), turn, (event,), at)


def close_proposal(
    db: sqlite3.Connection,
    written: Written,
    call_id: CallId,
    outcome: ProposalOutcome,
    event: Encoded,
    generation: int,
    at: float,
) -> bool:
    """Tell the outcome, unless it was told; the last event of a turn stays its last."""
    refuse_superseded(db, generation)
    found = db.execute(
        """SELECT p.outcome, t.position, t.state, s.n, s.id FROM proposals p
            JOIN turns t ON t.position = p.turn JOIN sessions s ON s.n = t.session
            WHERE p.call_id = ?""",
        (call_id,),
    ).fetchone()
    if found is None:
        raise no_proposal(call_id)
    told, position, state, session, session_id = found
    if told is not None:
        return False
    db.execute("UPDATE proposals SET outcome = ? WHERE call_id = ?", (outcome, call_id))
    turn = None if TurnState(state).ended else position
    append_events(db, written, (session, session_id), turn, (event,), at)
    return True


def record_restart(db: sqlite3.Connection, record: RestartRecord, text: str) -> None:
    """Insert or replace; a replaced entry keeps its place in the journal."""
    db.execute(
        """INSERT INTO restarts (id, requested_at, outcome, generation, record)
            VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (id) DO UPDATE SET requested_at = excluded.requested_at,
            outcome = excluded.outcome, generation = excluded.generation,
            record = excluded.record""",
        (record.id, record.requested_at, record.outcome, record.generation, text),
    )
