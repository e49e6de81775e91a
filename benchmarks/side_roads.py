"""The side roads of a restart against the plain re-exec: a listener change, a rollback, refused reloads.

Of a road that leads to a new generation the gap is compared: that of a rollback holds the starts of
two images, the one that failed right before it served and the one that serves. Of a
refusal, which has no gap, it is the time from the request to its outcome.
"""

from __future__ import annotations

import socket
from typing import Any

from benchmarks.figures import Figure, median
from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port

Entry = dict[str, Any]


def measure(quick: bool) -> list[Figure]:
    rounds = 5 if quick else 50
    plain: list[Entry] = []
    moved: list[Entry] = []
    unread: list[Entry] = []
    unbound: list[Entry] = []
    with Daemon() as daemon, socket.create_server(("127.0.0.1", 0)) as taken:
        daemon.start()
        for _ in range(rounds):
            plain.append(_reload(daemon, "applied", force=True))
            moved.append(_move(daemon))
            good = daemon.config_text()
            unread.append(_refused(daemon, "[daemon]\nlisten = ["))
            both = [f"127.0.0.1:{daemon.port}", f"127.0.0.1:{taken.getsockname()[1]}"]
            unbound.append(_refused(daemon, daemon.config_text(listen=both)))
            daemon.write_config(text=good)
            _reload(daemon, "unchanged")
    plain_gap = median([entry["gap_ms"] for entry in plain])
    return [
        Figure(
            "gap of a listener change, p50",
            median([entry["gap_ms"] for entry in moved]),
            "ms",
            plain_gap,
            "ms plain re-exec",
        ),
        Figure(
            "gap of a rollback, p50",
            median([entry["gap_ms"] for entry in _rolled_back(rounds)]),
            "ms",
            plain_gap,
            "ms plain re-exec",
        ),
        _against("reload refused for its syntax, p50", unread, plain),
        _against("reload refused for an address in use, p50", unbound, plain),
    ]


def _against(name: str, entries: list[Entry], plain: list[Entry]) -> Figure:
    return Figure(
        name,
        median([_took_ms(entry) for entry in entries]),
        "ms",
        median([_took_ms(entry) for entry in plain]),
        "ms plain re-exec",
    )


def _took_ms(entry: Entry) -> float:
    return float(entry["ended_at"] - entry["requested_at"]) * 1000


def _reload(daemon: Daemon, outcome: str, *, force: bool = False) -> Entry:
    entry: Entry = daemon.reload(force=force)
    assert entry["outcome"] == outcome, entry
    return entry


def _move(daemon: Daemon) -> Entry:
    """Let the watcher find another port; it or nobody asks, so there is one restart."""
    before = daemon.generation()
    daemon.move_to(free_port())
    daemon.wait_ready(above=before)
    entry: Entry = daemon.ended_restarts()[0]
    assert (entry["outcome"], entry["changed_keys"]) == ("applied", ["daemon.listen"]), entry
    return entry


def _rolled_back(rounds: int) -> list[Entry]:
    """Let an image fail right before it serves, again and again, each time in a daemon of its own."""
    entries = []
    for _ in range(rounds):
        with Daemon(faults=[Fault("raise", "before", "Serve", nth=2)]) as daemon:
            daemon.start()
            entries.append(_reload(daemon, "rolled-back", force=True))
    return entries


def _refused(daemon: Daemon, text: str) -> Entry:
    daemon.write_config(text=text)
    return _reload(daemon, "refused")
