"""Unix sockets of HTTP, in the file system and under abstract names.

A socket is bound beside its path, given its mode and owner, listens, and only then is renamed to the
path, so that no client meets it half made; what a dead process left there is replaced by the same
rename. Invariant: nothing is removed, and nothing living is replaced, that isn't ours. What tells that
is the file, held open from its binding on and handed over with the socket: as long as it is open no
other can have its inode, and the socket itself can't say, since getsockname(2) goes on telling the
first name.

Crash: before the rename a socket file with a hidden name is left, which the next bind for the same path
removes; after it a file at the path, which the next start replaces.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from netclawd.core.listeners import Address, Family, temporary_path
from netclawd.core.settings import UnixAccess
from netclawd.daemon.accounts import owner_of
from netclawd.errors import AddressError, ConfigMeaningError


class SocketFile:
    """The file of a bound socket, open as a place only (O_PATH)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def at(cls, path: str) -> SocketFile:
        """Open the file of a socket that was bound a moment ago; OSError when it is another's."""
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        info = os.fstat(fd)
        if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
            os.close(fd)
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return cls(fd)

    def lies_at(self, path: str) -> bool:
        """Whether it is this file that clients find at the path."""
        try:
            there = os.stat(path, follow_symlinks=False)
            return os.path.samestat(there, os.fstat(self.fd))
        except OSError:  # Nothing is there, or this one was closed while a status was asked for.
            return False

    def fits(self, access: UnixAccess, folder: str) -> bool:
        """Whether it has this mode and owner already."""
        info = os.fstat(self.fd)
        has = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        return has == (access.mode, *_owner(access, folder))

    def give(self, access: UnixAccess, folder: str) -> None:
        """Set mode and owner; OSError when that isn't allowed. The mode first: the owner may leave us."""
        if self.fits(access, folder):
            return
        # By the descriptor: the path may have become another's meanwhile.
        place = f"/proc/self/fd/{self.fd}"
        os.chmod(place, access.mode)
        os.chown(place, *_owner(access, folder))

    def remove(self, *paths: str) -> None:
        """Unlink it wherever it lies; another's file is left alone."""
        for path in paths:
            if self.lies_at(path):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def close(self) -> None:
        os.close(self.fd)


def _owner(access: UnixAccess, folder: str) -> tuple[int, int]:
    """Return user and group; left to the process they are what the kernel gives a new file."""
    try:
        user, group = owner_of(access)
    except ConfigMeaningError as error:  # The account went away after the configuration was judged.
        raise AddressError(error.what, error.remedy) from error
    if group is None:
        info = os.stat(folder)
        group = info.st_gid if info.st_mode & stat.S_ISGID else os.getegid()
    return os.geteuid() if user is None else user, group


def bind_unix(address: Address, access: UnixAccess) -> tuple[socket.socket, SocketFile | None]:
    """Bind a socket, not listening; one with a path beside it. AddressError changes nothing."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        if address.path is None:
            sock.bind("\0" + address.host[1:])
            return sock, None
        _refuse_taken(address, address.path)
        return sock, _bind_beside(sock, address.path, access)
    except OSError as error:
        sock.close()
        raise _unavailable(address, error) from error
    except AddressError:
        sock.close()
        raise


def try_access(address: Address, file: SocketFile, access: UnixAccess) -> None:
    """Try on a socket beside it whether the file of this one can be given these rights."""
    assert address.path is not None
    try:
        if file.fits(access, os.path.dirname(address.path)):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            tried = _bind_beside(sock, address.path, access)
            tried.remove(temporary_path(address.path))
            tried.close()
    except OSError as error:
        raise _unavailable(address, error) from error


def give_access(address: Address, file: SocketFile, access: UnixAccess) -> None:
    """Give the file of a socket that is served this mode and owner. AddressError."""
    assert address.path is not None
    try:
        file.give(access, os.path.dirname(address.path))
    except OSError as error:
        raise _unavailable(address, error) from error


def publish(address: Address, file: SocketFile) -> None:
    """Rename the socket, which listens by now, to its path. AddressError when that has become another's."""
    assert address.path is not None
    temporary = temporary_path(address.path)
    try:
        _refuse_taken(address, address.path)
        if not file.lies_at(temporary):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.rename(temporary, address.path)
    except OSError as error:
        raise _unavailable(address, error) from error


def abstract_address(sock_fd: int) -> Address | None:
    """Return the address of an inherited Unix socket with an abstract name, None for another one."""
    try:
        sock = socket.socket(fileno=sock_fd)
    except OSError:
        return None
    try:
        name = sock.getsockname()
    finally:
        sock.detach()
    if isinstance(name, bytes) and name[:1] == b"\0":
        return Address(Family.UNIX, "@" + name[1:].decode("utf-8", "replace"), 0)
    return None


def is_socket_of(sock: socket.socket, address: Address) -> bool:
    """Whether an inherited socket is what its name says, as far as it can tell."""
    if sock.family != socket.AF_UNIX:
        return False
    # The name of one with a path is its first, temporary one.
    return address.path is not None or sock.getsockname() == b"\0" + address.host[1:].encode()


def _refuse_taken(address: Address, path: str) -> None:
    """Raise AddressError for a file of another kind and for a socket that somebody listens on."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise AddressError(
            f"The address {address} can't be bound: what lies there is no socket.",
            "Move it away, or choose another path.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # Left by a process that is gone.
        except OSError:
            pass  # Its queue is full, or it isn't for us: somebody's in any case.
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bind_beside(sock: socket.socket, path: str, access: UnixAccess) -> SocketFile:
    temporary = temporary_path(path)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(temporary, follow_symlinks=False).st_mode):
            os.unlink(temporary)
    sock.bind(temporary)
    file = None
    try:
        file = SocketFile.at(temporary)
        file.give(access, os.path.dirname(path))
    except (OSError, AddressError):
        if file is not None:
            file.remove(temporary)
            file.close()
        raise
    return file


_WHY = {
    errno.EADDRINUSE: (
        "it is in use",
        "Stop the program that listens there (`ss -lxp` names it), or choose another path.",
    ),
    errno.ENOENT: ("its folder does not exist", "Make the folder, or choose another path."),
    errno.ENOTDIR: (
        "a part of its path is a file",
        "Choose a path whose folders exist.",
    ),
    errno.EACCES: (
        "the right to write in its folder is missing",
        "Make the folder writable for the daemon's user, or choose another path.",
    ),
    errno.EPERM: (
        "its mode or its owner can't be set",
        "Run the daemon as a member of daemon.unix_group; only root may set daemon.unix_user.",
    ),
    errno.EROFS: ("its file system is read-only", "Choose a path on one that is writable."),
}


def _unavailable(address: Address, error: OSError) -> AddressError:
    number = error.errno or 0
    default = os.strerror(number), "Choose another path in daemon.listen."
    why, remedy = _WHY.get(number, default)
    return AddressError(f"The address {address} can't be bound: {why}.", remedy)
