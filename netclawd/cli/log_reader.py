"""Reads a log file and what was rotated out of it as one text: its end, and what is added to it.

Touches the files only to read. Invariant: while the file is followed no line is left out and none is
given twice, however often it is rotated between two looks, as long as what was rotated out is kept.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from netclawd.adapters.log import KEPT
from netclawd.core.paths import Paths
from netclawd.errors import ControlError, NotFoundError

_BLOCK_BYTES = 65536
#: A line that is longer is given in pieces, so that none is waited for for ever.
_LINE_BYTES = 1 << 20


class LogReader:
    """Use as a context manager."""

    def __init__(self, path: str) -> None:
        """NotFoundError when there is no such file, ControlError when it can't be read."""
        self._path = path
        file = open_log(path)
        if file is None:
            raise NotFoundError(f"There is no log {path}.")
        self._file = file
        #: What stands behind the last newline.
        self._partial = b""
        #: The last look found another file at the path.
        self._replaced = False

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def last(self, count: int) -> list[bytes]:
        """Return the last lines, from rotated files too, and stand behind them."""
        end = os.fstat(self._file.fileno()).st_size
        lines, self._partial = _tail(self._file, end, count)
        seen = {_identity(self._file)}
        for name in self._rotated():
            if len(lines) >= count:
                break
            if (file := open_log(name)) is None:
                continue
            with file:
                if _identity(file) in seen:  # It was rotated just now.
                    continue
                seen.add(_identity(file))
                size = os.fstat(file.fileno()).st_size
                older, rest = _tail(file, size, count - len(lines))
                lines = [*older, *([rest] if rest else []), *lines]
        self._file.seek(end)
        return lines[-count:] if count else []

    def rest(self) -> bytes:
        """Return the unfinished line behind those that were given."""
        return self._partial

    def more(self) -> list[bytes]:
        """Return the lines that were added since the last look."""
        lines = self._read_on()
        if not self._is_replaced():
            self._replaced = False
            return lines
        if not self._replaced:
            # Whoever writes may not have gone over to the new file yet.
            self._replaced = True
            return lines
        for file in self._successors():
            self._file.close()
            self._file = file
            lines += [self._partial] if self._partial else []
            self._partial = b""
            lines += self._read_on()
        self._replaced = False
        return lines

    def _rotated(self) -> Iterator[str]:
        """Yield the names of rotated files, the newest first."""
        yield from (f"{self._path}.{number}" for number in range(1, KEPT + 1))

    def _is_replaced(self) -> bool:
        try:
            found = os.stat(self._path)
        except OSError:  # Between a rename and the new file.
            return False
        return (found.st_dev, found.st_ino) != _identity(self._file)

    def _successors(self) -> list[BinaryIO]:
        """Open the files that were begun after ours, the oldest first."""
        newer: list[BinaryIO] = []
        changed_at = os.fstat(self._file.fileno()).st_mtime_ns
        for name in chain([self._path], self._rotated()):
            file = open_log(name)
            if file is None:
                continue
            if _identity(file) in map(_identity, newer):  # It was rotated just now.
                file.close()
                continue
            ours = _identity(file) == _identity(self._file)
            # Ours may have been removed; then what was rotated before it must not be given again.
            if ours or os.fstat(file.fileno()).st_mtime_ns < changed_at:
                file.close()
                break
            newer.append(file)
        return newer[::-1]

    def _read_on(self) -> list[bytes]:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # It was truncated.
            self._partial = b""
        lines: list[bytes] = []
        while data := self._file.read(_BLOCK_BYTES):
            *whole, self._partial = (self._partial + data).split(b"\n")
            lines += whole
            if len(self._partial) > _LINE_BYTES:
                lines.append(self._partial)
                self._partial = b""
        return lines


class S6LogReader(LogReader):
    """Of a folder that s6-log writes: `current`, and what was rotated out of it under its time."""

    def _rotated(self) -> Iterator[str]:
        """Yield the names of rotated files, the newest first.

        `previous` is one that has no other name yet; the folder is listed after it was looked at, so that it
        is found under the one or the other.
        """
        folder = os.path.dirname(self._path)
        yield os.path.join(folder, "previous")
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(folder) if name.startswith("@")]
        yield from (os.path.join(folder, name) for name in sorted(names, reverse=True))


def s6_log_path(paths: Paths) -> str:
    """Return where s6-log keeps what the daemon says."""
    return os.path.join(paths.state, "logs", "s6", "current")


def is_written(path: str) -> bool:
    """Whether s6-log has such a file and has not put it away: then its owner could execute it (s6-log)."""
    try:
        return not os.stat(path).st_mode & stat.S_IXUSR
    except OSError:
        return False


class SessionLines:
    """Picks the lines that name a session at their end, each with the indented ones that follow it."""

    def __init__(self, session_id: str) -> None:
        self._named = re.compile(rb" session=" + re.escape(session_id.encode()) + rb"(?= \w+=|$)")
        #: Whether the line before was picked.
        self._picked = False

    def __call__(self, lines: Iterable[bytes]) -> list[bytes]:
        return [line for line in lines if self._wants(line)]

    def _wants(self, line: bytes) -> bool:
        if not line.startswith(b"  "):
            self._picked = self._named.search(line) is not None
        return self._picked


def open_log(path: str) -> BinaryIO | None:
    """Open a file to read, None when there is none; ControlError when it can't be read."""
    try:
        # Without O_NONBLOCK opening a FIFO would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ControlError(
            f"The log {path} can't be read: {error.strerror or error}.",
            "Run this as the daemon's user, or as root.",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ControlError(f"{path} is not a file.", "Move it away; the daemon writes a new log.")
    return open(descriptor, "rb")


def _identity(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _tail(file: BinaryIO, end: int, count: int) -> tuple[list[bytes], bytes]:
    """Return the last whole lines before ``end``, and what stands behind the last newline."""
    data, start = b"", end
    while start > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK_BYTES, start)
        start -= size
        file.seek(start)
        data = file.read(size) + data
    *lines, rest = data.split(b"\n")
    return (lines[-count:] if count > 0 else []), rest
