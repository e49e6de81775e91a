"""The clocks of the machine, and chance."""

from __future__ import annotations

import os
import time


class SystemClock:
    """CLOCK_MONOTONIC and the wall clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class RandomIds:
    """Identifiers that sort by age: milliseconds since the epoch, then 96 random bits, in hex."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{time.time_ns() // 1_000_000:011x}{os.urandom(12).hex()}"
