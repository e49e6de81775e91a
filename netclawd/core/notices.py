"""What an operator may need explained: each has a MESSAGE_ID in the journal and an entry in the catalog.

Pure. The ids are random and never change: people and programs ask the journal for them, and
units/netclawd.catalog, which `journalctl -x` shows, is found by them. A notice that is no longer
logged keeps its id here, so that an old journal stays explained.
"""

from __future__ import annotations

from enum import StrEnum


class Notice(StrEnum):
    """MESSAGE_ID of a log record (systemd.journal-fields(7)): 128 bits, 32 hex digits."""

    #: A generation is ready.
    STARTED = "a08588f5910240e59d4d5c188022f403"
    #: A request for a restart was refused or failed; the running generation goes on.
    REFUSED = "b63754af55454c51b271ce16d8fee2ad"
    #: A new image failed before it was ready; the last good configuration serves again.
    ROLLED_BACK = "d15267ccb94b42479535970597c39142"
    #: A drain has ended: no turn runs.
    DRAINED = "245895def3784961973c106e29d62bf5"
    #: A turn goes on. SESSION_ID, TURN_ID, CAUSE.
    RESUMED = "7ef89144a4504dd087a93e4e656be95e"
    #: A turn waits for a person. SESSION_ID, TURN_ID, REASON.
    PARKED = "a692e08f36b44ba2a385b3dc2cdde814"
    #: The process ends after a whole drain.
    STOPPED = "5bf755f9f50b41f7b7e6a7550183d79d"
    #: An error that nobody expected. CRASH_LOG.
    CRASHED = "ec62791d8bc047f69f1cc55dbe4523ef"
    #: A start found a bad file, or one that failed before, and serves the last good configuration.
    LAST_GOOD = "c852cff56a2c430ca4e0d010c68237b8"
    #: A generation serves with daemon.allow_unauthenticated.
    UNAUTHENTICATED = "696fa881661742a08c11a018af1f4fb2"
    #: A message of a channel isn't sent, or nobody knows. CHANNEL, OUTGOING_ID.
    UNDELIVERED = "5aed6d95553b6e65c8f6025ef4185366"
    #: A reminder has failed too often in a row, or can't be computed. REMINDER_ID, SESSION_ID.
    REMINDER_PAUSED = "79545d28fa064dfbb31ef1772c0a969a"
    #: The daemon serves, but something that it should do it can't.
    DEGRADED = "759a22c07c104b7d9c43d0d6173894b2"
