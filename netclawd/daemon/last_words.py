"""The words that supervisors and people look for when there is no daemon because of its configuration."""

from __future__ import annotations

import sys


def say_aborted(what: str, remedy: str) -> None:
    """Write them to standard error: this line is the interface."""
    print(  # noqa: T201 - no log record: whatever the log is set to, this is read
        f"Daemon startup aborted: {what} Remediation: {remedy}", file=sys.stderr, flush=True
    )
