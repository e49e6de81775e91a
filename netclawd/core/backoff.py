"""How long a supervisor without a patience of its own (s6) waits before it starts the daemon again.

Pure: instants are seconds of /proc/uptime, which no step of the clock moves. Two records stand between the
daemon's exit and its next start: what ``netclawd-wait`` wrote before it started the daemon, and what
``finish`` wrote when that had ended. A record that can't be read counts as none: then the start is at
once, and s6's own second between two starts is what is left.

Every exit is followed by a wait, that of a clean stop and that of a wrong configuration too: the supervisor
never gives up, so a file that is mended is served without a hand.
"""

from __future__ import annotations

from netclawd.core import budgets
from netclawd.core.values import frozen
from netclawd.errors import EXIT_CONFIG, EXIT_OK, EXIT_TEMPORARY

#: What s6 calls the exit code of who was ended by a signal (s6: servicedir, finish).
_BY_SIGNAL = 256
#: What a shell adds to a signal's number to make an exit code.
_SIGNAL_BASE = 128
_MEANINGS = {
    EXIT_OK: " (stopped as asked)",
    EXIT_TEMPORARY: " (a temporary failure)",
    EXIT_CONFIG: " (the configuration is wrong)",
}


@frozen
class Start:
    """The newest start of the daemon."""

    #: Instant, seconds.
    at: float
    #: What was waited before it, seconds; 0 when nothing was, or the wait was cut short.
    delay_s: float
    #: What the configuration file looked like.
    seen: str


@frozen
class Exit:
    """The newest end of the daemon."""

    #: As s6 says it: the exit code, 256 after a signal.
    code: int
    #: The signal, when one ended it.
    signal: int
    #: Instant, seconds.
    at: float

    @property
    def status(self) -> int:
        """The exit code as a shell would say it, 128 and the signal's number after a signal."""
        return _SIGNAL_BASE + self.signal if self.code == _BY_SIGNAL else self.code

    @property
    def words(self) -> str:
        if self.code == _BY_SIGNAL:
            return f"was ended by signal {self.signal}"
        return f"exited with {self.code}{_MEANINGS.get(self.code, '')}"


@frozen
class Wait:
    """What is to be waited after an exit."""

    #: The whole pause between exit and start, seconds.
    delay_s: float
    #: What is left of it, seconds; 0 when it is over.
    left_s: float


@frozen
class Waiting:
    """A wait that a process is in. From then on a HUP does not kill it, but ends the wait."""

    pid: int
    #: Instant at which it ends by itself, seconds.
    until: float


def judge_wait(start: Start | None, end: Exit | None, now: float, seen: str) -> Wait:
    """Return how long to wait at ``now``, when the configuration file looks like ``seen``.

    A delay doubles, from the first to the longest; it begins anew after a long enough run, and when the file
    has changed since the start: what failed then may not fail again.
    """
    if end is None or end.at > now:  # The instant is of before a boot.
        return Wait(0.0, 0.0)
    delay = budgets.RETRY_FIRST_S
    if start is not None and start.seen == seen and end.at - start.at < budgets.RETRY_RESET_S:
        delay = min(max(2 * start.delay_s, delay), budgets.RETRY_LONGEST_S)
    return Wait(delay, max(0.0, end.at + delay - now))


def write_start(start: Start) -> str:
    return f"{start.at:.2f} {start.delay_s:g} {start.seen}\n"


def read_start(text: str) -> Start | None:
    """Return the record of :func:`write_start`, None when it is not one."""
    words = text.split(maxsplit=2)
    try:
        return Start(float(words[0]), float(words[1]), words[2].strip())
    except (ValueError, IndexError):
        return None


def write_waiting(waiting: Waiting) -> str:
    return f"{waiting.pid} {waiting.until:.2f}\n"


def read_waiting(text: str) -> Waiting | None:
    """Return the record of :func:`write_waiting`, None when it is not one."""
    try:
        pid, until = text.split()
        return Waiting(int(pid), float(until))
    except ValueError:
        return None


def read_exit(text: str) -> Exit | None:
    """Return what ``finish`` has written, a line "CODE SIGNAL" and /proc/uptime; None when it is not that."""
    lines = text.splitlines()
    try:
        code, number = lines[0].split()
        return Exit(int(code), int(number), read_uptime(lines[1]))
    except (ValueError, IndexError):
        return None


def read_uptime(text: str) -> float:
    """Return the seconds since boot, the first number of /proc/uptime (proc(5)); ValueError without one."""
    return float(text.partition(" ")[0])
