"""What s6 says of a service, and what a start that goes through s6 does about it.

Pure. s6-supervise keeps one process: our `run`, which first becomes netclawd-wait, then the daemon, under
one PID. So a start is an *attempt* of one PID: the attempt is over as soon as s6 shows another one, or none.
Invariant: what is asked of s6 never ends a process: it is brought up, or its wait is cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from netclawd.core.backoff import Waiting
from netclawd.core.values import frozen, replace

#: What is asked of s6-svstat, in this order.
FIELDS = ("up", "wantedup", "ready", "paused", "pid", "updownfor")
#: The program that `run` becomes before it becomes the daemon, and its module.
WAIT_PROGRAM, WAIT_MODULE = "netclawd-wait", "netclawd.cli.wait"


@frozen
class Service:
    """A service as s6-supervise sees it at one moment."""

    #: Whether its process runs: netclawd-wait or the daemon.
    up: bool
    #: Whether s6 starts it again when it ends.
    wanted: bool
    #: The daemon has said that it is ready; of a service that is down: its `finish` has ended.
    ready: bool
    paused: bool
    #: 0 when it is down.
    pid: int
    #: Seconds since it came up or went down.
    for_s: float
    #: How the last process that has ended did; both None when there was none.
    exit_code: int | None = None
    signal: int | None = None
    #: The process is netclawd-wait and takes SIGHUP for "start now".
    waiting: bool = False
    #: When that wait ends by itself, seconds from now; None when unknown or there is none.
    starts_in_s: float | None = None

    @property
    def serves(self) -> bool:
        """Whether its daemon has said that it is ready."""
        return self.up and self.ready

    def as_dict(self) -> dict[str, object]:
        """Return what ``--json`` shows of it."""
        return {
            "up": self.up,
            "ready": self.serves,
            "wanted": self.wanted,
            "pid": self.pid or None,
            "for_s": self.for_s,
            "waiting": self.waiting,
            "starts_in_s": None if self.starts_in_s is None else round(self.starts_in_s, 2),
            "exit_code": self.exit_code,
            "signal": self.signal,
        }


class Command(StrEnum):
    """What a start asks of s6; the values are the options of s6-svc."""

    #: Start it, and again whenever it ends.
    UP = "-u"
    #: SIGHUP, which netclawd-wait takes for "start now".
    HURRY = "-h"


def read_service(text: str) -> Service | None:
    """Read the answer of s6-svstat for :data:`FIELDS`; None when it is something else."""
    words = text.split()
    if len(words) != len(FIELDS):
        return None
    values = dict(zip(FIELDS, words, strict=True))
    flags = [values[name] for name in ("up", "wantedup", "ready", "paused")]
    try:
        pid, for_s = int(values["pid"]), int(values["updownfor"])
    except ValueError:
        return None
    if any(flag not in ("true", "false") for flag in flags):
        return None
    up, wanted, ready, paused = (flag == "true" for flag in flags)
    return Service(up, wanted, ready, paused, max(pid, 0), float(for_s))


def read_last_death(text: str) -> tuple[int | None, int | None]:
    """Read the last line of s6-svdt: exit code and signal number, one of which is None, or both.

    s6-svstat knows less: nothing while the next process runs, and an exit code 0 where none ever ran.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or len(lines[-1]) != 3 or not lines[-1][2].isdecimal():
        return None, None
    _at, kind, number = lines[-1]
    return (int(number), None) if kind == "exitcode" else (None, int(number))


def with_wait(
    service: Service, argv: Sequence[str], waiting: Waiting | None, now: float
) -> Service:
    """Add what the record of netclawd-wait says, if it is this process's; ``now`` is in seconds since boot.

    The record is written when a HUP no longer kills. Its process has become something else when its command
    line, ``argv``, is another; programs that will become netclawd-wait have that name further back.
    """
    named = any(word.rpartition("/")[2] == WAIT_PROGRAM for word in argv[:2])
    if waiting is None or waiting.pid != service.pid or not (named or WAIT_MODULE in argv[:5]):
        return service
    return replace(service, waiting=True, starts_in_s=max(0.0, waiting.until - now))


# -- a start -------------------------------------------------------------------------------------

STOPPING = "stopping"
#: Phases of a daemon that is about to be ready.
BEFORE_READY = ("starting", "warming")


class Step(StrEnum):
    """What a start does first."""

    #: Say that a daemon runs.
    REPORT = "report"
    #: It runs, and s6 would not start it again: tell s6 to, and look again; it may be on its way down.
    KEEP = "keep"
    #: Have s6 start one, and wait until it is ready.
    AWAIT = "await"
    #: There is none, and s6 can't be asked for one.
    REFUSE = "refuse"


def judge_start(phase: str, service: Service | None, *, outside: bool) -> Step:
    """Say what to do first beside a daemon in ``phase`` ("" without one), which may be one ``outside`` of s6.

    ``service`` is None when s6 can't be asked. Beside a daemon that runs s6 is never asked for another one:
    that one would fail for want of the lock, again and again.
    """
    if phase in ("", STOPPING):
        return Step.REFUSE if service is None else Step.AWAIT
    if service is None or outside:
        return Step.REPORT
    if not service.wanted:
        return Step.KEEP
    return Step.AWAIT if phase in BEFORE_READY else Step.REPORT


class Verdict(StrEnum):
    """What has become of an attempt."""

    #: It goes on, or has not begun.
    PENDING = "pending"
    #: s6 says that its daemon is ready.
    READY = "ready"
    #: Its process has ended.
    ENDED = "ended"


@frozen
class Attempt:
    """A start that is being waited for."""

    #: The daemon that ran at the beginning and is about to end; 0 without one.
    leaving: int = 0
    #: The process whose end would be this attempt's; 0 before s6 has started it.
    pid: int = 0
    #: A wait was cut short: not again, or a failure would be hidden by another attempt.
    hurried: bool = False


def begin(service: Service, answering: int, *, stopping: bool) -> Attempt:
    """Begin to wait for a start; ``answering`` is the PID of a daemon that answers, 0 without one.

    The end of one that stops is no failure; it closes its control socket some time before it ends.
    """
    if answering:
        return Attempt(answering if stopping else 0)
    stops = service.up and (service.serves or not service.wanted)
    return Attempt(service.pid if stops else 0)


def plan_commands(attempt: Attempt, service: Service) -> tuple[Command, ...]:
    """Say what to ask of s6 now: nothing while the daemon before is there, which has the lock."""
    if attempt.leaving:
        return ()
    up = () if service.wanted else (Command.UP,)
    hurry = service.waiting and not attempt.hurried
    return (*up, Command.HURRY) if hurry else up


def let_go(attempt: Attempt, service: Service, *, gone: bool) -> Attempt:
    """Stop waiting for the daemon before once it is ``gone`` and s6 has seen it."""
    if not attempt.leaving or not gone or service.pid == attempt.leaving:
        return attempt
    return replace(attempt, leaving=0)


def follow(attempt: Attempt, service: Service, asked: Sequence[Command]) -> tuple[Attempt, Verdict]:
    """Follow an attempt through what s6 shows now; ``asked`` is what was just asked of it."""
    if attempt.leaving:
        return attempt, Verdict.PENDING
    pid, hurried = attempt.pid, attempt.hurried or Command.HURRY in asked
    if pid and service.pid != pid:
        return Attempt(0, pid, hurried), Verdict.ENDED
    begun = service.pid if service.up and (not service.waiting or hurried) else 0
    verdict = Verdict.READY if begun and service.serves else Verdict.PENDING
    return Attempt(0, pid or begun, hurried), verdict
