"""What the machinery around HTTP costs in steady state: the whole daemon against its HTTP side alone.

Both serve the same requests with the same server and application in one run, turn about, each first
every other time, in many short rounds. What else the machine does can only make a round slower, never
faster, so the undisturbed tenth of the rounds of each is compared: the fastest, and those that took the
least CPU time for a request. The goal (under 1 % of throughput) is set on the latter: the server is
bound by its CPU, and the clients, who share the machine, blur throughput itself by more. What the
machinery does by itself, without a request, is what an idle daemon uses. A scrape of the metrics is
measured apart: it comes every 15 s, not with a request.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.figures import Figure, median, percentile
from benchmarks.processes import cpu_s, front_server, run_generator
from tests.process.client import ask
from tests.process.harness import Daemon
from tests.process.talk import accepted, new_session, wait_all_ended
from tests.waiting import wait_for

THREADS = 8
CLIENTS = 16
SCRAPES = 40


def measure(quick: bool) -> list[Figure]:
    rounds, seconds, idle_s = (20, 0.25, 3.0) if quick else (200, 0.25, 30.0)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(tables={"daemon": {"http_threads": THREADS}})).start()
        port, pid = stack.enter_context(front_server(THREADS))
        wait_for(
            lambda: daemon.status()["watcher"] is not None, 20.0, "all that follows a start to end"
        )
        ours, front = Served(daemon.port, daemon.pid), Served(port, pid)
        for first, second in _turn_about(ours, front, rounds):
            first.load(seconds)
            second.load(seconds)
        idle = _idle(daemon, idle_s)
        scrapes = _scrapes(daemon)
    return [
        Figure(
            f"health with all machinery, {CLIENTS} clients",
            percentile(ours.rates, 90),
            "/s",
            percentile(front.rates, 90),
            "/s HTTP alone",
        ),
        Figure(
            "its CPU time a request",
            percentile(ours.costs_us, 10),
            "us",
            percentile(front.costs_us, 10),
            "us HTTP alone",
            at_most=1.01,
        ),
        Figure("CPU time of an idle daemon", idle * 1000, "ms/s", at_most=10.0),
        Figure("scrape of the metrics, p50", median(scrapes), "ms"),
        Figure("scrape of the metrics, p99", percentile(scrapes, 99), "ms"),
    ]


class Served:
    """One of the two servers and what was measured of it."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.rates: list[float] = []
        self.costs_us: list[float] = []

    def load(self, seconds: float) -> None:
        before = cpu_s(self.pid)
        report = run_generator(mode="closed", port=self.port, connections=CLIENTS, seconds=seconds)
        assert set(report["counts"]) == {"ok"}, report["counts"]
        answered = report["counts"]["ok"]
        self.rates.append(answered / report["seconds"])
        self.costs_us.append((cpu_s(self.pid) - before) / answered * 1e6)


def _turn_about(one: Served, other: Served, rounds: int) -> Iterator[tuple[Served, Served]]:
    # What a first request makes (imports, caches) belongs to neither.
    one.load(0.2)
    other.load(0.2)
    for served in (one, other):
        served.rates.clear()
        served.costs_us.clear()
    for number in range(rounds):
        yield (one, other) if number % 2 == 0 else (other, one)


def _idle(daemon: Daemon, seconds: float) -> float:
    """Return how much CPU time the daemon uses in a second while nobody asks anything, seconds."""
    begun, before = time.monotonic(), cpu_s(daemon.pid)
    time.sleep(seconds)
    return (cpu_s(daemon.pid) - before) / (time.monotonic() - begun)


def _scrapes(daemon: Daemon) -> list[float]:
    """Return how long scrapes took, milliseconds, each with a turn's events to count."""
    session, times = new_session(daemon), []
    for _ in range(SCRAPES):
        accepted(daemon, session, "hello")
        wait_all_ended(daemon, [session])
        begun = time.monotonic()
        assert ask(daemon.port, "/metrics").status == 200
        times.append((time.monotonic() - begun) * 1000)
    return times
