"""Many re-execs, and refusals and failed execves among them, leave nothing behind and let nothing grow."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.http.wire import Wire
from tests.process.client import control_through_restarts
from tests.process.faults import Fault
from tests.process.harness import Daemon, full_or
from tests.process.process_facts import (
    arguments,
    children,
    environment,
    resident_bytes,
    threads,
    wait_steady,
    without_pool,
)
from tests.process.talk import (
    accepted,
    check_history,
    events,
    new_session,
    wait_all_ended,
    wait_event,
)
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

REEXECS = full_or(15, 300)
#: In one image: refusals, and execves that fail.
REFUSALS = full_or(14, 200)
FAILURES = full_or(6, 40)
#: Images, or looks at one image, of which memory is compared: the first and the last so many.
COMPARED = full_or(5, 15)
STREAMS = 5
IDLE = 10
#: What memory may differ by; the reference's bound, which is about that of two equal images.
RESIDENT = 1.02

BAD = b"[daemon]\nlissen = 1\n"


class Brittle(Daemon):
    """A daemon whose interpreter can vanish at the moment of execve, so that it fails for real."""

    def __init__(self, failing: list[int], **options: Any) -> None:
        super().__init__(**options)
        self.link = self.home / "python"
        self.link.symlink_to(sys.executable)
        self.interpreter = str(self.link)
        # The link is no part of a virtual environment.
        path = [str(Path(__file__).parents[2]), *(entry for entry in sys.path if entry)]
        self.environment["PYTHONPATH"] = os.pathsep.join(path)
        #: By occurrence of Exec: the daemon is held before these.
        self.holds = {
            nth: Fault("hold", "before", "Exec", nth=nth, until=self.home / f"go-{nth}")
            for nth in failing
        }
        self.faults = list(self.holds.values())

    def reload_in_vain(self, nth: int) -> Any:
        """Ask for a restart whose execve fails; return its journal entry."""
        asked = control_through_restarts(self.control_path, "reload", timeout_s=30.0, force=True)
        held = self.holds[nth]
        wait_for(lambda: held.reached, 20.0, lambda: f"execve {nth}\n{self.errors()}")
        self.link.unlink()
        held.release()
        try:
            return self.outcome(asked["restart_id"], time.monotonic() + scaled(30.0))
        finally:
            self.link.symlink_to(sys.executable)

    def reload_refused(self) -> Any:
        """Ask for a configuration that can't be served, then put the old one back."""
        good = self.config_path.read_bytes()
        self.write_config(text=BAD)
        entry = self.reload()
        self.write_config(text=good)
        assert self.reload()["outcome"] == "unchanged"
        return entry


@dataclass(frozen=True)
class Facts:
    """What must be the same in every image."""

    descriptors: Counter[str]
    threads: Counter[str]
    children: frozenset[int]
    arguments: list[bytes]
    environment: dict[bytes, bytes]

    @classmethod
    def of(cls, daemon: Daemon) -> Facts:
        pid = daemon.pid
        return cls(
            without_pool(wait_steady(pid), daemon.home / "state"),
            threads(pid),
            frozenset(children(pid)),
            arguments(pid),
            environment(pid),
        )


def wait_imported(daemon: Daemon) -> None:
    """Wait until the image has loaded all that it will ever need, in the background."""
    wait_for(
        lambda: not {"imports", "warm-up"} & threads(daemon.pid).keys(),
        20.0,
        lambda: f"the image to be whole, it has {threads(daemon.pid)}",
    )


def look(daemon: Daemon) -> tuple[Facts, int]:
    wait_imported(daemon)
    return Facts.of(daemon), resident_bytes(daemon.pid)


class Streams:
    """Watchers that join again after every restart, each with the number of its last event."""

    def __init__(self, daemon: Daemon, session: str) -> None:
        self._daemon, self._session = daemon, session
        self._wires: list[Wire] = []

    def join(self) -> None:
        last = str(len(events(self._daemon, self._session)))
        for _ in range(STREAMS):
            wire = Wire(("127.0.0.1", self._daemon.port))
            self._wires.append(wire.listen(self._session, Last_Event_ID=last))

    def end(self) -> None:
        """Hear the end that a restart gives them."""
        for wire in self._wires:
            *_others, said = wire.hear_until("restart")
            assert said.id is None
            assert wire.rest() == b""
        self.close()

    def close(self) -> None:
        while self._wires:
            self._wires.pop().close()


@contextmanager
def clients(daemon: Daemon, session: str) -> Iterator[tuple[Streams, list[Wire]]]:
    """Streams, and connections that are kept over every restart."""
    streams = Streams(daemon, session)
    with ExitStack() as stack:
        stack.callback(streams.close)
        idle = [stack.enter_context(Wire(("127.0.0.1", daemon.port))) for _ in range(IDLE)]
        for wire in idle:
            assert wire.ask("GET", "/api/health/live").status == 200
        yield streams, idle


def check_flat(sizes: list[int]) -> None:
    """Compare the medians of the first and of the last images."""
    early, late = statistics.median(sizes[:COMPARED]), statistics.median(sizes[-COMPARED:])
    assert late <= early * RESIDENT, f"memory grew from {early} to {late}: {sizes}"


def test_reexecs_leak_nothing() -> None:
    # Every fifth is refused before, and every twelfth fails at its execve once.
    failing = [number + number // 12 for number in range(12, REEXECS, 12)]
    with Brittle(failing) as daemon:
        daemon.start()
        session, waiting, ended = (new_session(daemon) for _ in range(3))
        accepted(daemon, waiting, "/ask")
        wait_event(daemon, waiting, "approval.requested")
        accepted(daemon, ended, "/ledger 3")
        wait_all_ended(daemon, [ended])
        pid, sizes, execs, first = daemon.pid, [], 0, None
        with clients(daemon, session) as (streams, idle):
            for number in range(1, REEXECS + 1):
                streams.join()
                execs += 1
                if execs in failing:
                    assert daemon.reload_in_vain(execs)["outcome"] == "failed"
                    streams.end()
                    streams.join()
                    execs += 1
                if number % 5 == 0:
                    assert daemon.reload_refused()["outcome"] == "refused"
                entry = daemon.reload(force=True)
                assert (entry["outcome"], entry["new_generation"]) == ("applied", number + 1)
                streams.end()
                if number <= COMPARED or number > REEXECS - COMPARED:
                    facts, size = look(daemon)
                    first = first or facts
                    assert facts == first
                    sizes.append(size)
            for wire in idle:
                # The same connection since the first image.
                assert wire.ask("GET", "/api/health/live").status == 200
        assert (daemon.pid, daemon.status()["degraded"]) == (pid, [])
        check_flat(sizes)
        for each in (session, waiting, ended):
            check_history(events(daemon, each))


def test_refusals_and_failed_execves_in_one_image_leak_nothing() -> None:
    failing = list(range(1, FAILURES + 1))
    with Brittle(failing) as daemon:
        daemon.start()
        session = new_session(daemon)
        with clients(daemon, session) as (streams, idle):
            # What is only loaded for the first refusal and the first failure counts for nothing.
            assert daemon.reload_refused()["outcome"] == "refused"
            assert daemon.reload_in_vain(1)["outcome"] == "failed"
            first, after_failures, after_refusals = look(daemon)[0], [], []
            for nth in failing[1:]:
                streams.join()
                assert daemon.reload_in_vain(nth)["outcome"] == "failed"
                streams.end()
                facts, size = look(daemon)
                assert facts == first
                after_failures.append(size)
            for _ in range(REFUSALS):
                assert daemon.reload_refused()["outcome"] == "refused"
                after_refusals.append(resident_bytes(daemon.pid))
            assert look(daemon)[0] == first
            for wire in idle:
                assert wire.ask("GET", "/api/health/live").status == 200
        assert daemon.generation() == 1
        # SQLite's page cache and the journal's last outcomes fill up, each to its limit.
        check_flat(after_failures)
        check_flat(after_refusals)
        assert daemon.reload(force=True)["outcome"] == "applied"
