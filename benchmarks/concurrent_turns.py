"""200 turns that stream at the same time, without and with a restart in the middle of them.

Each turn is one paced model call, watched by a client of its own. In the second half the daemon
re-executes itself while all of them stream; the drain lets a model call go on for half a second, so
that every one is cut, and made once more after the restart. The model repeats what it is told, so its
second reply is longer by the daemon's note about the restart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, median
from benchmarks.first_token import daemon_on
from benchmarks.processes import ROOT, cpu_s, model_server
from tests.process.harness import Daemon
from tests.process.talk import events, new_session, of_type

TURNS = 200


def measure(quick: bool) -> list[Figure]:
    turns, words, pace_s = (50, 40, 0.05) if quick else (TURNS, 120, 0.05)
    with model_server(pace_s) as base_url, daemon_on(base_url, workers=turns) as daemon:
        _run(daemon, 4, 3)  # What is imported at the first turn counts for none.
        memory, cpu = _memory_kib(daemon), cpu_s(daemon.pid)
        peak = [memory]
        rows = _run(daemon, turns, words, watch=lambda: peak.append(_memory_kib(daemon)))
        cpu = cpu_s(daemon.pid) - cpu
        whole = [row["whole_s"] for row in rows]
        daemon.write_config(tables={"drain": {"model_timeout_s": 0.5}})
        daemon.wait_ready(above=1)
        cut = _run(daemon, turns, words, watch=_reload_once(daemon, words * pace_s / 2))
    ends = Counter(row["end"] for row in rows)
    return [
        Figure("turns at the same time", ends["completed"], "completed", at_least=turns),
        Figure("slowest turn against the median", max(whole), "s", median(whole), "s", at_most=2),
        Figure("first token, slowest", max(row["first_s"] for row in rows), "s"),
        Figure("memory of a streaming turn", (max(peak) - memory) / turns, "KiB"),
        Figure("CPU of a turn", 1000 * cpu / turns, f"ms for {words} tokens"),
        *_after_restart(cut, turns, median(whole)),
    ]


def _after_restart(rows: list[dict[str, Any]], turns: int, undisturbed: float) -> list[Figure]:
    whole = [row["whole_s"] for row in rows]
    once = sum(row["end"] == "completed" and row["replies"] == 1 for row in rows)
    return [
        Figure("with a restart in the middle", once, "completed once", at_least=turns),
        Figure("cut and made once more", sum(row["retries"] for row in rows), "turns"),
        Figure("their median", median(whole), "s", undisturbed, "s undisturbed"),
        Figure("their slowest against it", max(whole), "s", median(whole), "s", at_most=2),
    ]


def _run(daemon: Daemon, turns: int, words: int, watch: Any = None) -> list[dict[str, Any]]:
    """Run turns at the same time; return the client's rows, with what the events say."""
    sessions = [new_session(daemon) for _ in range(turns)]
    text = " ".join(["word"] * (words - 2))  # "You said: word word …"
    command = [
        *(sys.executable, "-m", "benchmarks.turns", "--port", str(daemon.port)),
        *("--sessions", ",".join(sessions), "--text", text),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        while watch is not None and process.poll() is None:
            watch()
            time.sleep(0.2)
        output, _ = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0
    rows: list[dict[str, Any]] = json.loads(output)
    for session, row in zip(sessions, rows, strict=True):
        history = events(daemon, session)
        row["replies"] = len(of_type(history, "reply.sent"))
        row["retries"] = len(of_type(history, "step.retry"))
    return rows


def _reload_once(daemon: Daemon, after_s: float) -> Any:
    """Return what asks for a restart once, when the turns are half-way through."""
    begun, done = time.monotonic(), [False]

    def look() -> None:
        if not done[0] and time.monotonic() - begun > after_s:
            done[0] = True
            assert daemon.reload(force=True)["outcome"] == "applied"

    return look


def _memory_kib(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
