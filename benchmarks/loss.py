"""Requests lost while the daemon re-executes itself under an open-loop load."""

from __future__ import annotations

import json

from benchmarks.figures import Figure, percentile
from benchmarks.processes import started_generator
from tests.process.harness import Daemon

LOST = ("refused", "reset", "empty", "broken", "timeout", "status")


def measure(quick: bool) -> list[Figure]:
    reexecs, requests, rate = (10, 3000, 300) if quick else (200, 60_000, 300)
    with Daemon() as daemon:
        daemon.start()
        options = {"mode": "open", "port": daemon.port, "rate": rate, "count": requests}
        with started_generator(**options) as generator:
            for _ in range(reexecs):
                assert daemon.reload(force=True)["outcome"] == "applied"
            output, _ = generator.communicate(timeout=900)
        assert generator.returncode == 0
        applied = daemon.generation() - 1
    report = json.loads(output)
    counts, latencies = report["counts"], report["latencies_ms"]
    lost = {name: counts.get(name, 0) for name in LOST}
    total = sum(lost.values()) + counts.get("ok", 0) + counts.get("retry", 0)
    assert total >= requests
    named = ", ".join(f"{count} {name}" for name, count in lost.items() if count)
    return [
        Figure("re-execs under load", applied, "", at_least=reexecs),
        Figure("requests, open loop", total, f"at {rate}/s", at_least=requests),
        Figure("requests lost", sum(lost.values()), named, at_most=0),
        Figure("asked to come back (503)", counts.get("retry", 0), ""),
        Figure("latency from due, p50", percentile(latencies, 50), "ms"),
        Figure("latency from due, p99", percentile(latencies, 99), "ms"),
        Figure("latency from due, worst", max(latencies), "ms"),
    ]
