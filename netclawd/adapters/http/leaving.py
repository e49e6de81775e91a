"""How a request leaves the worker that runs it, before any of its answer is written.

The application raises one of these; the channel catches it and gives the connection to the pump, so
that a thousand waiting clients hold no thread. They derive from BaseException because the framework
between the two turns every Exception into an answer.
"""

from __future__ import annotations

from netclawd.adapters.http.relay import Relay, Ticket
from netclawd.core.session import SessionId


class LeaveWorker(BaseException):
    """Base of all."""

    def lost(self) -> None:
        """Hear that the connection is gone before the pump could have it."""


class ReaderLeaves(LeaveWorker):
    """A client reads a session's events."""

    def __init__(self, session_id: SessionId, after: int) -> None:
        super().__init__()
        self.session_id = session_id
        #: Number of the last event that the client has.
        self.after = after


class Parked(ReaderLeaves):
    """A long poll found nothing yet: run the same request again when there is something to say."""

    def __init__(self, session_id: SessionId, after: int, wait_s: float) -> None:
        super().__init__(session_id, after)
        self.wait_s = wait_s


class StreamTaken(ReaderLeaves):
    """An event stream: its socket belongs to the pump from here on."""


class Relayed(LeaveWorker):
    """An answer that comes bit by bit: its socket belongs to the pump from here on."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self.relay = relay

    def lost(self) -> None:
        self.relay.over(lost=True)


class Waiting(LeaveWorker):
    """Run the same request again when the ticket has its answer."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__()
        self.ticket = ticket

    def lost(self) -> None:
        self.ticket.over(lost=True)
