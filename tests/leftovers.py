"""What a test may leave behind: nothing. Threads, child processes and descriptors, before and after.

A descendant that has lost its parent is no child of ours any more; it is known by a mark in the
environment that it inherited.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_for

#: Environment variable that every descendant of a test inherits; its value is the test's own.
MARK = "TEST_DESCENDANT_OF"


def children() -> frozenset[int]:
    """Return the PIDs of our children, those included that have ended and were not waited for."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
    return frozenset(found)


def descriptors() -> frozenset[tuple[int, str]]:
    """Return our open descriptors with what they lead to."""
    found: set[tuple[int, str]] = set()
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is closed by now.
        with suppress(OSError):
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return frozenset(found)


def processes() -> frozenset[int]:
    """Return every PID there is."""
    return frozenset(int(name) for name in os.listdir("/proc") if name.isdigit())


def marked(pids: Iterable[int], mark: str) -> frozenset[int]:
    """Return those of ``pids`` that carry the mark in their environment."""
    entry = f"{MARK}={mark}".encode()
    found: set[int] = set()
    for pid in pids:
        with suppress(OSError):
            if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return frozenset(found)


def _describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        command = ""
    return f"{pid} ({command or 'ended, not waited for'})"


@dataclass(frozen=True)
class Before:
    mark: str
    threads: frozenset[threading.Thread]
    children: frozenset[int]
    processes: frozenset[int]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def look(cls, mark: str) -> Before:
        return cls(mark, frozenset(threading.enumerate()), children(), processes(), descriptors())

    def leftovers(self) -> list[str]:
        """Name what is there now and was not before."""
        found = [f"thread {t.name}" for t in set(threading.enumerate()) - self.threads]
        born = (children() - self.children) | marked(processes() - self.processes, self.mark)
        found += [f"process {_describe(pid)}" for pid in sorted(born - {os.getpid()})]
        opened = descriptors() - self.descriptors
        found += [f"descriptor {fd} -> {target}" for fd, target in sorted(opened)]
        return found


@contextmanager
def nothing_left_behind(mark: str, timeout_s: float = 2.0) -> Iterator[None]:
    """Fail if the body leaves anything behind; what is on its way out gets ``timeout_s``."""
    before = Before.look(mark)
    yield
    if not before.leftovers():
        return
    gc.collect()
    wait_for(
        lambda: not before.leftovers(),
        timeout_s,
        lambda: "the test to clean up; it left behind: " + "; ".join(before.leftovers()),
    )


def leave_orphans_to_init() -> None:
    """Take back PR_SET_CHILD_SUBREAPER (prctl(2)) of this process."""
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
