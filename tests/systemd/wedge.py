"""Stops one thread of a process, and only that one, until the process ends: ``wedge.py TID``.

A stopped process would be no test of a watchdog that is to see a single part stand still. ptrace(2) stops
a thread alone; PTRACE_SEIZE leaves everything else as it is. Prints a line once the thread stands.
"""

from __future__ import annotations

import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000


def main(thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, thread, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.waitpid(thread, WALL)
    sys.stdout.write("it stands\n")
    sys.stdout.flush()
    # Its end has to be taken by the tracer before systemd can see it.
    while os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
