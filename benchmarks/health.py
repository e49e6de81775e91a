"""Throughput of /api/health/live against bare falcon on waitress; also with 1,000 streams open."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.figures import Figure, median, percentile
from benchmarks.processes import bare_server, run_generator, started_generator
from tests.process.harness import Daemon
from tests.process.talk import new_session

STREAMS = 1000
THREADS = 32


def measure(quick: bool) -> list[Figure]:
    rounds, seconds = (3, 1.0) if quick else (8, 3.0)
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(tables={"daemon": {"http_threads": THREADS}})).start()
        bare = stack.enter_context(bare_server(THREADS))
        latencies: list[float] = []

        def rate(port: int) -> float:
            report = run_generator(mode="closed", port=port, connections=16, seconds=seconds)
            assert set(report["counts"]) == {"ok"}, report["counts"]
            if port == daemon.port:
                latencies.extend(report["latencies_ms"])
            return float(report["counts"]["ok"] / report["seconds"])

        pairs = [(rate(daemon.port), rate(bare)) for _ in range(rounds)]
        latencies.clear()
        session = new_session(daemon)
        hold = stack.enter_context(
            started_generator(
                mode="hold",
                port=daemon.port,
                path=f"/api/sessions/{session}/events",
                count=STREAMS,
            )
        )
        assert hold.stdout is not None
        assert '"held"' in hold.stdout.readline()
        crowded = [(rate(daemon.port), rate(bare)) for _ in range(rounds)]
    return [
        Figure(
            "health, 16 clients",
            median([ours for ours, _ in pairs]),
            "/s",
            median([theirs for _, theirs in pairs]),
            "/s bare",
            at_least=0.85,
        ),
        Figure(
            f"health with {STREAMS} streams open",
            median([ours for ours, _ in crowded]),
            "/s",
            median([theirs for _, theirs in crowded]),
            "/s bare, no streams",
            at_least=0.85,
        ),
        Figure("its latency then, p99", percentile(latencies, 99), "ms"),
    ]
