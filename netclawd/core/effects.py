"""What the lifecycle asks the arbiter to do, in order.

Pure. The performer (:mod:`netclawd.daemon.performer`) does one effect at a time on the main thread;
what takes long is started by an effect and reports back with an event. The kill tests stop the
process before and after every one of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from netclawd.core.events import Change, Refusal, Request
from netclawd.core.listeners import ListenerPlan
from netclawd.core.restart import Outcome
from netclawd.core.settings import Snapshot


class Effect:
    """Base of all effects."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ClaimListeners(Effect):
    """Claim inherited descriptors by name, bind the missing ones, close what nobody claims."""


@dataclass(frozen=True, slots=True)
class OpenStore(Effect):
    """Open the store, allot this generation, fence the older ones, take the manifest."""


@dataclass(frozen=True, slots=True)
class Serve(Effect):
    """Start HTTP and control with the gate closed; posts Serving."""


@dataclass(frozen=True, slots=True)
class WarmUp(Effect):
    """Judge and resume interrupted turns; posts WarmedUp."""


@dataclass(frozen=True, slots=True)
class OpenGate(Effect):
    """Let new turns run; deferred inputs first, oldest first."""


@dataclass(frozen=True, slots=True)
class CloseGate(Effect):
    """New turns are deferred or rejected from here on; retries are told to come after ``deadline``."""

    deadline: float
    stopping: bool


@dataclass(frozen=True, slots=True)
class NotifyReady(Effect):
    """READY=1."""


@dataclass(frozen=True, slots=True)
class NotifyReloading(Effect):
    """RELOADING=1 with MONOTONIC_USEC."""


@dataclass(frozen=True, slots=True)
class NotifyStopping(Effect):
    """STOPPING=1; never on the way to execve."""


@dataclass(frozen=True, slots=True)
class StartWatching(Effect):
    """Watch the file, import in the background what serving did not need, compare the digest once."""


@dataclass(frozen=True, slots=True)
class Judge(Effect):
    """Read the file once, validate, compare; posts JudgedUnchanged, JudgedChanged or Refused."""

    request: Request


@dataclass(frozen=True, slots=True)
class Rehearse(Effect):
    """Start the rehearsing child; posts Rehearsed or Refused."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class CancelRehearsal(Effect):
    """End the rehearsing child."""


@dataclass(frozen=True, slots=True)
class BindNew(Effect):
    """Bind all new addresses, not listening; posts Bound or Refused."""

    plan: ListenerPlan


@dataclass(frozen=True, slots=True)
class CloseNew(Effect):
    """Close what BindNew bound."""


@dataclass(frozen=True, slots=True)
class MarkManifest(Effect):
    """Write the manifest with every session that has work in flight, before the drain."""

    reason: str
    request: Request
    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class DrainTurns(Effect):
    """Ask turns to stop at their next checkpoint; posts TurnsDrained.

    The instants are monotonic: model calls and tools still running then are cancelled, and at
    ``deadline`` the drain is over, whatever runs.
    """

    model_deadline: float
    tool_deadline: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Quiesce(Effect):
    """Stop accepting, end streams, finish requests until ``deadline``; posts Quiesced."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Settle(Effect):
    """Rewrite the manifest with what became of each turn, close the store; posts Settled."""

    reason: str
    request: Request
    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class ListenNew(Effect):
    """listen() on the new addresses; posts Listening or ExecFailed."""


@dataclass(frozen=True, slots=True)
class Exec(Effect):
    """The commit point. Returns only by failing (ExecFailed) or for a TERM that came (StopRequested)."""

    change: Change
    #: Requests that this restart answers.
    requests: tuple[Request, ...]
    #: Requests that came meanwhile, to be judged by the new generation.
    queued: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Reopen(Effect):
    """After a failed execve: open the store again, accept again."""


@dataclass(frozen=True, slots=True)
class Resume(Effect):
    """After a drain that leads nowhere: let the interrupted turns go on."""


@dataclass(frozen=True, slots=True)
class Retire(Effect):
    """Empty and close the listeners that the configuration no longer names."""


@dataclass(frozen=True, slots=True)
class Record(Effect):
    """Write the outcome of a request into the restart journal and answer who waits for it."""

    request: Request
    outcome: Outcome
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class RecordApplied(Effect):
    """Write the outcome of the restart that this image came from, with its gap."""


@dataclass(frozen=True, slots=True)
class Say(Effect):
    """STATUS= for the current phase."""


@dataclass(frozen=True, slots=True)
class SetTimer(Effect):
    """Post TimerFired(name) at the monotonic instant ``at``; an earlier one of that name is replaced."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer(Effect):
    name: str


@dataclass(frozen=True, slots=True)
class Exit(Effect):
    """End the process after an orderly stop."""

    code: int
    request: Request
