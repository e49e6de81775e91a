"""What a file holds, told from what it held at the last look: stat(2), and a hash when that moved.

A stat that stays the same proves nothing about a write within the same tick of the file system's
clock (up to 2 s on some), so a stat is believed only once it was seen by two looks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

#: Errors that say nothing of the file: the next look may do better.
_NO_LOOK = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ESTALE)
#: What is hashed of a file, bytes; a configuration that is longer is refused anyway.
LIMIT_BYTES = 1024 * 1024 + 1


class Content:
    """The content of one file, followed through its links."""

    def __init__(self, path: str) -> None:
        """Take what is there now as known."""
        self._path = path
        self._stat: tuple[int, ...] | None = None
        self._believed = False
        self._known: str | None = None
        self.changed()

    def changed(self) -> bool:
        """Look; whether there is another content than at the last look. None at all is no change."""
        seen = _stat(self._path)
        if seen is None or (self._believed and seen == self._stat):
            return False
        found = _content(self._path)
        if found is None:  # Gone meanwhile, or not to be told: the next look asks again.
            return False
        self._believed, self._stat = seen == self._stat, seen
        if found == self._known:
            return False
        self._known = found
        return True


def _stat(path: str) -> tuple[int, ...] | None:
    """Return what tells one state of a file from another, None where no file can be seen."""
    try:
        s = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return None if error.errno in _NO_LOOK else (error.errno or 0,)
    return (
        s.st_dev,
        s.st_ino,
        s.st_mode,
        s.st_uid,
        s.st_gid,
        s.st_size,
        s.st_mtime_ns,
        s.st_ctime_ns,
    )


def _content(path: str) -> str | None:
    """Return a hash of the content, what keeps it from being read, None where nothing can be said."""
    try:
        # Not blocking: a FIFO without a writer would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(error)
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            return f"type {stat.S_IFMT(mode):o}"
        with os.fdopen(fd, "rb", closefd=False) as file:
            return hashlib.sha256(file.read(LIMIT_BYTES)).hexdigest()
    except OSError as error:
        return _unreadable(error)
    finally:
        os.close(fd)


def _unreadable(error: OSError) -> str | None:
    return None if error.errno in _NO_LOOK else f"error {error.errno}"
