# ruff: noqa: S608 - only names of columns and tables are put in
"""Between rows and values: the columns that each value is read from, and how JSON is written.

Pure. Each ``…_COLUMNS`` matches its ``as_…`` function; a query selects those columns from the
tables under the short names used here (s sessions, i inputs, t turns, e events, o outbox,
a approvals, p proposals).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    Approval,
    ApprovalState,
    EventType,
    OpenProposal,
    OutboxEntry,
    OutboxState,
    ParkReason,
    Proposal,
    Session,
    SessionEvent,
    SessionId,
    Turn,
    TurnState,
    Usage,
)

Row = tuple[Any, ...]

#: True for a turn that has not ended; in the words of the partial index ``turns_open``.
OPEN_TURN = "t.state NOT IN ('completed', 'failed', 'cancelled')"


def _or_else(column: str, table: str, found: str, default: str = "0") -> str:
    """Select a column that a store of an older release, opened for reading only, doesn't have.

    A name that the inner query doesn't know is looked for in the one around it, which has the default.
    """
    inner = f"SELECT {column} FROM {table} later WHERE later.{found}"
    return f"(SELECT ({inner}) FROM (SELECT {default} AS {column}))"


_TOKENS = ("input_tokens", "output_tokens")
_IN_FLIGHT = f"FROM turns t WHERE t.session = s.n AND {OPEN_TURN} ORDER BY t.position LIMIT 1"
SESSION_COLUMNS = f"""s.n, s.id, s.created_at, s.channel, s.last_seq,
    (SELECT t.state {_IN_FLIGHT}), (SELECT t.park_reason {_IN_FLIGHT}),
    {", ".join(_or_else(column, "sessions", "n = s.n") for column in _TOKENS)},
    {_or_else("alias", "sessions", "n = s.n", "NULL")}"""
TURN_COLUMNS = f"""t.id, s.id, i.id, t.state, t.generation, t.resumes, t.interrupted_at,
    t.park_reason, t.position, i.deferred,
    {", ".join(_or_else(column, "turns", "position = t.position") for column in _TOKENS)},
    s.channel, {_or_else("origin", "inputs", "n = i.n", "NULL")}"""
EVENT_COLUMNS = "e.seq, e.type, e.at, t.id, e.data"
OUTBOX_COLUMNS = "t.id, s.id, s.channel, o.state, o.text, o.receipt"
APPROVAL_COLUMNS = f"""a.id, s.id, t.id, a.call_id, a.state, a.question, a.asked_at,
    a.decided_by, {_or_else("name", "approvals", "id = a.id", "''")}"""
PROPOSAL_COLUMNS = "p.call_id, s.id, t.id, p.digest, p.changes, p.at"

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(data: Mapping[str, Any]) -> str:
    """Return ASCII JSON; any text survives in it, lone surrogates of a broken provider included."""
    return _encode(dict(data))


def decode(text: str) -> dict[str, Any]:
    """Read what :func:`encode` wrote."""
    value: dict[str, Any] = json.loads(text)
    return value


def encode_text(text: str) -> str:
    """Return what a model wrote as an ASCII JSON string, for the reason above."""
    return _encode(text)


def decode_text(text: str) -> str:
    """Read what :func:`encode_text` wrote."""
    value: str = json.loads(text)
    return value


def clean(text: str) -> str:
    """Return text that a client wrote so that any column holds it: lone surrogates become ``?``."""
    return text.encode("utf-8", "replace").decode()


def as_session(row: Row) -> Session:
    _, session_id, created_at, channel, last_seq, state, park, *tokens, alias = row
    return Session(
        session_id,
        created_at,
        channel,
        last_seq,
        TurnState(state) if state else None,
        ParkReason(park) if park else None,
        Usage(*tokens),
        alias,
    )


def as_turn(row: Row) -> Turn:
    turn_id, session_id, input_id, state, generation, resumes, interrupted, park, *more = row
    position, late, *tokens, channel, origin = more
    return Turn(
        id=turn_id,
        session_id=session_id,
        input_id=input_id,
        state=TurnState(state),
        generation=generation,
        resumes=resumes,
        interrupted_at=interrupted,
        park_reason=ParkReason(park) if park else None,
        position=position,
        deferred=bool(late),
        usage=Usage(*tokens),
        channel=channel,
        origin=decode(origin) if origin else {},
    )


def as_event(session_id: SessionId, row: Row) -> SessionEvent:
    seq, kind, at, turn_id, data = row
    return SessionEvent(session_id, seq, EventType(kind), at, turn_id, decode(data))


def as_outbox_entry(row: Row) -> OutboxEntry:
    turn_id, session_id, channel, state, text, receipt = row
    return OutboxEntry(turn_id, session_id, channel, OutboxState(state), decode_text(text), receipt)


def as_approval(row: Row) -> Approval:
    approval_id, session_id, turn_id, call_id, state, question, asked_at, decided_by, name = row
    return Approval(
        id=approval_id,
        session_id=session_id,
        turn_id=turn_id,
        call_id=call_id,
        state=ApprovalState(state),
        question=decode_text(question),
        asked_at=asked_at,
        decided_by=decided_by,
        name=name,
    )


def as_proposal(row: Row) -> OpenProposal:
    call_id, session_id, turn_id, digest, changes, at = row
    return OpenProposal(call_id, session_id, turn_id, Proposal(digest, decode(changes)), at)


def as_restart(text: str) -> RestartRecord:
    return RestartRecord.from_dict(decode(text))
