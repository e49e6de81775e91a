# ruff: noqa: S608 - only a condition of rows.py is put in; every value is bound
"""The questions of the metrics, each one statement, so that each answer is true of one instant.

Touches the database, never writes. They are asked again and again, so none may walk through all that
there ever was: events are counted from a place on, turns, replies, messages and reminders along the indexes
of those that are not done. Only sessions and the journal of restarts are counted whole.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict

from netclawd.adapters.store import rows, schema
from netclawd.core.counters import EventCounts
from netclawd.core.reading import Census
from netclawd.core.session import OutboxState

# data is opened only where it is small: not that of an input, which holds its text.
_BEHIND = """SELECT e.type, CASE e.type
        WHEN 'input.admitted' THEN (SELECT CASE i.deferred WHEN 0 THEN 'false' ELSE 'true' END
            FROM turns t JOIN inputs i ON i.n = t.input WHERE t.position = e.turn)
        WHEN 'turn.parked' THEN json_extract(e.data, '$.reason')
        WHEN 'turn.resumed' THEN json_extract(e.data, '$.cause')
        WHEN 'turn.interrupted' THEN json_extract(e.data, '$.state')
        WHEN 'turn.failed' THEN json_extract(e.data, '$.slug')
        END AS detail, count(*), max(e.n)
    FROM (SELECT n, type, turn, data FROM events WHERE n > ? ORDER BY n LIMIT ?) e
    GROUP BY e.type, detail"""

_UNSENT = tuple(s.value for s in OutboxState if s not in (OutboxState.SENT, OutboxState.DROPPED))
_MARKS = ", ".join("?" * len(_UNSENT))
# With min() the other columns of a group are those of the row that holds the minimum
# (https://sqlite.org/lang_select.html#bareagg): the state of each session's oldest open turn.
_CENSUS = f"""SELECT 'session', state, count(*) FROM
        (SELECT t.state AS state, min(t.position) FROM turns t INDEXED BY turns_open
         WHERE {rows.OPEN_TURN} GROUP BY t.session) GROUP BY state
    UNION ALL SELECT 'sessions', '', count(*) FROM sessions
    UNION ALL SELECT 'turn', t.state, count(*) FROM turns t INDEXED BY turns_open
        WHERE {rows.OPEN_TURN} GROUP BY t.state
    UNION ALL SELECT 'outbox', state, count(*) FROM outbox
        WHERE state IN ({_MARKS}) GROUP BY state
    UNION ALL SELECT 'outbox', state, count(*) FROM outgoing INDEXED BY outgoing_by_state
        WHERE state IN ({_MARKS}) GROUP BY state
    UNION ALL SELECT 'reminder', state, count(*) FROM reminders INDEXED BY reminders_by_state
        WHERE state IN ('active', 'paused') GROUP BY state
    UNION ALL SELECT 'occurrence', 'started', count(*) FROM occurrences INDEXED BY occurrences_open
        WHERE state = 'started'
    UNION ALL SELECT 'occurrence', substr(key, {len(schema.OCCURRENCES) + 1}), value FROM meta
        WHERE key GLOB '{schema.OCCURRENCES}*'
    UNION ALL SELECT 'tokens', 'input', coalesce(sum(input_tokens), 0) FROM sessions
    UNION ALL SELECT 'tokens', 'output', coalesce(sum(output_tokens), 0) FROM sessions
    UNION ALL SELECT 'restart', outcome, count(*) FROM restarts
        WHERE outcome <> 'pending' GROUP BY outcome"""


def count_events(db: sqlite3.Connection, after: int, most: int) -> EventCounts:
    found = db.execute(_BEHIND, (after, most)).fetchall()
    return EventCounts(
        place=max((row[3] for row in found), default=after),
        counts={(kind, detail or ""): count for kind, detail, count, _ in found},
    )


def census(db: sqlite3.Connection) -> Census:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for what, state, count in db.execute(_CENSUS, _UNSENT * 2).fetchall():
        counts[what][state] += count  # Replies of the API and messages of channels count as one.
    busy = counts["session"]
    idle = counts["sessions"][""] - sum(busy.values())
    return Census(
        {"idle": idle, **busy},
        counts["turn"],
        counts["outbox"],
        counts["restart"],
        counts["tokens"],
        counts["reminder"],
        counts["occurrence"],
    )
