"""What the daemon needs of a channel, what a channel may ask, and the outbox that lies between.

A channel is a way in and out besides HTTP: people talk to the agent where they already are. It is made
anew by each image, started once that serves, and at rest before execve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from netclawd.core.outgoing import (
    ChannelCounts,
    NewOutgoing,
    Outgoing,
    OutgoingId,
    Received,
    Reception,
)
from netclawd.core.session import ApprovalId, OutboxState, SessionId, TurnId
from netclawd.core.values import frozen


class ChannelPhase(StrEnum):
    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: It is tried again, with growing pauses.
    DOWN = "down"
    #: The platform doesn't take us (``invalid_auth``): only another configuration helps.
    REFUSED = "refused"
    STOPPED = "stopped"


@frozen
class ChannelState:
    phase: ChannelPhase
    #: Wall clock, seconds since the epoch; None: not connected, nothing yet.
    connected_since: float | None = None
    last_event_at: float | None = None
    #: The newest sign that the connection lives.
    last_alive_at: float | None = None
    #: Why it isn't connected and what to do, for people; empty when it is.
    trouble: str = ""


@frozen
class Incoming:
    """A message of a person."""

    #: The platform's id of the event, the same when it is delivered again.
    event_id: str
    #: The conversation.
    route: str
    #: The platform's id of the message: two events may tell of one.
    message_id: str
    requester: str
    text: str
    #: Where the conversation takes place, which may be wider than itself (the channel of a thread): who
    #: may not talk there is told so once. Empty: the conversation.
    place: str = ""


@frozen
class Press:
    """A button under a question was pressed; when that is delivered again, it is decided already."""

    route: str
    requester: str
    approval_id: ApprovalId
    granted: bool


class ChannelHost(Protocol):
    """What a channel may ask of the daemon; from any thread.

    What returns is durable: only then the platform is told. NetclawError: it isn't, and the platform is to
    deliver it again.
    """

    def receive(self, incoming: Incoming) -> Reception:
        """Take a message: admitted, deferred or refused by the gate, each with its one sentence."""

    def refuse(self, incoming: Incoming, sentence: str) -> None:
        """Answer who may not talk here, once in :data:`netclawd.core.budgets.EVENT_MEMORY_S` for each
        requester and place."""

    def press(self, press: Press) -> str:
        """Decide an approval; return what became of it, in one sentence."""

    def knows(self, route: str) -> bool:
        """Say whether there is a session of this conversation."""

    def changed(self) -> None:
        """Hear that the state has changed; a channel that is connected is given what waits for it."""


class DeliveryError(Exception):
    """Base: a message was not delivered. The text says why, for people."""


class TryLaterError(DeliveryError):
    """It was refused for now, and is not there."""

    def __init__(
        self, what: str, after_s: float | None = None, *, everything: bool = False
    ) -> None:
        super().__init__(what)
        #: Seconds that the platform asks for, None: as we think best.
        self.after_s = after_s
        #: The pause counts for the whole channel.
        self.everything = everything


class UndeliverableError(DeliveryError):
    """It will never be taken, unless a person mends something."""


class UncertainError(DeliveryError):
    """It may or may not be there: the connection ended before the answer."""


class Channel(Protocol):
    """An adapter of one platform. ``deliver`` and ``look_up`` are called by one thread, the courier."""

    @property
    def name(self) -> str: ...

    def start(self, host: ChannelHost) -> None:
        """Begin to connect and to receive, on threads of its own; returns at once."""

    def state(self) -> ChannelState: ...

    def unreachable(self, route: str) -> str:
        """Say why the conversation can't be reached with this configuration; empty when it can."""

    def refusal(self, route: str, requester: str) -> str:
        """Say why this person may not talk in this conversation now; empty when they may.

        Without a requester (a reminder, a message of an operator) the conversation alone counts.
        """

    def deliver(
        self, message: Outgoing, record: Callable[[tuple[str, ...]], None]
    ) -> tuple[str, ...]:
        """Make the conversation show the message's text: edit the parts that have a receipt, post the
        others; return all receipts. ``record`` is called with those so far after each new part.

        Of a message that is STREAMING only the first part is shown, cut to its size. Raises
        DeliveryError.
        """

    def look_up(self, message: Outgoing) -> tuple[str, ...]:
        """Return the receipts of the parts that the platform has, in order, none of them: empty.

        Raises DeliveryError when that can't be told.
        """

    def on_gate(self, is_open: bool) -> None:
        """Hear whether new turns are taken: before ``start``, and when that changes; returns at once."""

    def pause(self) -> None:
        """Take nothing more and hang up; does not wait."""

    def stop(self, timeout_s: float) -> None:
        """Pause, and wait until no thread of it is left, at most so long. Idempotent."""


class Outbox(Protocol):
    """The durable messages of channels; a part of :class:`netclawd.ports.Store`, with its promises.

    ``at`` and the other instants are wall clock.
    """

    def receive(self, received: Received, at: float) -> Reception:
        """Write what was received, once for each event id. The messages with it are left out when its
        input was admitted before, under another event."""

    def session_of(self, channel: str, route: str) -> SessionId | None: ...

    def put(self, messages: Sequence[NewOutgoing], at: float) -> None:
        """Put messages into the outbox, PENDING; those whose id is there already are left out."""

    def due(self, channel: str, now: float, limit: int) -> tuple[Outgoing, ...]:
        """Return PENDING messages that are due, first those that wait longest since; of each route only the
        oldest of those that are PENDING or SENDING."""

    def next_due(self, channel: str) -> float | None:
        """Return when the next PENDING message is due that no other of its route goes before, None
        without one."""

    def unsettled(self, channel: str) -> tuple[Outgoing, ...]:
        """Return what is SENDING or STREAMING, oldest first: after a start, whatever was cut."""

    def reply(self, turn_id: TurnId) -> Outgoing | None:
        """Return the reply of a turn, whole or in the making; None before there is one.

        A question, and a park that people are told of, comes below what was shown by then: that stays, as
        SAID, and the reply is another message.
        """

    def stream(self, turn_id: TurnId, at: float) -> Outgoing | None:
        """Return the reply of a turn that runs, STREAMING if it wasn't there; None while another message
        of the conversation, PENDING or SENDING, goes before it. ConflictError when it is made already,
        the turn is parked, or its session has no channel.

        Called right before the first part is posted: a STREAMING one without receipts counts as one
        whose post is under way. When the whole reply comes meanwhile it is SENDING until that post
        was recorded or put off.
        """

    def begin(self, message: Outgoing, at: float) -> bool:
        """Make it SENDING; False when it isn't PENDING with this version any more, or was out of date
        and is now DROPPED."""

    def record(self, message: Outgoing, receipts: tuple[str, ...], at: float) -> None:
        """Keep the receipts of parts that were posted; the state stays, but for a message that was
        STREAMING and is SENDING by now: it becomes PENDING."""

    def sent(self, message: Outgoing, receipts: tuple[str, ...], at: float) -> OutboxState:
        """Make it SENT, or PENDING once more when its text has changed meanwhile."""

    def put_off(self, message: Outgoing, due_at: float, error: str, at: float) -> None:
        """Make it PENDING again, not to be tried before ``due_at``: only what is certainly not there, or
        whose parts are recorded. One that is STREAMING stays, or is gone if it has no receipts; a
        question that was decided before it was posted is DROPPED."""

    def settle(self, message: Outgoing, state: OutboxState, error: str, at: float) -> None:
        """Make it AMBIGUOUS, FAILED or DROPPED; PENDING once more where another text of it FAILED."""

    def messages(self, states: Sequence[OutboxState], limit: int) -> tuple[Outgoing, ...]:
        """Return messages in these states (all when empty), the newest ``limit``, oldest first."""

    def message(self, message_id: OutgoingId) -> Outgoing:
        """Return one, or raise NotFoundError."""

    def retry(self, message_id: OutgoingId, at: float) -> Outgoing:
        """Make an AMBIGUOUS, FAILED or PENDING one due now. NotFoundError, ConflictError."""

    def drop(self, message_id: OutgoingId, at: float) -> Outgoing:
        """Drop one that isn't SENT nor SENDING. NotFoundError, ConflictError."""

    def tally(self) -> Mapping[str, ChannelCounts]:
        """Return the counts of every channel that has something to do, configured or not."""
