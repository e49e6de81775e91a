"""Says what a wait waits for: one line that is redrawn on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from netclawd.cli.output import count, duration

#: Seconds between two lines where nothing can be redrawn.
LINE_S = 5.0
#: A wait shorter than this needs no words, seconds.
PATIENCE_S = 0.3


class Progress:
    """Shown on standard error. Use as a context manager: the end clears the redrawn line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self._redraws = sys.stderr.isatty()
        self._drawn = False
        self._said_at = float("-inf")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, text: str) -> None:
        """Show what is waited for now."""
        now = time.monotonic()
        if self._quiet or now - self._began < PATIENCE_S:
            return
        if self._redraws:
            sys.stderr.write(f"\r\x1b[K{text[:200]}")
            self._drawn = True
        elif now - self._said_at >= LINE_S:
            sys.stderr.write(f"{text}\n")
            self._said_at = now
        sys.stderr.flush()


def describe_wait(status: Mapping[str, Any]) -> str:
    """Say on one line what the daemon is busy with."""
    phase, drain = status["phase"], status["drain"]
    if drain is None or not (drain["running"] or status.get("calls")):
        return f"{phase} …"
    running = drain["running"]
    words = [describe_turn(turn) for turn in running[:3]]
    if len(running) > 3:
        words.append(f"and {len(running) - 3} more")
    listed = f" ({'; '.join(words)})" if words else ""
    return f"{phase}, {at_most(drain['deadline_s'])}: {at_work(status)}{listed}"


def at_work(status: Mapping[str, Any]) -> str:
    """Say how many turns, and model calls of clients, a drain still waits for."""
    turns, calls = len(status["drain"]["running"]), status.get("calls", 0)
    parts = [count(turns, "turn")] if turns or not calls else []
    parts += [f"{count(calls, 'model call')} of clients"] if calls else []
    return f"{' and '.join(parts)} still at work"


def describe_turn(turn: Mapping[str, Any]) -> str:
    """Say what a turn is at, and how long it may go on."""
    words = f"{turn['what']} for {duration(turn['for_s'])}"
    return words if turn["left_s"] is None else f"{words}, {at_most(turn['left_s'])}"


def at_most(left_s: float) -> str:
    """Say how much longer it may take, rounded up: rounded down it would be too little."""
    return f"at most {math.ceil(left_s)} s more"
