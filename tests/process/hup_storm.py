"""A storm of signals: HUP to one process a thousand times a second, with USR1 and USR2 among them.

``hup_storm.py PID STOP`` goes on until the file STOP exists, then writes the instants of the HUPs
(CLOCK_MONOTONIC, nanoseconds) as JSON. It is a process of its own, so that nothing slows it down.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

PERIOD_S = 0.001
#: A storm that nobody ends, seconds.
LONGEST_S = 120.0


def main(pid: int, stop: str) -> None:
    sent: list[int] = []
    began = due = time.monotonic()
    while not (len(sent) % 20 == 0 and os.path.exists(stop)) and due - began < LONGEST_S:
        sent.append(time.monotonic_ns())
        os.kill(pid, signal.SIGHUP)
        if len(sent) % 10 == 0:
            os.kill(pid, signal.SIGUSR1 if len(sent) % 20 else signal.SIGUSR2)
        due = max(due + PERIOD_S, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))
    json.dump(sent, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
