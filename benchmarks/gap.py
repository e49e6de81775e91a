"""The gap of a re-exec against the bare cost of starting Python and importing falcon and waitress."""

from __future__ import annotations

import sys

from benchmarks.figures import Figure, median, percentile
from benchmarks.processes import time_command
from tests.process.harness import Daemon

BARE = (sys.executable, "-c", "import falcon, waitress")


def measure(quick: bool) -> list[Figure]:
    gaps, bare = [], []
    with Daemon() as daemon:
        daemon.start()
        for _ in range(8 if quick else 100):
            gaps.append(float(daemon.reload(force=True)["gap_ms"]))
            bare.append(time_command(BARE))
    reference = median(bare)
    return [
        Figure(
            "gap of a re-exec, p50",
            median(gaps),
            "ms",
            reference,
            "ms to import",
            at_most=1.4,
        ),
        Figure("gap of a re-exec, p99", percentile(gaps, 99), "ms", at_most=250.0),
        Figure("gap of a re-exec, worst", max(gaps), "ms"),
    ]
