"""The store's files seen from outside SQLite: whether the log is whole, and whether they are still there.

It touches the ``-wal`` and ``-shm`` files before a store is opened for writing, and afterwards only
asks for their names. SQLite takes a write-ahead log that it can't read for the trace of a crash and
starts a new one over it; what was committed in it would be gone without a word. And it goes on
writing to a file that somebody has deleted: acknowledged, and gone with the process.
"""

from __future__ import annotations

import errno
import os
import struct

from netclawd.errors import StoreDamagedError, StoreFullError, StoreGoneError, StoreReadOnlyError

#: Room that must be left besides what the log holds: for the index and the log of the next image, its
#: first commits, and a manifest, bytes.
ROOM_BYTES = 1 << 20

#: Sizes and numbers of https://sqlite.org/walformat.html, sections 2.1 and 4.1.
_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_VERSION = 3007000
_MAGIC = 0x377F0682
_INDEX = struct.Struct("=IIIBBHII2I2I2I")


def check_writable(path: str) -> None:
    """Raise StoreReadOnlyError unless this user may write the file and make others beside it.

    SQLite would open it for reading, or say only that it can't be opened.
    """
    for name in (os.path.dirname(path), path):
        if not os.access(name, os.W_OK):
            raise StoreReadOnlyError(
                f"The session store {path} can't be written: {name} is read-only for this user.",
                "Make the file and its folder writable for this user, or remount the file system.",
            )


def check_log(path: str) -> None:
    """Refuse a write-ahead log that SQLite would pass over; StoreDamagedError, and nothing is changed.

    What a crash may leave is whole: no log, an empty one, one of zeros, a torn end after the last
    commit. What is no trace of a crash: a header that isn't one, and fewer frames than the index
    beside it counts. The index is written after the log was synced, so it never counts too many.
    """
    header, size = _read(f"{path}-wal", _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not any(header):
        return
    if not _is_header(header):
        raise _damaged(path, "it begins with something else")
    page_bytes, salt = struct.unpack_from(">I4x8s", header, 8)
    index, _ = _read(f"{path}-shm", 2 * _INDEX.size)
    if len(index) < 2 * _INDEX.size or index[: _INDEX.size] != index[_INDEX.size :]:
        return  # None, or torn: SQLite makes it anew.
    frames = _INDEX.unpack_from(index)[6]
    if index[32:40] == salt and size < _HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_bytes):
        raise _damaged(path, f"its end is missing, {frames} pages were committed in it")


def _read(path: str, limit: int) -> tuple[bytes, int]:
    """Return the beginning and the size; nothing when there is no such file, or it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit), os.fstat(file.fileno()).st_size
    except OSError:
        return b"", 0  # SQLite will say so in its own words.


def _is_header(header: bytes) -> bool:
    magic, version = struct.unpack_from(">II", header)
    if magic & ~1 != _MAGIC or version != _VERSION:
        return False
    words = struct.unpack_from(">6I" if magic & 1 else "<6I", header)
    first = second = 0
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return struct.unpack_from(">II", header, 24) == (first, second)


def _damaged(path: str, why: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"The write-ahead log {path}-wal is damaged: {why}. Messages were acknowledged in it.",
        "Restore it from a backup together with the store, or, to go on without what it held, "
        "move it and the -shm file beside it away; nothing was changed.",
    )


def check_room(path: str) -> None:
    """Raise StoreFullError unless the store could be closed, opened again and written.

    Closing copies the log into the database, which may grow by all of it. The room is taken for a
    moment: what the file system says of it is no promise to this user.
    """
    spare = f"{path}.room"
    try:
        need = ROOM_BYTES + os.stat(f"{path}-wal").st_size
        descriptor = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(spare)
            os.posix_fallocate(descriptor, 0, need)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return  # Nothing about room; the next commit says what it is.
        raise StoreFullError(
            f"The session store {path} has no room: its disk, or the space allowed to this user, "
            f"has less than {need // 1024} KiB left.",
            "Free space on that file system; what was acknowledged is safe.",
        ) from error


class Presence:
    """Whether the files that a connection has open are still the ones under their names."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names = (path, f"{path}-wal")
        self._found: list[tuple[int, int]] | None = None

    def check(self) -> None:
        """Raise StoreGoneError unless they are. Called inside a transaction: then there is a log."""
        try:
            found = [(s.st_dev, s.st_ino) for s in map(os.stat, self._names)]
        except OSError:
            found = []
        if self._found is None and found:
            self._found = found
        if not found or found != self._found:
            raise StoreGoneError(
                f"The session store {self._path} was moved or deleted under the running daemon.",
                "If it was moved, move it back; if it was deleted, copy it and its -wal out of "
                f"/proc/{os.getpid()}/fd before you stop the daemon.",
            )
