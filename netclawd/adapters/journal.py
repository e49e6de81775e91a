"""The journal, through systemd-python: one record with its fields goes in, a unit's records come out.

Invariant: :func:`send` returns only when the journal has the record; whatever hinders it is an OSError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import systemd.journal

#: Where sd_journal_sendv(3) sends; without it that function would drop the record and say nothing.
SOCKET = "/run/systemd/journal/socket"


def send(fields: Mapping[str, str]) -> None:
    """Write one record. OSError when the journal isn't there or doesn't take it."""
    os.stat(SOCKET)
    systemd.journal.sendv(
        *(f"{name}={value}".encode(errors="backslashreplace") for name, value in fields.items())
    )
