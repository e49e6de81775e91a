"""Requests refused over a SIGKILL under an open-loop load, with and without the supervisor's fd store.

The supervisor is a double that keeps descriptors and starts the daemon again at once; systemd waits for
RestartSec= before, so that under it more are refused without the store. A request that the killed daemon had
accepted already is lost either way (reset, or an answer that broke off): those are counted beside.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.figures import Figure, median
from benchmarks.processes import started_generator
from tests.process.harness import Daemon
from tests.process.notify_socket import NotifySocket
from tests.process.supervised import Supervised
from tests.waiting import wait_for

RATE = 300
IN_FLIGHT = ("reset", "empty", "broken")


def measure(quick: bool) -> list[Figure]:
    kills = 3 if quick else 30
    with Daemon() as daemon:
        bare, dead_ms = _kill_under_load(daemon, kills, None)
    with (
        tempfile.TemporaryDirectory(prefix="netclaw-bench-") as folder,
        NotifySocket(str(Path(folder) / "notify"), room=16) as supervisor,
        Supervised(supervisor) as daemon,
    ):
        kept, _ = _kill_under_load(daemon, kills, supervisor)
    return [
        Figure("kills under load, without and with the fd store", 2 * kills, f"at {RATE}/s"),
        Figure("refused a kill, without the fd store", bare["refused"] / kills, ""),
        Figure("refused a kill, with the fd store", kept["refused"] / kills, "", at_most=0),
        Figure("timed out, with the fd store", kept["timeout"], "", at_most=0),
        Figure("in flight and lost a kill, without", _lost(bare) / kills, ""),
        Figure("in flight and lost a kill, with", _lost(kept) / kills, ""),
        Figure("from the kill to ready, without, p50", dead_ms, "ms"),
    ]


def _lost(counts: Counter[str]) -> int:
    return sum(counts[name] for name in IN_FLIGHT)


def _kill_under_load(
    daemon: Daemon, kills: int, supervisor: NotifySocket | None
) -> tuple[Counter[str], float]:
    """Kill it and start it again; return what became of the requests, and how long that took, p50 in ms."""
    daemon.start()
    took_ms = []
    options = {"mode": "open", "port": daemon.port, "rate": RATE, "count": 1}
    with started_generator(**options) as generator:
        for _ in range(kills):
            generation = daemon.generation()
            if supervisor is not None:
                wait_for(lambda: supervisor.kept, 10.0, "the listener to be stored")
            begun = time.monotonic()
            daemon.kill()
            daemon.spawn()
            daemon.wait_ready(above=generation)
            took_ms.append((time.monotonic() - begun) * 1000)
        output, _ = generator.communicate(timeout=120)
    assert generator.returncode == 0
    assert daemon.stop() == 0
    return Counter(json.loads(output)["counts"]), median(took_ms)
