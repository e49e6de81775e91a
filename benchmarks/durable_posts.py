"""Durable admissions: 32 clients, against the same route with durability off; admissions per fsync.

The turns are kept waiting behind one that asks a person, so that the route alone is measured; a
second pair of figures has the turns running too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, median
from benchmarks.processes import run_generator
from tests.process.harness import Daemon
from tests.process.talk import accepted, new_session, wait_event

CLIENTS = 32
LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass
class Side:
    daemon: Daemon
    waiting: list[str]
    rates: list[float]
    busy_rates: list[float]

    def post(self, sessions: list[str], seconds: float) -> float:
        """Post for a while; return answers per second."""
        report = run_generator(
            mode="closed",
            port=self.daemon.port,
            method="POST",
            path="/api/sessions/{}/messages",
            sessions=",".join(sessions),
            body=json.dumps({"text": "hello"}),
            connections=CLIENTS,
            seconds=seconds,
        )
        assert set(report["counts"]) == {"ok"}, report["counts"]
        return float(report["counts"]["ok"] / report["seconds"])

    def counters(self) -> Any:
        lines = (self.daemon.home / "notes").read_text().splitlines()
        return [row["counters"] for row in map(json.loads, lines) if "counters" in row][-1]


@contextmanager
def side(synchronous: str) -> Iterator[Side]:
    with Daemon(launcher=LAUNCHER) as daemon:
        daemon.environment = {"BENCH_NOTES": str(daemon.home / "notes")}
        if synchronous:
            daemon.environment["BENCH_SYNCHRONOUS"] = synchronous
        daemon.start()
        waiting = [new_session(daemon) for _ in range(CLIENTS)]
        for session in waiting:
            accepted(daemon, session, "/ask")
            wait_event(daemon, session, "approval.requested")
        yield Side(daemon, waiting, [], [])


def measure(quick: bool) -> list[Figure]:
    rounds, seconds = (2, 1.0) if quick else (6, 4.0)
    with ExitStack() as stack:
        durable, off = stack.enter_context(side("")), stack.enter_context(side("OFF"))
        before = durable.counters()
        for _ in range(rounds):
            for one in (durable, off):
                one.rates.append(one.post(one.waiting, seconds))
        after = durable.counters()
        for _ in range(rounds):
            for one in (durable, off):
                sessions = [new_session(one.daemon) for _ in range(CLIENTS)]
                one.busy_rates.append(one.post(sessions, seconds))
    admissions = after["admissions"] - before["admissions"]
    commits = after["commits"] - before["commits"]
    return [
        Figure(
            "durable POSTs, 32 clients",
            median(durable.rates),
            "/s",
            median(off.rates),
            "/s not durable",
            at_least=0.7,
        ),
        Figure("admissions per commit", admissions / commits, "", at_least=8),
        Figure(
            "the same with turns running",
            median(durable.busy_rates),
            "/s",
            median(off.busy_rates),
            "/s not durable",
        ),
    ]
