"""Descriptors across execve, by name: systemd's own socket-activation protocol in both directions.

The names are known from LISTEN_FDNAMES, the numbers are 3 and up (sd_listen_fds(3)). One adoption
path serves what systemd hands over at a start and what an old image hands to its successor.
*Inherited* is what came with the process; *claimed* is what somebody asked for by name; what nobody
claimed is closed. Every inherited descriptor is made close-on-exec at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence

from netclawd.core.values import frozen

FIRST = 3
#: More than a process can have open where nothing has been raised on purpose; LISTEN_FDS is only text.
MOST = 1 << 16


@frozen
class Named:
    """A descriptor to hand over. Names may repeat."""

    name: str
    fd: int


class Inheritance:
    """What came with the process."""

    def __init__(self, named: Sequence[Named]) -> None:
        self._named = list(named)

    @classmethod
    def from_environ(cls, environ: Mapping[bytes, bytes], pid: int) -> Inheritance:
        """Read LISTEN_FDS and LISTEN_FDNAMES; a LISTEN_PID that isn't ours means: not for us."""
        if environ.get(b"LISTEN_PID") != str(pid).encode():
            return cls([])
        try:
            count = int(environ.get(b"LISTEN_FDS", b"0"))
        except ValueError:
            return cls([])
        count = max(0, count)
        text = environ.get(b"LISTEN_FDNAMES", b"").decode("ascii", "replace")
        count = min(count, MOST)
        names = text.split(":") if text else []
        names += ["unknown"] * (count - len(names))  # sd_listen_fds_with_names(3) does the same.
        found = []
        for offset, name in enumerate(names[:count]):
            try:
                os.set_inheritable(FIRST + offset, False)
            except OSError:
                continue  # A launcher promised more than it opened.
            found.append(Named(name, FIRST + offset))
        return cls(found)

    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self._named)

    def find(self, name: str) -> int | None:
        """Return the first descriptor of that name and leave it where it is."""
        return next((item.fd for item in self._named if item.name == name), None)

    def claim(self, name: str) -> int | None:
        """Take the first descriptor of that name; None when there is none left."""
        for item in self._named:
            if item.name == name:
                self._named.remove(item)
                return item.fd
        return None

    def close_rest(self) -> tuple[str, ...]:
        """Close what nobody claimed; return the names."""
        names = self.names()
        for item in self._named:
            os.close(item.fd)
        self._named.clear()
        return names


def plan_numbers(named: Sequence[Named]) -> dict[int, int]:
    """Return the number that each descriptor will have in the new image."""
    return {item.fd: FIRST + offset for offset, item in enumerate(named)}


class Placement:
    """Descriptors put at 3…n and made inheritable, for the moment of execve; can be undone.

    All are first moved above the target range, so that none is overwritten before its turn (s6's
    notification descriptor is often 3). What lay in the range and isn't handed over is kept aside
    above it: after a failed execve everything is back under its number.
    """

    def __init__(self, named: Sequence[Named]) -> None:
        self._end = FIRST + len(named)
        #: number -> copy above the range, of everything that lay in the range.
        self._aside: dict[int, int] = {}
        #: Copies above the range of what is handed over, and the numbers they were put at.
        self._moved: list[int] = []
        self._placed: list[int] = []
        try:
            self._place(named)
        except OSError:
            self.undo()
            raise

    def _place(self, named: Sequence[Named]) -> None:
        for number in range(FIRST, self._end):
            try:
                self._aside[number] = self._lift(number)
            except OSError as error:
                if error.errno != errno.EBADF:  # EBADF: nothing lies there.
                    raise
        for item in named:
            self._moved.append(self._lift(item.fd))
        for number, copy in enumerate(self._moved, FIRST):
            self._placed.append(number)
            os.dup2(copy, number, inheritable=True)

    def _lift(self, fd: int) -> int:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self._end)

    def undo(self) -> None:
        """Put everything back, close-on-exec; what was never moved is left alone. Idempotent."""
        for number in self._placed:
            if number in self._aside:
                os.dup2(self._aside[number], number, inheritable=False)
            else:
                _close_quietly(number)
        for copy in (*self._aside.values(), *self._moved):
            os.close(copy)
        self._aside, self._moved, self._placed = {}, [], []


def _close_quietly(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass  # It was free before and nothing was placed there.


def listen_variables(named: Sequence[Named], pid: int) -> dict[bytes, bytes]:
    """Return LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES for the new image."""
    return {
        b"LISTEN_PID": str(pid).encode(),
        b"LISTEN_FDS": str(len(named)).encode(),
        b"LISTEN_FDNAMES": ":".join(item.name for item in named).encode("ascii"),
    }
