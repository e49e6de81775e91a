"""The one way to wait in a test: for a condition, with a deadline, and with words for the failure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Factor on every timeout in the tests, for slow machines.
TIMEOUT_SCALE = float(os.environ.get("TIMEOUT_SCALE", "1"))


def scaled(timeout_s: float) -> float:
    """Return the timeout as this machine needs it."""
    return timeout_s * TIMEOUT_SCALE


def wait_for(
    condition: Callable[[], T],
    timeout_s: float,
    what: str | Callable[[], str],
    *,
    interval_s: float = 0.01,
) -> T:
    """Ask ``condition`` until it returns something true, and return that.

    Fails with ``what`` once ``timeout_s`` (times TIMEOUT_SCALE) is over; a callable is asked then, so
    that it can tell what was seen last. The condition is asked at least twice.
    """
    deadline = time.monotonic() + scaled(timeout_s)
    while True:
        last_chance = time.monotonic() >= deadline
        if value := condition():
            return value
        if last_chance:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {scaled(timeout_s):g} s in vain for {words}")
        time.sleep(interval_s)
