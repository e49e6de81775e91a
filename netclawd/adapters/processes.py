"""Looks for a running program in /proc, proc(5): one pass, which reads and never waits.

A hint for operators, no protection: any user may give a process any name. Asked for only where the
configuration names a tunnel, so that the pass costs nobody else anything.
"""

from __future__ import annotations

import os

from netclawd.core.exposure import Sighting

#: Inode of the first PID namespace of a machine (PROC_PID_INIT_INO of the kernel).
_FIRST_NAMESPACE = 0xEFFFFFFC
#: States of a process that has ended: zombie, dead.
_ENDED = (b"Z", b"X", b"x")


def look_for(program: str, proc: str = "/proc") -> Sighting:
    """Say whether a process of that name runs; RUNNING means that one was seen.

    The name is that of its comm (which the kernel cuts to 15 bytes), its executable or its first argument.
    A process that ends meanwhile, or whose files can't be read, isn't seen.
    """
    wanted = os.fsencode(program)
    root = os.fsencode(proc)
    try:
        entries = os.listdir(root)
    except OSError:
        return Sighting.HIDDEN
    if any(_is(os.path.join(root, entry), wanted) for entry in entries if entry.isdigit()):
        return Sighting.RUNNING
    if _read(os.path.join(root, b"1", b"stat")) is None:
        return Sighting.HIDDEN  # There always is a process 1.
    return Sighting.APART if _apart(root) else Sighting.ABSENT


def _is(folder: bytes, wanted: bytes) -> bool:
    stat = _read(os.path.join(folder, b"stat"))
    if stat is None:
        return False
    # "PID (COMM) STATE ..."; a comm may hold anything, parentheses too.
    before, _bracket, after = stat.rpartition(b")")
    if after.strip()[:1] in _ENDED:
        return False
    return (
        before.partition(b"(")[2] == wanted
        or _first_argument(folder) == wanted
        or _executable(folder) == wanted
    )


def _first_argument(folder: bytes) -> bytes:
    arguments = _read(os.path.join(folder, b"cmdline")) or b""
    return os.path.basename(arguments.partition(b"\0")[0])


def _executable(folder: bytes) -> bytes:
    try:
        path = os.readlink(os.path.join(folder, b"exe"))
    except OSError:
        return b""  # Another user's, a kernel thread's, or it ended.
    return os.path.basename(path.removesuffix(b" (deleted)"))


def _read(path: bytes) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _apart(root: bytes) -> bool:
    try:
        return os.stat(os.path.join(root, b"self/ns/pid")).st_ino != _FIRST_NAMESPACE
    except OSError:
        return False
