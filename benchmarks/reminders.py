"""10,000 reminders that are not due yet: what they add to a start, to the gap of a re-exec and to memory.

Two homes, one with them and one without, are started in turn, so that both see the same machine.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Figure, median
from benchmarks.processes import cpu_s
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.reminders import (
    Missed,
    Reminder,
    ReminderId,
    ReminderState,
    Schedule,
    ScheduleKind,
)
from netclawd.core.session import SessionId
from tests.process.client import ask
from tests.process.harness import Daemon
from tests.waiting import wait_for

DAY_S = 86_400.0
#: Threads that add, so that they share commits.
WRITERS = 64


def a_reminder(number: int, now: float) -> Reminder:
    """Return one with a session of its own: of the three kinds in turn, due from tomorrow on."""
    due = now + DAY_S + number
    schedule = (
        Schedule(ScheduleKind.ONCE, "Europe/Berlin", at=due),
        Schedule(ScheduleKind.INTERVAL, "Europe/Berlin", at=due, every_s=DAY_S),
        Schedule(ScheduleKind.CRON, "Europe/Berlin", cron="30 8 * * 1-5"),
    )[number % 3]
    return Reminder(
        id=ReminderId(f"rem_{number:05}"),
        text=f"Look after number {number}, and say what has changed since yesterday.",
        schedule=schedule,
        missed=Missed.ONCE,
        max_late_s=3_600.0,
        session_id=SessionId(f"s-reminder-{number:05}"),
        own_session=True,
        origin={},
        state=ReminderState.ACTIVE,
        reason="",
        failures=0,
        created_at=now,
        created_by="benchmark",
        next_at=due,
    )


def add(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    store, now = SqliteStore.open(str(path)), time.time()
    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            rows = (a_reminder(number, now) for number in range(count))
            assert all(pool.map(store.reminders.add, rows))
    finally:
        store.close()


class Side:
    """A home, and what was measured of it."""

    def __init__(self, daemon: Daemon, reminders: int) -> None:
        self.daemon = daemon
        self.reminders = reminders
        self.starts_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.gaps_ms: list[float] = []
        self.memory_mib: list[float] = []

    def start(self) -> None:
        """Start it, and look at its memory when all is imported."""
        daemon = self.daemon
        begun = time.monotonic()
        daemon.spawn()
        wait_for(self._ready, 30.0, "the daemon to be ready", interval_s=0.002)
        self.starts_ms.append((time.monotonic() - begun) * 1000)
        self.cpu_ms.append(cpu_s(daemon.pid) * 1000)
        wait_for(lambda: daemon.status()["settled"], 30.0, "all to be imported")
        self.memory_mib.append(resident_mib(daemon.pid))
        assert daemon.status()["reminders"]["active"] == self.reminders

    def _ready(self) -> bool:
        try:
            return ask(self.daemon.port, "/api/health/ready").status == 200
        except OSError:
            return False

    def reload(self) -> None:
        self.gaps_ms.append(float(self.daemon.reload(force=True)["gap_ms"]))


def resident_mib(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def measure(quick: bool) -> list[Figure]:
    count, starts, reloads = (1_000, 2, 1) if quick else (10_000, 12, 1)
    with ExitStack() as stack:
        filled, empty = (Side(stack.enter_context(Daemon()), number) for number in (count, 0))
        add(filled.daemon.home / "state" / "netclawd.db", count)
        for side in (filled, empty):
            side.daemon.write_config()
        for number in range(starts):
            for side in (filled, empty) if number % 2 else (empty, filled):
                side.start()
                for _ in range(reloads):
                    side.reload()
                side.daemon.stop()
    started, without = median(filled.starts_ms), median(empty.starts_ms)
    # The fastest of each: what else the machine does only adds.
    added = min(filled.starts_ms) - min(empty.starts_ms)
    return [
        Figure(f"start with {count:,} reminders", started, "ms", without, "ms without"),
        Figure("added to the fastest start", added, "ms", at_most=200.0),
        Figure(
            "CPU time of a start with them",
            median(filled.cpu_ms),
            "ms",
            median(empty.cpu_ms),
            "ms without",
        ),
        Figure(
            "gap of a re-exec with them",
            median(filled.gaps_ms),
            "ms",
            median(empty.gaps_ms),
            "ms without",
        ),
        Figure(
            "memory with them", median(filled.memory_mib), "MiB", median(empty.memory_mib), "MiB"
        ),
    ]
