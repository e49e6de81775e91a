"""What SQLite's errors mean to an operator: each kind with its own words and its own remedy.

Pure. The invariant: no ``sqlite3.Error`` leaves this package; whoever calls the store sees
:class:`~netclawd.errors.StoreError` or one of the errors that the port names.
"""

from __future__ import annotations

import sqlite3

from netclawd.errors import (
    BadRequestError,
    ConflictError,
    NetclawError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
)

#: What the sqlite3 module raises that is not a defect of the program.
Fault = sqlite3.Error | UnicodeEncodeError

#: Primary result code of SQLite -> what happened ("The session store PATH …"), what to do.
_MEANINGS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: (
        "can't grow: its disk, or the space allowed to this user, is full",
        "Free space on that file system; what was acknowledged is safe.",
    ),
    sqlite3.SQLITE_READONLY: (
        "can't be written: the file, its folder or its file system is read-only",
        "Make the file and its folder writable for this user, or remount the file system.",
    ),
    sqlite3.SQLITE_BUSY: (
        "is locked by another program",
        "End the program that holds it (`fuser` on the file names it), then try again.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "is damaged",
        "Stop the daemon, copy its state folder away, then restore a backup of the store.",
    ),
    sqlite3.SQLITE_NOTADB: (
        "is not a database: something else was written over it",
        "Move the file away, or restore a backup of the store.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "can't be opened",
        "Check that its folder exists and that this user may read and write it.",
    ),
    sqlite3.SQLITE_PERM: (
        "can't be opened: access is denied",
        "Give this user access to the file and its folder.",
    ),
    sqlite3.SQLITE_IOERR: (
        "can't be read or written: the disk reports an error",
        "Look for disk errors in the kernel's log (`journalctl -k`).",
    ),
}
_MEANINGS[sqlite3.SQLITE_LOCKED] = _MEANINGS[sqlite3.SQLITE_BUSY]

#: The same -> the kind of error, where programs need to tell it from others.
_KINDS: dict[int, type[StoreError]] = {
    sqlite3.SQLITE_FULL: StoreFullError,
    sqlite3.SQLITE_READONLY: StoreReadOnlyError,
    sqlite3.SQLITE_BUSY: StoreLockedError,
    sqlite3.SQLITE_LOCKED: StoreLockedError,
    sqlite3.SQLITE_CORRUPT: StoreDamagedError,
    sqlite3.SQLITE_NOTADB: StoreDamagedError,
}

#: An index that can't grow is SQLite's word for a full disk under a store that is being opened.
_ALIASES = {sqlite3.SQLITE_IOERR_SHMSIZE: sqlite3.SQLITE_FULL}

_DUPLICATE = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)


def explain(error: Fault, path: str) -> NetclawError:
    """Return the error to raise instead.

    ConflictError for an id used twice, BadRequestError for a text that is not Unicode (a lone
    surrogate can't be encoded), StoreError for all else.
    """
    if isinstance(error, UnicodeEncodeError):
        return BadRequestError(
            "A text has half of a surrogate pair, which is not valid Unicode.",
            "Send valid UTF-8 text.",
        )
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _DUPLICATE:
        return ConflictError("That id is taken already.", "Use a fresh id.")
    # An extended code carries its primary code in the low byte (https://sqlite.org/rescode.html).
    primary = _ALIASES.get(code, code & 0xFF) if code is not None else None
    if primary in _MEANINGS:
        what, remedy = _MEANINGS[primary]
        kind = _KINDS.get(primary, StoreError)
        return kind(f"The session store {path} {what} ({name}).", remedy)
    return StoreError(
        f"The session store {path} failed: {error} ({name}).",
        "Report this; the log around it shows what was asked of the store.",
    )
