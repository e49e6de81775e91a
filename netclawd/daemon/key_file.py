"""Keeps a secret in a file of its own, beside the configuration that refers to it.

A file is never replaced: a new secret gets a new file, so that the write of the configuration alone
changes over to it, and a daemon that goes back to its last good configuration finds the old one.

Whoever writes it, the daemon's user has to read it, and nobody else may who can't do everything with
the daemon anyway. So it is 0600 and the daemon's user's. Root gives it away; another member of the
group that owns the folder can't, and leaves it to the group, 0640.

Crash: a file that nothing refers to is left, which only its readers see.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd

from netclawd.core.values import frozen
from netclawd.daemon.durable import sync_folder, write_whole
from netclawd.errors import ConfigNotWrittenError, ConflictError

_NEW_FOLDER = 0o755


@frozen
class Reader:
    """Who has to read it: user and group of the daemon."""

    uid: int
    gid: int

    def belongs_to(self, gid: int) -> bool:
        if gid == self.gid:
            return True
        try:
            return gid in os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            return False


def write_key(path: str, secret: str, reader: Reader) -> None:
    """Make the file, durably; ConflictError where there is one, ConfigNotWrittenError where none can be.

    Nothing is left of a file that could not be made.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, mode=_NEW_FOLDER, exist_ok=True)
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _write(place, name, secret.encode() + b"\n", reader)
        finally:
            os.close(place)
        sync_folder(folder)
    except FileExistsError:
        raise ConflictError(
            f"{path} was made meanwhile by somebody else; nothing was written.", "Say it again."
        ) from None
    except OSError as error:
        raise ConfigNotWrittenError(
            f"The key can't be kept in {path}: {os.strerror(error.errno or errno.EIO)}.",
            "Run this as root or as the daemon's user, or refer to a key that is kept elsewhere.",
        ) from error


def _write(place: int, name: str, content: bytes, reader: Reader) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=place)
    try:
        _give(descriptor, reader)
        write_whole(descriptor, content)
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=place)
        raise
    finally:
        os.close(descriptor)


def _give(descriptor: int, reader: Reader) -> None:
    """Let the daemon's user read it."""
    if os.geteuid() == reader.uid:
        os.fchmod(descriptor, 0o600)
    elif os.geteuid() == 0:
        os.fchown(descriptor, reader.uid, reader.gid)
        os.fchmod(descriptor, 0o600)
    else:
        if not reader.belongs_to(os.fstat(descriptor).st_gid):
            os.fchown(descriptor, -1, reader.gid)
        os.fchmod(descriptor, 0o640)
