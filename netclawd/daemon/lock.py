"""One daemon for each home: a lock that is held from the first start to the stop, through execve.

flock(2) on ``run/netclawd.lock``; the descriptor is inherited under the name ``lock``. The PID file
beside it is for people: nothing trusts it, and a stale one does no harm.
"""

from __future__ import annotations

import fcntl
import os

from netclawd.daemon.descriptors import Inheritance
from netclawd.errors import AlreadyRunningError, NetclawError


def hold_lock(runtime_dir: str, inherited: Inheritance) -> int:
    """Return the descriptor that holds the lock; AlreadyRunningError names who holds it."""
    claimed = inherited.claim("lock")
    if claimed is not None:
        return claimed
    path = os.path.join(runtime_dir, "netclawd.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunningError(
            f"Another netclawd {_holder(runtime_dir)}holds {path}.",
            "Use `netclaw status` to see it, `netclaw daemon stop` to end it, "
            "or set NETCLAW_HOME to another folder; `lslocks` says which process it is.",
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise _no_lock(path, error) from error
    return descriptor


def _no_lock(path: str, error: OSError) -> NetclawError:
    return NetclawError(
        f"The lock {path} can't be taken: {error.strerror}.",
        "Make it writable for this user, or set NETCLAW_HOME to another folder.",
    )


def _holder(runtime_dir: str) -> str:
    """Return "(PID n, generation m) " as the PID file has it, or nothing."""
    try:
        with open(os.path.join(runtime_dir, "netclawd.pid"), encoding="ascii") as file:
            pid, generation = file.read().split()
    except (OSError, ValueError):
        return ""
    return f"(PID {pid}, generation {generation}) "
