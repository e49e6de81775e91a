"""What the lifecycle asks the arbiter to do, in order.

Pure. The performer (:mod:`netclawd.daemon.performer`) does one effect at a time on the main thread;
what takes long is started by an effect and reports back with an event. The kill tests stop the
process before and after every one of these.
"""

from __future__ import annotations

from netclawd.core.events import Change, Refusal, Request
from netclawd.core.listeners import ListenerPlan
from netclawd.core.restart import Outcome
from netclawd.core.settings import Snapshot, UnixAccess
from netclawd.core.values import frozen


class Effect:
    """Base of all effects."""

    __slots__ = ()


@frozen
class ClaimListeners(Effect):
    """Claim inherited descriptors by name, bind the missing ones, close what nobody claims."""


@frozen
class OpenStore(Effect):
    """Open the store, allot this generation, fence the older ones, take the manifest."""


@frozen
class Serve(Effect):
    """Start HTTP and control with the gate closed; posts Serving."""


@frozen
class WarmUp(Effect):
    """Judge and resume interrupted turns; posts WarmedUp."""


@frozen
class OpenGate(Effect):
    """Let new turns run; deferred inputs first, oldest first."""


@frozen
class CloseGate(Effect):
    """New turns are deferred or rejected from here on; retries are told to come after ``deadline``."""

    deadline: float
    stopping: bool


@frozen
class NotifyReady(Effect):
    """READY=1."""


@frozen
class NotifyReloading(Effect):
    """RELOADING=1 with MONOTONIC_USEC."""


@frozen
class NotifyStopping(Effect):
    """STOPPING=1; never on the way to execve."""


@frozen
class StartWatching(Effect):
    """Watch the file, import in the background what serving did not need, compare the digest once."""


@frozen
class Judge(Effect):
    """Read the file once, validate, compare; posts JudgedUnchanged, JudgedChanged or Refused."""

    request: Request


@frozen
class Rehearse(Effect):
    """Start the rehearsing child; posts Rehearsed or Refused."""

    snapshot: Snapshot


@frozen
class CancelRehearsal(Effect):
    """End the rehearsing child."""


@frozen
class BindNew(Effect):
    """Bind all new addresses, not listening; posts Bound or Refused."""

    plan: ListenerPlan
    #: For the files of Unix sockets.
    access: UnixAccess


@frozen
class CloseNew(Effect):
    """Close what BindNew bound."""


@frozen
class MarkManifest(Effect):
    """Write the manifest with every session that has work in flight, before the drain."""

    reason: str
    request: Request
    snapshot: Snapshot | None


@frozen
class DrainTurns(Effect):
    """Ask turns to stop at their next checkpoint; posts TurnsDrained.

    The instants are monotonic: model calls and tools still running then are cancelled, and at
    ``deadline`` the drain is over, whatever runs.
    """

    model_deadline: float
    tool_deadline: float
    deadline: float


@frozen
class Quiesce(Effect):
    """Stop accepting, end streams, finish requests until ``deadline``; posts Quiesced."""

    deadline: float


@frozen
class Settle(Effect):
    """Rewrite the manifest with what became of each turn, close the store; posts Settled."""

    reason: str
    request: Request
    snapshot: Snapshot | None


@frozen
class ListenNew(Effect):
    """listen() on the new addresses; posts Listening or ExecFailed."""

    #: Accept queue length asked for.
    backlog: int


@frozen
class Exec(Effect):
    """The commit point. Returns only by failing (ExecFailed) or for a TERM that came (StopRequested)."""

    change: Change
    #: Requests that this restart answers.
    requests: tuple[Request, ...]
    #: Requests that came meanwhile, to be judged by the new generation.
    queued: tuple[Request, ...]


@frozen
class Reopen(Effect):
    """After a failed execve: open the store again, accept again."""


@frozen
class Resume(Effect):
    """After a drain that leads nowhere: let the interrupted turns go on."""


@frozen
class Retire(Effect):
    """Empty and close the listeners that the configuration no longer names."""


@frozen
class Record(Effect):
    """Write the outcome of a request into the restart journal and answer who waits for it."""

    request: Request
    outcome: Outcome
    refusal: Refusal | None = None


@frozen
class RecordApplied(Effect):
    """Write the outcome of the restart that this image came from, with its gap."""


@frozen
class KeepLastGood(Effect):
    """Remember what serves as the last good configuration; put the consumed manifest away."""


@frozen
class Say(Effect):
    """STATUS= for the current phase."""


@frozen
class SetTimer(Effect):
    """Post TimerFired(name) at the monotonic instant ``at``; an earlier one of that name is replaced."""

    name: str
    at: float


@frozen
class CancelTimer(Effect):
    name: str


@frozen
class Exit(Effect):
    """End the process after an orderly stop; exit 0 if the manifest was written, else 1.

    With a refusal the stop came of a wrong configuration: exit 78, with words for the supervisor.
    """

    request: Request
    refusal: Refusal | None = None
