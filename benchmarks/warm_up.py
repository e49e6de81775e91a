"""Warm-up of 1,000 sessions that a crash interrupted, each in the middle of a turn."""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.figures import Figure
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.session import (
    AdmitInput,
    Change,
    EventType,
    InputId,
    NewEvent,
    SessionId,
    TurnId,
    TurnState,
)
from tests.process.harness import Daemon
from tests.process.talk import events, of_type
from tests.waiting import wait_for

LAUNCHER = Path(__file__).with_name("launcher.py")


def interrupt(path: Path, count: int) -> list[str]:
    """Write sessions whose turns run under a generation that is gone; return the sessions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = SqliteStore.open(str(path))
    try:
        generation = store.begin_generation(time.time(), None)
        changes = []
        sessions = [SessionId(f"s-warm-{number:04}") for number in range(count)]
        for session in sessions:
            turn = TurnId(f"t-{session}")
            store.create_session(session, time.time())
            new = AdmitInput(
                session, InputId(f"i-{session}"), turn, "/count 3 0", None, deferred=False
            )
            store.admit(new, time.time())
            lease = store.lease(turn, generation)
            started = NewEvent(EventType.TURN_STARTED, {"generation": generation})
            changes.append(Change(lease, (started,), TurnState.RUNNING))
        store.commit_all(changes, time.time())
    finally:
        store.close()
    return list(sessions)


def measure(quick: bool) -> list[Figure]:
    count = 100 if quick else 1000
    with Daemon(launcher=LAUNCHER) as daemon:
        daemon.environment = {"BENCH_NOTES": str(daemon.home / "notes")}
        sessions = interrupt(daemon.home / "state" / "netclawd.db", count)
        daemon.start()
        notes = [json.loads(line) for line in (daemon.home / "notes").read_text().splitlines()]
        begun = next(note["at"] for note in notes if note.get("effect") == "WarmUp")
        resumed: dict[str, float] = {}

        def all_resumed() -> bool:
            for session in sessions:
                if session not in resumed:
                    rows = of_type(events(daemon, session), "turn.resumed")
                    if not rows:
                        return False
                    resumed[session] = rows[0]["at"] - begun
            return True

        wait_for(all_resumed, 60.0, lambda: f"{count} turns to be resumed, {len(resumed)} are")
    instants = sorted(resumed.values())
    return [
        Figure(f"warm-up of {count} sessions", instants[-1], "s", at_most=2.0),
        Figure("warm-up of the first 50", instants[49] * 1000, "ms", at_most=200.0),
    ]
