# ruff: noqa: S608 - only lists of columns and conditions of this module are put in; every value is bound
"""What channels receive and what goes out through them: the store's part of :mod:`netclawd.ports.channels`.

Invariant: an event of a channel is remembered in the transaction that admits its input. All that waits
is found by its state, through one index: what was sent costs nothing. How messages move:
``outgoing_moves.py``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from netclawd.adapters.store import outgoing_moves as moves
from netclawd.adapters.store import reads, rows, writes
from netclawd.adapters.store.readers import Readers
from netclawd.adapters.store.writer import Submit, Written
from netclawd.core.budgets import EVENT_MEMORY_S
from netclawd.core.outgoing import (
    ChannelCounts,
    NewOutgoing,
    Outgoing,
    OutgoingId,
    Received,
    Reception,
)
from netclawd.core.session import (
    AdmitInput,
    Admitted,
    OutboxState,
    SessionId,
    TurnId,
)
from netclawd.core.values import replace

#: Events that are forgotten with each one that is remembered, at most.
FORGOTTEN_AT_ONCE = 100

#: What an operator sees counted.
_COUNTED = tuple(s for s in OutboxState if s not in (OutboxState.SENT, OutboxState.DROPPED))

# With min() the other columns are those of the row that holds the minimum
# (https://sqlite.org/lang_select.html#bareagg): the oldest of each conversation. A reply that streams holds
# nothing up: the question that its turn asks comes behind it.
_HEADS = """SELECT min(n) AS n, state, due_at FROM outgoing INDEXED BY outgoing_by_state
    WHERE state IN ('pending', 'sending') AND channel = ? GROUP BY route"""
_OF_HEADS = f"({_HEADS}) h CROSS JOIN outgoing o ON o.n = h.n"
_DUE = f"""{moves.MESSAGE.replace("outgoing o", _OF_HEADS)}
    WHERE h.state = 'pending' AND h.due_at <= ? ORDER BY h.due_at, h.n LIMIT ?"""
_NEXT_DUE = f"SELECT min(due_at) FROM ({_HEADS}) WHERE state = 'pending'"
_BY_STATE = moves.MESSAGE.replace("outgoing o", "outgoing o INDEXED BY outgoing_by_state")
_UNSETTLED = f"""{_BY_STATE} WHERE o.state IN ('sending', 'streaming') AND o.channel = ?
    ORDER BY o.n"""
_NEWEST = f"{_BY_STATE} WHERE o.state = ? ORDER BY o.n DESC LIMIT ?"
_TALLY = f"""SELECT s.channel, 'deferred', count(*) FROM turns t INDEXED BY turns_open
        JOIN sessions s ON s.n = t.session
        WHERE {rows.OPEN_TURN} AND t.state = 'queued' AND s.channel <> 'api' GROUP BY s.channel
    UNION ALL SELECT channel, state, count(*) FROM outgoing INDEXED BY outgoing_by_state
        WHERE state IN ({", ".join("?" * len(_COUNTED))}) GROUP BY channel, state"""


class SqliteOutbox:
    """The ``Outbox`` port; ``there`` is False in a store, opened for reading only, of an older release."""

    def __init__(self, submit: Submit, readers: Readers, *, there: bool) -> None:
        self._submit = submit
        self._readers = readers
        self._there = there

    # -- what comes in ----------------------------------------------------------------------------

    def receive(self, received: Received, at: float) -> Reception:
        """Write what was received, once for each event id."""
        new = received.input
        if new is not None:
            new = replace(new, text=rows.clean(new.text))
            received = replace(received, input=new)
        data = None if new is None else writes.admission(new)
        return self._submit(lambda db, written: _receive(db, written, received, data, at))

    def session_of(self, channel: str, route: str) -> SessionId | None:
        if not self._there:
            return None
        with self._readers.lend() as db:
            return reads.alias(db, channel, route)

    # -- what goes out ----------------------------------------------------------------------------

    def put(self, messages: Sequence[NewOutgoing], at: float) -> None:
        """Put messages into the outbox, PENDING; those whose id is there already are left out."""
        if messages:
            self._submit(lambda db, _: moves.put(db, messages, at))

    def due(self, channel: str, now: float, limit: int) -> tuple[Outgoing, ...]:
        return self._select(_DUE, channel, now, limit)

    def next_due(self, channel: str) -> float | None:
        if not self._there:
            return None
        with self._readers.lend() as db:
            ((due_at,),) = db.execute(_NEXT_DUE, (channel,)).fetchall()
            return None if due_at is None else float(due_at)

    def unsettled(self, channel: str) -> tuple[Outgoing, ...]:
        return self._select(_UNSETTLED, channel)

    def reply(self, turn_id: TurnId) -> Outgoing | None:
        with self._readers.lend() as db:
            return moves.find_reply(db, turn_id)[1]

    def stream(self, turn_id: TurnId, at: float) -> Outgoing | None:
        """Return the reply of a turn that runs, STREAMING if it wasn't there; None: it has to wait."""
        return self._submit(lambda db, _: moves.stream(db, turn_id, at))

    def begin(self, message: Outgoing, at: float) -> bool:
        """Make it SENDING; DROPPED when it is out of date."""
        return self._submit(lambda db, _: moves.begin(db, message, at))

    def record(self, message: Outgoing, receipts: tuple[str, ...], at: float) -> None:
        """Keep the receipts of parts that were posted."""
        self._submit(lambda db, _: moves.record(db, message, receipts, at))

    def sent(self, message: Outgoing, receipts: tuple[str, ...], at: float) -> OutboxState:
        """Make it SENT, or PENDING once more when its text has changed meanwhile."""
        return self._submit(lambda db, _: moves.sent(db, message, receipts, at))

    def put_off(self, message: Outgoing, due_at: float, error: str, at: float) -> None:
        """Make it PENDING again, not to be tried before ``due_at``."""
        self._submit(lambda db, _: moves.put_off(db, message, due_at, error, at))

    def settle(self, message: Outgoing, state: OutboxState, error: str, at: float) -> None:
        """Make it AMBIGUOUS, FAILED or DROPPED."""
        self._submit(lambda db, _: moves.settle(db, message, state, error, at))

    # -- what operators ask -----------------------------------------------------------------------

    def messages(self, states: Sequence[OutboxState], limit: int) -> tuple[Outgoing, ...]:
        if not self._there:
            return ()
        limit = max(0, min(limit, reads.MOST))
        with self._readers.lend() as db:
            if not states:
                newest = f"{moves.MESSAGE} ORDER BY o.n DESC LIMIT ?"
                found = db.execute(newest, (limit,)).fetchall()
                return tuple(moves.as_outgoing(row) for row in reversed(found))
            # One read transaction, so that what changes its state meanwhile is there, and once.
            db.execute("BEGIN")
            try:
                by_place = {
                    place: row
                    for state in dict.fromkeys(states)
                    for place, *row in db.execute(
                        _NEWEST.replace("SELECT", "SELECT o.n,", 1), (state, limit)
                    ).fetchall()
                }
            finally:
                db.execute("COMMIT")
        newest_places = sorted(by_place)[max(0, len(by_place) - limit) :]
        return tuple(moves.as_outgoing(by_place[place]) for place in newest_places)

    def message(self, message_id: OutgoingId) -> Outgoing:
        if not self._there:
            raise moves.no_message(message_id)
        with self._readers.lend() as db:
            return moves.get(db, message_id)

    def retry(self, message_id: OutgoingId, at: float) -> Outgoing:
        """Make an AMBIGUOUS, FAILED or PENDING one due now."""
        return self._submit(lambda db, _: moves.retry(db, message_id, at))

    def drop(self, message_id: OutgoingId, at: float) -> Outgoing:
        """Drop one that isn't SENT nor SENDING."""
        return self._submit(lambda db, _: moves.drop(db, message_id, at))

    def tally(self) -> Mapping[str, ChannelCounts]:
        if not self._there:
            return {}
        with self._readers.lend() as db:
            rows_ = db.execute(_TALLY, _COUNTED).fetchall()
        found: dict[str, dict[str, int]] = {}
        for channel, word, count in rows_:
            found.setdefault(channel, {})[word] = count
        return {
            channel: ChannelCounts(
                words.pop("deferred", 0), {OutboxState(word): n for word, n in words.items()}
            )
            for channel, words in found.items()
        }

    def _select(self, question: str, *values: object) -> tuple[Outgoing, ...]:
        if not self._there:
            return ()
        with self._readers.lend() as db:
            return tuple(moves.as_outgoing(row) for row in db.execute(question, values).fetchall())


# -- work of the writer ---------------------------------------------------------------------------


def _receive(
    db: sqlite3.Connection, written: Written, received: Received, data: str | None, at: float
) -> Reception:
    channel, route, new = received.channel, received.route, received.input
    message_id = received.turned_away if new is None else new.source_id
    turned_away = f"turned away: {route} {message_id}"
    if _is_known(db, channel, received.event_id, at) or (
        message_id is not None and _is_known(db, channel, turned_away, at)
    ):
        return Reception(True, None, reads.alias(db, channel, route))
    _remember(db, channel, received.event_id, at)
    if new is None or data is None:
        session_id = reads.alias(db, channel, route)
        admitted = _admitted(db, session_id, message_id)
        if admitted is None and message_id is not None:
            _remember(db, channel, turned_away, at)
    else:
        session_id = writes.open_session(db, route, new.session_id, at, channel)
        admitted = _admit(db, written, replace(new, session_id=session_id), data, at)
    # Of what was admitted under another event all is said already.
    if admitted is None or admitted.fresh:
        messages = [replace(each, session_id=session_id) for each in received.messages]
        moves.put(db, messages, at)
    return Reception(False, admitted, session_id)


def _is_known(db: sqlite3.Connection, channel: str, event_id: str, at: float) -> bool:
    found = db.execute(
        "SELECT at FROM received WHERE channel = ? AND event_id = ?", (channel, event_id)
    ).fetchone()
    return found is not None and bool(found[0] >= at - EVENT_MEMORY_S)


def _remember(db: sqlite3.Connection, channel: str, event_id: str, at: float) -> None:
    """Remember an event, and forget some of those that nobody delivers again."""
    db.execute("INSERT OR REPLACE INTO received VALUES (?, ?, ?)", (channel, event_id, at))
    db.execute(
        """DELETE FROM received WHERE (channel, event_id) IN (SELECT channel, event_id
            FROM received INDEXED BY received_by_age WHERE at < ? ORDER BY at LIMIT ?)""",
        (at - EVENT_MEMORY_S, FORGOTTEN_AT_ONCE),
    )


def _admitted(
    db: sqlite3.Connection, session_id: SessionId | None, message_id: str | None
) -> Admitted | None:
    """Return what became of a message that was admitted under another event."""
    found = db.execute(
        """SELECT i.id, t.id, i.deferred FROM inputs i JOIN sessions s ON s.n = i.session
            JOIN turns t ON t.input = i.n WHERE s.id = ? AND i.source_id = ?""",
        (session_id, message_id),
    ).fetchone()
    return None if found is None else Admitted(found[0], found[1], bool(found[2]), fresh=False)


def _admit(
    db: sqlite3.Connection, written: Written, new: AdmitInput, data: str, at: float
) -> Admitted:
    """Admit a message; one that is known is known whatever its text, which the platform may have edited."""
    known = _admitted(db, new.session_id, new.source_id)
    return known or writes.admit(db, written, new, data, at)
