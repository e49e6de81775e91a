"""What a process holds, as /proc tells: descriptors, threads, children, memory, arguments, environment."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.waiting import wait_for


def descriptors(pid: int) -> Counter[str]:
    """Count what its descriptors lead to; sockets, pipes and deleted files by their kind."""
    found: Counter[str] = Counter()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        # It may have been closed since the listing.
        with suppress(OSError):
            found[re.sub(r":\[\d+\]", "", os.readlink(f"{folder}/{name}"))] += 1
    return found


#: Connections to the store: the writer's, and those of the pool (adapters/store/readers.py).
STORE_MOST = 9


def without_pool(opened: Counter[str], state: Path) -> Counter[str]:
    """Leave out the store's files, which are open as often as reads came together; bound how often."""
    rest = Counter(opened)
    for name in ("netclawd.db", "netclawd.db-wal"):
        assert 1 <= rest.pop(str(state / name)) <= STORE_MOST
    return rest


def threads(pid: int) -> Counter[str]:
    """Count its threads by their names as the kernel has them."""
    found: Counter[str] = Counter()
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            found[Path(f"/proc/{pid}/task/{task}/comm").read_text().strip()] += 1
    return found


def children(pid: int) -> set[int]:
    """Return the PIDs of its children, those included that nobody has waited for."""
    found: set[int] = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            found |= set(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def environment(pid: int) -> dict[bytes, bytes]:
    """Return the environment that its present image was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.partition(b"=")[::2] for entry in entries if entry)


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wait_steady(pid: int) -> Counter[str]:
    """Wait until a daemon that has just started watches its file and its descriptors rest; return them."""
    seen: list[Counter[str]] = []

    def rests() -> Counter[str]:
        seen.append(descriptors(pid))
        rest = seen[-50:]
        steady = len(rest) == 50 and all(one == rest[0] for one in rest) and not children(pid)
        return rest[0] if steady and rest[0]["anon_inode:inotify"] else Counter()

    return wait_for(rests, 20.0, lambda: f"descriptors that rest; the last were {seen[-1]}")
