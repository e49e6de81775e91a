"""What one look at the metrics finds: the values that pass between store, daemon and exposition. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from netclawd.core.counters import Totals
from netclawd.core.values import field, frozen


@frozen
class Census:
    """What the store holds at one instant; a state in which there is nothing may be missing."""

    #: By the state of the oldest turn that has not ended; ``idle`` where all have.
    sessions: Mapping[str, int]
    #: Those that have not ended, by state.
    turns: Mapping[str, int]
    #: Replies and messages of channels that are neither sent nor dropped, by state.
    outbox: Mapping[str, int]
    #: Entries of the restart journal that have ended, by outcome.
    restarts: Mapping[str, int]
    #: Of all model calls of sessions there ever were: ``input`` and ``output``.
    tokens: Mapping[str, int] = field(default_factory=dict)
    #: Reminders that may be due again, by state: ``active`` and ``paused``.
    reminders: Mapping[str, int] = field(default_factory=dict)
    #: Occurrences of reminders: those that are ``started``, and how many ever ended in each other state.
    occurrences: Mapping[str, int] = field(default_factory=dict)


@frozen
class ListenQueue:
    """What the kernel tells about one listening socket."""

    #: Connections that wait to be accepted, and how many may.
    waiting: int
    limit: int
    #: Connection attempts that it dropped, for a full queue above all, since the socket listens.
    drops: int


@frozen
class ListenTrouble:
    """What the kernel tells about all listening sockets of the network namespace, whoever's they are."""

    overflows: int
    drops: int


@frozen
class ChannelReading:
    """One channel; an age is None where there was nothing yet."""

    connected: bool
    #: Seconds since the newest event, and since the newest sign that the connection lives.
    event_age_s: float | None
    alive_age_s: float | None
    #: Inputs that wait for a turn.
    deferred: int
    #: Messages that aren't delivered: ``pending``, ``ambiguous`` and ``failed``.
    messages: Mapping[str, int]


@frozen
class Reading:
    """All that the metrics show, taken at one look."""

    version: str
    generation: int
    phase: str
    #: Wall clock of the first start, seconds since the epoch.
    started_at: float
    #: Reasons to be degraded.
    degraded: int
    #: Whether the newest configuration is refused and an older one served.
    refused: bool
    streams: int
    totals: Totals
    #: None until the store has been asked once.
    census: Census | None
    #: Whether the store answered; else what comes from it is as it was last known.
    store_answers: bool
    #: By address.
    listeners: Mapping[str, ListenQueue]
    #: None where the kernel doesn't tell.
    namespace: ListenTrouble | None
    #: By name.
    channels: Mapping[str, ChannelReading] = field(default_factory=dict)
    #: Active reminders that should have started by now; None while the store can't tell.
    overdue: int | None = None
