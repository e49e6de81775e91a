"""Replaces the configuration file: compare and swap, durable, and one rename that is the only trigger.

Whoever changes the configuration comes through here, so that two of them never overwrite each other:
writers exclude each other by a lock on the folder, and the content is compared with what was read
once more before the rename. An editor that takes no lock can still slip into the moment between
that comparison and the rename; no rename can exclude it.

The file keeps mode, owner, access lists and, where the path is a symbolic link, the link. Who can't keep
the owner becomes it, if the group may do all that the owner may: nobody loses anything. A file that
is new is as readable as its folder and belongs to whom the folder belongs to: what may enter the
folder is meant to read what lies in it, and secrets don't lie there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from netclawd.daemon.durable import sync_folder, write_whole
from netclawd.errors import ConfigNotWrittenError, ConflictError

_NEW_FOLDER = 0o755


def replace_settings(path: str, content: bytes, expected: bytes | None) -> None:
    """Replace the file's content if it still is ``expected`` (None: there is no file).

    The commit point is the rename. ConflictError when the content is another one by now,
    ConfigNotWrittenError when the file can't be replaced; either leaves it as it is. Crash: before
    the rename a hidden ``.new`` file is left, which the next call replaces.
    """
    try:
        real = os.path.realpath(path)
        folder, name = os.path.split(real)
        os.makedirs(folder, mode=_NEW_FOLDER, exist_ok=True)
        with _locked(folder):
            _compare(path, real, expected)
            temporary = os.path.join(folder, f".{name}.new")
            try:
                _write_like(real, temporary, content)
                _compare(path, real, expected)
                os.rename(temporary, real)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
            sync_folder(folder)
    except OSError as error:
        raise _not_written(path, error) from error


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Held for a few system calls; some network file systems can't lock a folder.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _compare(path: str, real: str, expected: bytes | None) -> None:
    try:
        with open(real, "rb") as file:
            found: bytes | None = file.read()
    except FileNotFoundError:
        found = None
    if found != expected:
        raise ConflictError(
            f"{path} was changed meanwhile by somebody else; nothing was written.",
            "Look at the file and repeat the change.",
        )


def _write_like(real: str, temporary: str, content: bytes) -> None:
    """Write a file that everybody may do the same with as with the one that it will replace."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        try:
            old: os.stat_result | None = os.stat(real)
        except FileNotFoundError:
            old = None
        if old is not None:
            _own_like(descriptor, old)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            _copy_attributes(real, descriptor)
        else:
            _be_like_folder(descriptor, os.stat(os.path.dirname(real)))
        write_whole(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_like(descriptor: int, old: os.stat_result) -> None:
    try:
        _own(descriptor, old)
    except PermissionError:
        # /etc/netclaw/netclaw.toml of the package: root's, and equally its group's.
        if stat.S_IMODE(old.st_mode) >> 6 & 0o7 != stat.S_IMODE(old.st_mode) >> 3 & 0o7:
            raise
        os.fchown(descriptor, -1, old.st_gid)


def _own(descriptor: int, wanted: os.stat_result) -> None:
    have = os.fstat(descriptor)
    if (have.st_uid, have.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)


def _be_like_folder(descriptor: int, folder: os.stat_result) -> None:
    if os.geteuid() == 0:
        _own(descriptor, folder)
    os.fchmod(descriptor, stat.S_IMODE(folder.st_mode) & 0o644)


def _copy_attributes(real: str, descriptor: int) -> None:
    """Copy access lists and labels, as far as the file system and our rights go."""
    try:
        for name in os.listxattr(real):
            os.setxattr(descriptor, name, os.getxattr(real, name))
    except OSError:
        pass  # Without them mode and owner decide, and those were kept.


def _not_written(path: str, error: OSError) -> ConfigNotWrittenError:
    code = error.errno or errno.EIO
    owner = "Run this as root or as the owner of the file and its folder."
    remedies = {
        errno.EACCES: owner,
        errno.EPERM: owner,
        errno.EROFS: "Change it where it comes from; this file system is read-only.",
        errno.EBUSY: "It is a mount of its own: change what is mounted there, or mount the folder.",
        errno.ENOSPC: "Make room on its file system.",
        errno.ELOOP: "Mend the symbolic links: they lead in a circle.",
    }
    return ConfigNotWrittenError(
        f"{path} can't be replaced: {os.strerror(code)}.",
        remedies.get(code, "Look at its folder."),
    )
