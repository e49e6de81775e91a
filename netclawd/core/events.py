"""What can happen to the lifecycle. Everything but the arbiter only posts these.

Pure. Events are frozen values; none carries an open resource, so a sequence of them can be written
down and replayed.
"""

from __future__ import annotations

from netclawd.core.listeners import ListenerPlan
from netclawd.core.session import RestartId
from netclawd.core.settings import Snapshot
from netclawd.core.values import frozen

#: Triggers that nobody pulled.
BY_ITSELF = ("file", "boot")


@frozen
class Trigger:
    """What and who asked."""

    #: hup, file, control, boot, term, int, abort.
    kind: str
    #: As far as known: "uid 1000 pid 4711"; empty for a signal.
    actor: str = ""


@frozen
class Request:
    """One request for a restart or a stop; its outcome is found under the id."""

    id: RestartId
    trigger: Trigger
    #: Re-execute even if nothing is new.
    force: bool = False
    #: When it was asked: wall clock, seconds since the epoch.
    at: float = 0.0


@frozen
class Refusal:
    """Why a restart was refused or failed, for people and programs."""

    slug: str
    reason: str
    remedy: str


@frozen
class Change:
    """What a judged request would change: the candidate and the road to it."""

    snapshot: Snapshot
    plan: ListenerPlan
    #: Dotted names of the values that differ.
    keys: tuple[str, ...]
    code_changed: bool


class Event:
    """Base of all events."""

    __slots__ = ()


@frozen
class Booted(Event):
    """The process has its configuration, its lock and its inherited descriptors."""


@frozen
class Serving(Event):
    """The HTTP loop accepts and the store is open."""


@frozen
class WarmedUp(Event):
    """Every interrupted turn has been judged and the ones to resume are under way."""


@frozen
class ReloadRequested(Event):
    """SIGHUP, a settled file change, or a control request."""

    request: Request


@frozen
class JudgedUnchanged(Event):
    """The file and the code are what is running."""


@frozen
class JudgedChanged(Event):
    """Something is new and valid."""

    change: Change


@frozen
class JudgedFatal(Event):
    """The candidate's meaning is wrong, and the running configuration says that this ends the daemon."""

    refusal: Refusal
    #: The request under which it stops.
    stop: Request


@frozen
class Refused(Event):
    """The candidate can't be read, is invalid, failed its rehearsal or can't be bound."""

    refusal: Refusal


@frozen
class Rehearsed(Event):
    """The code on disk has loaded the candidate and served one request with it.

    ``snapshot`` is the candidate as that code reads it: defaults of the code on disk included.
    """

    snapshot: Snapshot


@frozen
class Bound(Event):
    """Every new address is bound and none listens yet."""


@frozen
class TurnsDrained(Event):
    """No turn runs any more."""


@frozen
class Quiesced(Event):
    """No request is in progress; nothing is accepted."""


@frozen
class Settled(Event):
    """Checkpoints and manifest are durable and the store is closed."""


@frozen
class Listening(Event):
    """The new addresses queue connections."""


@frozen
class ExecFailed(Event):
    """execve returned, or a new address can't listen."""

    refusal: Refusal


@frozen
class StopRequested(Event):
    """SIGTERM, SIGINT or a control request."""

    request: Request


@frozen
class TimerFired(Event):
    """A timer that an effect set has come due."""

    name: str
