"""``netclaw status`` against a Python that does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.figures import Figure, median
from benchmarks.processes import time_command
from tests.process.harness import Daemon

NETCLAW = Path(sys.executable).with_name("netclaw")


def measure(quick: bool) -> list[Figure]:
    status, nothing = [], []
    with Daemon() as daemon:
        daemon.start()
        environment = daemon.full_environment()
        for _ in range(10 if quick else 50):
            status.append(time_command([str(NETCLAW), "status"], environment))
            nothing.append(time_command([sys.executable, "-c", "pass"], environment))
    return [
        Figure(
            "netclaw status", median(status), "ms", median(nothing), "ms python3 -c pass", at_most=8
        )
    ]
