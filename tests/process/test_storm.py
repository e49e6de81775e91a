"""Storms of HUP over restarts, with edits, forced reloads and other signals among them.

However many come and whenever: the process lives, the last content is what is served in the end, and
there are no more restarts than something asked for.
"""

from __future__ import annotations

import bisect
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.process.client import control_through_restarts
from tests.process.faults import NEW_IMAGE, OLD_IMAGE, TRACE, Fault
from tests.process.harness import PROVE, Daemon, free_port, full_or
from tests.process.load import CLIENTS, Target, check_nothing_lost, under_load
from tests.process.talk import accepted, check_history, new_session, wait_all_ended
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

#: How long the storm lasts at least, seconds, and how many edits fall into it at least.
STORM_S = full_or(2, 10)
EDITS = full_or(4, 16)
FORCED = 2
#: Reloads that nothing new asked for may cost this many restarts.
SPARE = 2

#: The part of a restart that a process is in after each mark of the trace.
PARTS = {
    "Judge": "judging",
    "Rehearse": "rehearsing",
    "BindNew": "rehearsing",
    "CloseGate": "draining",
    "MarkManifest": "draining",
    "DrainTurns": "draining",
    "Quiesce": "quiescing",
    "Settle": "handing off",
    "ListenNew": "handing off",
    "Exec": "handing off",
    "Image": "starting",
    "ClaimListeners": "starting",
    "OpenStore": "starting",
    "Serve": "warming",
    "WarmUp": "warming",
    "OpenGate": "warming",
    "StartWatching": "ready",
    "Retire": "ready",
}

#: Where a daemon is held for a storm of its own: an effect, and its occurrence over both images.
ALL_PLACES = [
    *((effect, 1) for effect in OLD_IMAGE),
    ("Image", 2),
    *((effect, 2) for effect in NEW_IMAGE if effect != "Retire"),
]
REDUCED = {"Rehearse", "DrainTurns", "Exec", "Image", "WarmUp"}
PLACES = [place for place in ALL_PLACES if PROVE or place[0] in REDUCED]


@dataclass
class Storm:
    #: Monotonic nanoseconds of each HUP; there once the storm is over.
    hups: list[int] = field(default_factory=list)


@contextmanager
def hup_storm(daemon: Daemon) -> Iterator[Storm]:
    """Send HUP a thousand times a second until the body ends."""
    found, stop = Storm(), daemon.home / "calm"
    script = Path(__file__).with_name("hup_storm.py")
    command = [sys.executable, str(script), str(daemon.pid), str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield found
        finally:
            stop.touch()
            output, _ = process.communicate(timeout=scaled(20.0))
    assert process.returncode == 0
    found.hups = json.loads(output)


def parts_hit(daemon: Daemon, hups: list[int]) -> Counter[str]:
    """Count the HUPs by the part of a restart in which they came."""
    rows = [line.split() for line in daemon.trace.read_text().splitlines()]
    marks = [(int(row[3]), PARTS[row[1]]) for row in rows if row[1] in PARTS]
    instants = [at for at, _part in marks]
    found: Counter[str] = Counter()
    for hup in hups:
        behind = bisect.bisect(instants, hup)
        if behind:
            found[marks[behind - 1][1]] += 1
    return found


def images(daemon: Daemon) -> int:
    return daemon.effects().count("Image")


def check_journal(daemon: Daemon, generation: int) -> None:
    """Each generation but the first has the one entry that made it, and nothing is left open."""
    rows = daemon.ask("/api/restarts?limit=1000").json["restarts"]
    assert {row["outcome"] for row in rows} <= {"applied", "unchanged", "refused"}
    applied = [row for row in rows if row["outcome"] == "applied"]
    made = sorted({row["new_generation"] for row in applied})
    assert made == list(range(2, generation + 1))
    assert all(row["generation"] == row["new_generation"] - 1 for row in applied)
    (newest,) = {row["new_digest"] for row in applied if row["new_generation"] == generation}
    assert newest == daemon.status()["digest"]


def wait_calm(daemon: Daemon, listen: list[str]) -> None:
    """Wait until the last content is served and nothing is under way."""
    wait_for(
        lambda: daemon.status()["addresses"] == listen and not daemon.status()["retiring"],
        30.0,
        lambda: f"{listen} to be served: {daemon.status()}",
    )
    # It is judged behind everything that came before it.
    assert daemon.reload()["outcome"] == "unchanged"
    wait_for(
        lambda: daemon.restarts()[0]["outcome"] != "pending", 10.0, "the journal to have its entry"
    )


def test_a_storm_of_hups_over_restarts(make_daemon: Make) -> None:
    tables = {"drain": {"model_timeout_s": 0.2}}
    daemon = make_daemon(faults=[TRACE], tables=tables).start()
    pid, session, talking = daemon.pid, new_session(daemon), new_session(daemon)
    staying = f"127.0.0.1:{daemon.port}"
    listen, edits, forced = [staying], 0, 0
    wait_for(lambda: "StartWatching" in daemon.effects(), 10.0, "the first image to be ready")
    began = time.monotonic()
    with under_load(Target(daemon.port, session), CLIENTS) as ledgers, hup_storm(daemon) as storm:
        while edits < EDITS or time.monotonic() - began < STORM_S:
            # Something to drain, each time.
            accepted_or_deferred(daemon, talking)
            before = daemon.generation()
            listen = [staying, f"127.0.0.1:{free_port()}"]
            if edits % 3 == 2:
                daemon.write_config(text=b"[daemon]\nlissen = 1\n")
            daemon.write_config(listen=listen, in_place=edits % 2 == 1)
            edits += 1
            if forced < FORCED:
                forced += 1
                control_through_restarts(daemon.control_path, "reload", timeout_s=20.0, force=True)
            if edits % 4:
                daemon.wait_ready(above=before)
    wait_calm(daemon, listen)
    assert daemon.pid == pid
    assert daemon.running.poll() is None
    generation = daemon.generation()
    assert images(daemon) == generation, "every image got one generation"
    assert generation - 1 <= edits + forced + SPARE
    check_journal(daemon, generation)
    check_nothing_lost(ledgers)
    hit = parts_hit(daemon, storm.hups)
    assert set(hit) == set(PARTS.values()), hit
    for rows in wait_all_ended(daemon, [session, talking], timeout_s=90.0).values():
        check_history(rows)


def accepted_or_deferred(daemon: Daemon, session: str) -> None:
    """Say something that takes a while; it is accepted in every phase."""
    assert accepted(daemon, session, "/count 15 0.02")["turn_id"]


@pytest.mark.parametrize(("effect", "nth"), PLACES)
def test_a_storm_in_one_part_of_a_restart(make_daemon: Make, effect: str, nth: int) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_s": 0.3}})
    held = Fault("hold", "before", effect, nth=nth, until=daemon.home / "go")
    daemon.faults = [held]
    daemon.start()
    pid, session = daemon.pid, new_session(daemon)
    accepted(daemon, session, "/count 20 0.05")
    staying = f"127.0.0.1:{daemon.port}"
    daemon.control("reload", force=True)
    wait_for(lambda: held.reached, 20.0, f"the daemon to be held before {effect}")

    forced: list[str] = []

    def force() -> None:
        # Not answered before the daemon goes on, in the parts in which the socket is closed.
        asked = control_through_restarts(daemon.control_path, "reload", timeout_s=20.0, force=True)
        forced.append(asked["restart_id"])

    forcing = threading.Thread(target=force, name="forced reload")
    forcing.start()
    listen = [staying, f"127.0.0.1:{free_port()}"]
    daemon.write_config(listen=listen)
    for _ in range(300):
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            daemon.signal(number)
    held.release()
    forcing.join()

    entry = daemon.outcome(forced[0], time.monotonic() + scaled(30.0))
    assert entry["outcome"] == "applied"
    wait_calm(daemon, listen)
    assert daemon.pid == pid
    # The one that was held, the forced one and the change; they may have become one.
    assert 2 <= daemon.generation() <= 4
    check_journal(daemon, daemon.generation())
    check_history(wait_all_ended(daemon, [session])[session])
