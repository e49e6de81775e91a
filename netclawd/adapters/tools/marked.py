"""Finds and ends what a command has started, wherever it has gone: by its session, its mark, its descent.

The mark is two variables in the environment: the call, and the state folder that the daemon works on,
so that no daemon takes another's. A process is ours when it is in the session of the command, carries
the mark, or descends from one that does. What clears its environment, leaves the session and loses
its parent, all three, is a **stray**: since the daemon takes in orphans (PR_SET_CHILD_SUBREAPER of
prctl(2)), it is a child of the daemon in a session that is not the daemon's. Nothing else of the daemon
may be: children of its own stay in its session.

What is signalled are whole groups, each while a member that was seen is held by a descriptor
(pidfd_open(2)) and still is the one that was seen: a number used again hits nobody.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable

from netclawd.core.values import frozen

_PR_SET_CHILD_SUBREAPER = 36

#: The variables of the mark.
CALL, OWNER = "NETCLAW_CALL", "NETCLAW_CALL_OF"


def identity_of(state: str) -> str:
    """Return what tells a state folder from every other one on this machine."""
    status = os.stat(state)
    return f"{status.st_dev}-{status.st_ino}"


@frozen
class Seen:
    """A process, as one look found it."""

    pid: int
    parent: int
    #: Its process group.
    group: int
    #: The session's id: the PID of whoever began it.
    session: int
    #: Ended, and not waited for.
    zombie: bool
    #: Ticks since the start of the machine: with the PID its identity.
    start: int


def look() -> dict[int, Seen]:
    """Return every process that can be seen."""
    found = (see(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {seen.pid: seen for seen in found if seen is not None}


def see(pid: int) -> Seen | None:
    """Look at one process; proc_pid_stat(5)."""
    raw = _read(f"/proc/{pid}/stat")
    if not raw:
        return None
    # "PID (COMM) STATE PPID PGRP SESSION ...": a comm may hold anything, parentheses too.
    state, parent, group, session, *rest = raw.rpartition(b")")[2].split()
    return Seen(pid, int(parent), int(group), int(session), state in b"ZXx", int(rest[15]))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # It has ended, or is another user's.


def carries(pid: int, mark: Collection[bytes]) -> bool:
    """Say whether a process has all these entries in its environment."""
    entries = _read(f"/proc/{pid}/environ").split(b"\0")
    return all(entry in entries for entry in mark)


def family(
    everybody: dict[int, Seen], mark: Collection[bytes], session: int = 0, since: int = 0
) -> list[Seen]:
    """Return who is in the session or carries the mark, and who descends from them; zombies too.

    ``since``: none of them was started before.
    """
    own = os.getpid()
    young = [seen for seen in everybody.values() if seen.start >= since and seen.pid != own]
    found = {
        seen.pid
        for seen in young
        if (session and seen.session == session) or (not seen.zombie and carries(seen.pid, mark))
    }
    grown = True
    while grown:
        born = {seen.pid for seen in young if seen.parent in found} - found
        found |= born
        grown = bool(born)
    return [everybody[pid] for pid in found]


def strays(everybody: dict[int, Seen], leaders: Collection[int]) -> list[Seen]:
    """Return our children in foreign sessions but the leaders of commands; zombies too."""
    own = os.getpid()
    session = os.getsid(0)
    return [
        seen
        for seen in everybody.values()
        if seen.parent == own and seen.session != session and seen.pid not in leaders
    ]


def is_of_a_command(pid: int) -> bool:
    """Say whether a process belongs to a command of an agent: by its mark, its parents' or its descent.

    One that has ended counts as one: a command may leave its connection to a child. One of another PID
    namespace (0), or that can't be seen, has other rights than a command and is none.
    """
    own, session = os.getpid(), os.getsid(0)
    if pid == own:
        return False
    # A daemon that runs inside of a command itself gives its mark to all who are beside it.
    mark = None if CALL in os.environ else f"\0{CALL}=".encode()
    passed: set[int] = set()
    while pid > 1 and pid not in passed:
        passed.add(pid)
        seen = see(pid)
        if seen is None:
            return len(passed) == 1 and not _lives(pid)
        if mark is not None and mark in b"\0" + _read(f"/proc/{pid}/environ"):
            return True
        if seen.parent == own:
            return seen.session != session
        pid = seen.parent
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Another user's.
    return True


def take_in_orphans() -> None:
    """Become the parent of each descendant that loses its own; where that can't be, strays are not found."""
    import ctypes  # Not on the way to serving.

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def send(targets: Iterable[Seen], number: signal.Signals) -> None:
    """Signal the group of each that is still the one that was seen, so that no fork slips away."""
    done = {os.getpgrp()}
    for target in targets:
        if target.group in done:
            continue
        try:
            descriptor = os.pidfd_open(target.pid)
        except OSError:
            continue  # It has ended.
        try:
            now = see(target.pid)
            if now is not None and (now.start, now.group) == (target.start, target.group):
                done.add(target.group)
                os.killpg(target.group, number)
        except OSError:
            pass  # It has ended, or has another user's rights.
        finally:
            os.close(descriptor)


def reap_group(leader: int) -> int:
    """Wait for our children that have ended in the group of a leader, which is left; return how many.

    Costs what there is to be done, whereas a look costs more the more has not been waited for: what
    forks fast enough is never caught up with by looks.
    """
    count, flags = 0, os.WEXITED | os.WNOHANG | os.WNOWAIT
    with contextlib.suppress(ChildProcessError):  # None is left.
        while (found := os.waitid(os.P_PGID, leader, flags)) and found.si_pid != leader:
            os.waitpid(found.si_pid, os.WNOHANG)
            count += 1
    return count


def reap(ended: Iterable[Seen]) -> None:
    """Wait for those that are our children; others' statuses are left alone."""
    own = os.getpid()
    for seen in ended:
        if seen.parent == own:
            with contextlib.suppress(ChildProcessError):  # Another thread was quicker.
                os.waitpid(seen.pid, os.WNOHANG)
