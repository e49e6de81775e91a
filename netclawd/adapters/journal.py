"""The journal, through systemd-python: one record with its fields goes in, a unit's records come out.

Invariants: a :class:`JournalSender` returns only when the journal has the record, whatever hinders it
is an OSError; :class:`JournalReader` gives each record once, in the order of the journal.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import systemd.journal

from netclawd.errors import ControlError, NotFoundError

#: Where sd_journal_sendv(3) sends.
SOCKET = "/run/systemd/journal/socket"
#: How long a record may wait for room in the journal's queue, seconds.
PATIENCE_S = 1.0
#: Where the files lie, each in a folder named after the machine (systemd-journald.service(8)).
FOLDERS = ("/var/log/journal", "/run/log/journal")
MACHINE_ID = "/etc/machine-id"


class JournalSender:
    """Writes one record at each call; OSError when the journal isn't there or doesn't take it."""

    def __init__(self) -> None:
        #: It took nothing the last time: who logs then does not wait again.
        self._hangs = False

    def __call__(self, fields: Mapping[str, str]) -> None:
        self._wait_for_room()
        systemd.journal.sendv(
            *(f"{name}={value}".encode(errors="backslashreplace") for name, value in fields.items())
        )

    def _wait_for_room(self) -> None:
        """The library sends with the interpreter's lock held: it must not have to wait. And without the
        socket it drops the record and says nothing."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(SOCKET)
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            self._hangs = not poller.poll(0 if self._hangs else PATIENCE_S * 1000)
        if self._hangs:
            raise TimeoutError("the journal does not read its socket")


#: One record: its fields as the journal has them, and ``__REALTIME_TIMESTAMP`` as seconds since the epoch.
Record = dict[str, Any]


class JournalReader:
    """The records that match one of several sets of fields. Use as a context manager."""

    def __init__(self, matches: Sequence[Mapping[str, str]], *, system: bool) -> None:
        """``system``: they are in the system's files, not in this user's.

        NotFoundError without a journal, ControlError when this user may not read it.
        """
        _refuse_unreadable(system=system)
        reader = self._reader = systemd.journal.Reader()
        # Those of the library take SESSION_ID for a number of logind's.
        reader.converters = {
            "__REALTIME_TIMESTAMP": lambda usec: usec / 1_000_000,
            "__MONOTONIC_TIMESTAMP": lambda pair: pair,
            "__CURSOR": lambda cursor: cursor,
        }
        for match in matches:
            for name, value in match.items():
                reader.add_match(f"{name}={value}")
            reader.add_disjunction()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    def last(self, count: int) -> list[Record]:
        """Return the last records, and stand behind them."""
        self._reader.seek_tail()
        first = self._reader.get_previous(max(count, 1))
        if not first:
            # Behind the end there is never a next one; with no record at all the head is as good.
            self._reader.seek_head()
        found = [first] if first and count else []
        return [*found, *self._rest()][-count:] if count else []

    def more(self, wait_s: float) -> list[Record]:
        """Return the records that were added since the last look; wait for some for a while."""
        self._reader.wait(wait_s)
        return list(self._rest())

    def _rest(self) -> Iterator[Record]:
        while record := self._reader.get_next():
            yield record


def _refuse_unreadable(*, system: bool) -> None:
    """The library shows nothing where it may read nothing."""
    found = False
    for folder in FOLDERS:
        place = os.path.join(folder, _machine_id())
        try:
            names = os.listdir(place)
        except FileNotFoundError:
            continue
        except PermissionError:
            found = True
            continue
        for name in names:
            if name.endswith(".journal") and (not system or name.startswith("system")):
                found = True
                if os.access(os.path.join(place, name), os.R_OK):
                    return
    if not found:
        raise NotFoundError(
            "There is no journal on this machine.", "Is systemd-journald running? See its status."
        )
    raise ControlError(
        "This user may not read the journal.",
        "Use sudo, or let an administrator add you to the group systemd-journal or adm.",
    )


def _machine_id() -> str:
    try:
        with open(MACHINE_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
