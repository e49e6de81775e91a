"""The tables, their numbered migrations, and which release may open which store.

It decides whether a file is a store of ours and whether this release may open it, and brings an
older one up to date. Invariants:

- A migration is additive: it adds tables, indexes (or puts one in another's place), or columns that have
  a default. It runs once, whole or not at all, and is never edited after a release.
- ``meta`` holds ``schema`` (the newest migration that ran) and ``min_reader`` (the lowest schema
  that a release must know to open the store). A release compares its own :data:`VERSION` with
  ``min_reader`` before it writes a byte. Because migrations are additive, ``min_reader`` normally
  stays, and the previous release can open what this one wrote. It must rise when old code would
  misread what new code writes, a new word in an enum included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from netclawd import __version__
from netclawd.core.session import EventType
from netclawd.core.values import frozen
from netclawd.errors import StoreError, StoreNewerError

#: "nclw": marks a SQLite file as a store of ours (https://sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x6E636C77


@frozen
class Migration:
    """One step from ``version - 1`` to ``version``."""

    version: int
    #: Lowest schema version that may open the store afterwards.
    min_reader: int
    statements: tuple[str, ...]


#: Rows of ``meta`` that begin so count the occurrences of reminders that ended in each state.
OCCURRENCES = "occurrences."


@frozen
class Found:
    """What a file says about itself; ``schema`` is 0 for a file without any table."""

    schema: int
    min_reader: int


# Rows refer to each other by small integers, not by their ids: an index entry is then a few bytes,
# so a commit dirties few pages, and the fsync of a group stays small. What a model may have written
# (events.data, outbox.text, outgoing.text, approvals.question) is JSON, which holds any text.
MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        1,
        (
            f"PRAGMA application_id = {APPLICATION_ID}",
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
            "INSERT INTO meta VALUES ('schema', 0), ('min_reader', 0)",
            """CREATE TABLE generations (
                generation INTEGER PRIMARY KEY,
                at REAL NOT NULL,
                restart_id TEXT)""",
            """CREATE TABLE sessions (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                created_at REAL NOT NULL,
                channel TEXT NOT NULL,
                last_seq INTEGER NOT NULL DEFAULT 0)""",
            """CREATE TABLE inputs (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                session INTEGER NOT NULL REFERENCES sessions,
                source_id TEXT,
                text TEXT NOT NULL,
                deferred INTEGER NOT NULL,
                admitted_at REAL NOT NULL)""",
            """CREATE UNIQUE INDEX inputs_by_source ON inputs (session, source_id)
                WHERE source_id IS NOT NULL""",
            """CREATE TABLE turns (
                position INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                session INTEGER NOT NULL REFERENCES sessions,
                input INTEGER NOT NULL UNIQUE REFERENCES inputs,
                state TEXT NOT NULL,
                generation INTEGER NOT NULL DEFAULT 0,
                resumes INTEGER NOT NULL DEFAULT 0,
                interrupted_at REAL,
                park_reason TEXT)""",
            "CREATE INDEX turns_by_session ON turns (session, position)",
            """CREATE INDEX turns_open ON turns (session, position)
                WHERE state NOT IN ('completed', 'failed', 'cancelled')""",
            """CREATE TABLE events (
                n INTEGER PRIMARY KEY,
                session INTEGER NOT NULL REFERENCES sessions,
                seq INTEGER NOT NULL,
                turn INTEGER REFERENCES turns,
                type TEXT NOT NULL,
                at REAL NOT NULL,
                data TEXT NOT NULL)""",
            "CREATE UNIQUE INDEX events_by_seq ON events (session, seq)",
            "CREATE INDEX events_by_turn ON events (turn, seq) WHERE turn IS NOT NULL",
            """CREATE TABLE outbox (
                n INTEGER PRIMARY KEY,
                turn INTEGER NOT NULL UNIQUE REFERENCES turns,
                state TEXT NOT NULL,
                text TEXT NOT NULL,
                receipt TEXT)""",
            "CREATE INDEX outbox_by_state ON outbox (state)",
            """CREATE TABLE approvals (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                turn INTEGER NOT NULL REFERENCES turns,
                call_id TEXT NOT NULL,
                state TEXT NOT NULL,
                question TEXT NOT NULL,
                asked_at REAL NOT NULL,
                decided_at REAL,
                decided_by TEXT)""",
            "CREATE INDEX approvals_by_turn ON approvals (turn)",
            "CREATE INDEX approvals_pending ON approvals (n) WHERE state = 'pending'",
            """CREATE TABLE restarts (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                requested_at REAL NOT NULL,
                outcome TEXT NOT NULL,
                generation INTEGER NOT NULL,
                record TEXT NOT NULL)""",
        ),
    ),
    # Which release brought the store to which schema: what a later downgrade has to name.
    Migration(
        2,
        1,
        ("CREATE TABLE migrations (schema INTEGER PRIMARY KEY, release TEXT NOT NULL)",),
    ),
    # Tokens used, sessions that a client knows by a name of its own, the tools that approvals are
    # asked for, changes of the configuration that an agent has written and whose outcome it waits for,
    # the way to the newest summary.
    Migration(
        3,
        1,
        (
            "ALTER TABLE turns ADD COLUMN input_tokens INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE turns ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE sessions ADD COLUMN input_tokens INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE sessions ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE sessions ADD COLUMN alias TEXT",
            "CREATE UNIQUE INDEX sessions_by_alias ON sessions (alias) WHERE alias IS NOT NULL",
            "ALTER TABLE approvals ADD COLUMN name TEXT NOT NULL DEFAULT ''",
            """CREATE TABLE proposals (
                call_id TEXT PRIMARY KEY,
                turn INTEGER NOT NULL REFERENCES turns,
                digest TEXT NOT NULL,
                changes TEXT NOT NULL,
                at REAL NOT NULL,
                outcome TEXT)""",
            "CREATE INDEX proposals_open ON proposals (at) WHERE outcome IS NULL",
            """CREATE INDEX events_summarised ON events (session, seq)
                WHERE type = 'context.summarised'""",
        ),
    ),
    # Channels: who says an input, what was received already, what goes out; reminders. An alias is a name
    # within a channel.
    Migration(
        4,
        1,
        (
            "ALTER TABLE inputs ADD COLUMN origin TEXT",
            # Those of webhooks, whose configuration may name another session from one attempt to the next.
            """CREATE INDEX inputs_by_delivery ON inputs (source_id)
                WHERE source_id >= 'hook:' AND source_id < 'hook;'""",
            "DROP INDEX sessions_by_alias",
            """CREATE UNIQUE INDEX sessions_by_alias ON sessions (channel, alias)
                WHERE alias IS NOT NULL""",
            """CREATE TABLE received (
                channel TEXT NOT NULL,
                event_id TEXT NOT NULL,
                at REAL NOT NULL,
                PRIMARY KEY (channel, event_id)) WITHOUT ROWID""",
            "CREATE INDEX received_by_age ON received (at)",
            """CREATE TABLE outgoing (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                channel TEXT NOT NULL,
                route TEXT NOT NULL,
                kind TEXT NOT NULL,
                session INTEGER REFERENCES sessions,
                turn INTEGER REFERENCES turns,
                requester TEXT NOT NULL,
                state TEXT NOT NULL,
                text TEXT NOT NULL,
                version INTEGER NOT NULL DEFAULT 1,
                receipts TEXT NOT NULL DEFAULT '[]',
                error TEXT NOT NULL DEFAULT '',
                attempts INTEGER NOT NULL DEFAULT 0,
                at REAL NOT NULL,
                changed_at REAL NOT NULL,
                due_at REAL NOT NULL,
                expires_at REAL)""",
            # Of all states: what waits is found without what went out, and the newest of each at once.
            "CREATE INDEX outgoing_by_state ON outgoing (state)",
            """CREATE TABLE reminders (
                n INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                text TEXT NOT NULL,
                schedule TEXT NOT NULL,
                missed TEXT NOT NULL,
                max_late_s REAL NOT NULL,
                session INTEGER NOT NULL REFERENCES sessions,
                own_session INTEGER NOT NULL,
                origin TEXT NOT NULL,
                state TEXT NOT NULL,
                reason TEXT NOT NULL DEFAULT '',
                failures INTEGER NOT NULL DEFAULT 0,
                created_at REAL NOT NULL,
                created_by TEXT NOT NULL,
                next_at REAL)""",
            "CREATE INDEX reminders_by_state ON reminders (state, next_at)",
            "CREATE INDEX reminders_by_session ON reminders (session)",
            """CREATE TABLE occurrences (
                n INTEGER PRIMARY KEY,
                reminder INTEGER NOT NULL REFERENCES reminders,
                due_at REAL NOT NULL,
                state TEXT NOT NULL,
                skipped INTEGER NOT NULL DEFAULT 0,
                turn INTEGER REFERENCES turns,
                started_at REAL,
                ended_at REAL,
                reason TEXT NOT NULL DEFAULT '',
                UNIQUE (reminder, due_at))""",
            "CREATE INDEX occurrences_open ON occurrences (n) WHERE state = 'started'",
        ),
    ),
)

#: Words that releases before a schema would misread: writing the first one raises ``min_reader``, so
#: that the previous release can open a store which has none.
NEW_WORDS: dict[str, int] = {EventType.CONTEXT_SUMMARISED.value: 3}

#: A release that knows no channels would take a reply for delivered once it is written: the first session
#: of another channel than the API raises ``min_reader`` to this.
CHANNELS = 4

#: The newest schema that this release knows.
VERSION = MIGRATIONS[-1].version


def inspect(connection: sqlite3.Connection, path: str) -> Found:
    """Read what the file is, without writing.

    StoreError: not a store of ours; StoreNewerError: a store that only a newer release may open.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id == 0 and tables == 0:
            return Found(0, 0)
        raise StoreError(
            f"{path} is a database, but not a session store of netclawd.",
            "Move it away, or point the state folder elsewhere.",
        )
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    found = Found(meta["schema"], meta["min_reader"])
    if found.min_reader > VERSION:
        raise _newer(connection, path, found)
    return found


def _newer(connection: sqlite3.Connection, path: str, found: Found) -> StoreNewerError:
    """Say which release the store takes: the one that made it so, or a later one."""
    try:
        row = connection.execute(
            "SELECT release FROM migrations WHERE schema = ?", (found.min_reader,)
        ).fetchone()
    except sqlite3.Error:
        row = None  # A release that keeps its notes elsewhere.
    needed = f"netclawd {row[0]} or later" if row else "a newer release"
    return StoreNewerError(
        f"The session store {path} was written by a newer netclawd: it takes {needed} (schema "
        f"{found.min_reader}), and this is {__version__} (schema {VERSION}).",
        f"Install {needed} again; the store was not touched.",
    )


def migrate(
    connection: sqlite3.Connection, path: str, migrations: Sequence[Migration] = MIGRATIONS
) -> None:
    """Run the migrations that the store lacks, in one transaction.

    Crash: before the COMMIT nothing has changed and the next start runs them again.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = inspect(connection, path)  # again: another process may have been faster
        for migration in migrations:
            if migration.version > found.schema:
                _run(connection, migration)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _run(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in migration.statements:
        connection.execute(statement)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (migration.version,))
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'min_reader'", (migration.min_reader,)
    )
    if migration.version > 1:  # Since there is a table for it.
        connection.execute("INSERT INTO migrations VALUES (?, ?)", (migration.version, __version__))
