"""What the outside may ask of the daemon: the one port in the other direction.

HTTP and the control socket are written against it; :mod:`netclawd.daemon.service` implements it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from netclawd.core.events import Trigger
from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    Admitted,
    Approval,
    ApprovalId,
    Delta,
    ModelReply,
    ModelRequest,
    OutboxState,
    Page,
    RestartId,
    Session,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
)

if TYPE_CHECKING:
    # Not needed to serve.
    from netclawd.core.outgoing import Outgoing, OutgoingId
    from netclawd.core.reading import Reading
    from netclawd.errors import NetclawError
    from netclawd.ports.reminders import Reminders


class Watch(Protocol):
    """What a watcher of sessions is told; called from other threads, it must not block."""

    def on_events(self, session_id: SessionId, last_seq: int) -> None: ...
    def on_delta(self, delta: Delta) -> None: ...


class CallListener(Protocol):
    """Who hears of a model call; called in the thread of the call, one after the other.

    Any text first, then either of the others, once.
    """

    def on_text(self, text: str) -> None: ...
    def on_reply(self, reply: ModelReply) -> None: ...
    def on_error(self, error: NetclawError) -> None: ...


class Call(Protocol):
    """A model call of a client, which belongs to no session."""

    id: str
    #: Wall clock of its beginning, seconds since the epoch.
    at: float

    def hang_up(self) -> None:
        """Cut it, because nobody waits for it any more; does not block."""


class Service(Protocol):
    """The daemon as HTTP and the control socket see it. Every method may be called from any thread."""

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return whether phase is ready or rehearsing, and {phase, generation, digest}."""

    def generation(self) -> int: ...

    def retry_after_s(self) -> int:
        """Return whole seconds after which new work will probably be taken again, at least 1."""

    def status(self) -> Mapping[str, Any]: ...
    def metrics(self) -> Reading:
        """Take a look at all that the metrics show; in every phase, and never an error."""

    def restarts(self, limit: int) -> Sequence[Mapping[str, Any]]: ...

    def create_session(self) -> Session: ...
    def session(self, session_id: SessionId) -> Session: ...
    def sessions(self, cursor: str | None, limit: int) -> Page: ...

    def admit(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        """Admit an input durably; DrainingError when new work is rejected now."""

    def events(self, session_id: SessionId, after: int, limit: int) -> tuple[SessionEvent, ...]: ...

    # ``turn_id`` None is the turn in flight: the oldest that has not ended. ConflictError without one.
    def cancel_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Cancel a turn; ConflictError when it has ended already."""

    def park_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Park a turn at its next checkpoint, until when it is RUNNING; never waits for that.

        May be asked again; a turn that is parked stays as it is. ConflictError when it has ended.
        """

    def resume_turn(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        """Let a parked turn go on, in a drain after the restart (the turn is then INTERRUPTED).

        ConflictError when it is not parked, or waits for an approval.
        """

    def live_text(self, session_id: SessionId) -> Delta | None:
        """Return the text so far of the reply that is being made (offset 0), None without one."""

    def outgoing(self, states: Sequence[OutboxState], limit: int) -> tuple[Outgoing, ...]:
        """Return the newest ``limit`` messages of channels in these states (all when empty), oldest first."""

    def retry_outgoing(self, message_id: OutgoingId) -> Outgoing:
        """Have an ambiguous, failed or waiting message sent now; NotFoundError, ConflictError."""

    def drop_outgoing(self, message_id: OutgoingId) -> Outgoing:
        """Let a message go that isn't sent nor being sent; NotFoundError, ConflictError."""

    # For clients that wait for the answer in the very response, so that nothing can be deferred:
    # DrainingError, and nothing has happened, while the gate is closed.
    def call_model(
        self, request: ModelRequest, listener: Callable[[Call], CallListener], most: int
    ) -> Call:
        """Begin a model call that belongs to no session; ``listener`` makes who hears of it."""

    def open_session(self, alias: str) -> Session:
        """Return the session that a client calls so; make it if there is none."""

    def admit_now(self, session_id: SessionId, text: str, source_id: str | None) -> Admitted:
        """Admit an input durably, to run at once."""

    def receive_hook(self, name: str, delivery_id: str, text: str) -> tuple[SessionId, Admitted]:
        """Admit a genuine delivery of a webhook to the hook's session, once for ever; return that too.

        NotFoundError without such a hook, ConflictError when its session does not exist; DrainingError
        as :meth:`admit`. Nothing is written then.
        """

    def turn_events(self, turn_id: TurnId) -> tuple[SessionEvent, ...]:
        """Return all events of one turn, in order."""

    def abandon_turn(self, session_id: SessionId, turn_id: TurnId, by: str) -> None:
        """Cancel a turn whose client has hung up, soon; never waits and never fails."""

    @property
    def reminders(self) -> Reminders:
        """Return what may be asked about reminders; DrainingError in the moment before the warm-up."""

    def watch(self, watch: Watch) -> None:
        """Tell ``watch`` of every commit and delta from now on."""

    def unwatch(self, watch: Watch) -> None: ...

    # Only over the control socket:
    def cancel_turns(self, session_id: SessionId, by: str) -> tuple[Turn, ...]:
        """Cancel all turns of a session; ConflictError when all have ended already."""

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]:
        """Return approvals, the oldest first; pending ones say when they expire."""

    def decide_approval(self, approval_id: ApprovalId, granted: bool, decided_by: str) -> Approval:
        """Grant or deny; ConflictError when it was decided already, or has expired."""

    def plan(self, text: str | None, name: str) -> Mapping[str, Any]:
        """Say what a reload would do now, with the file or with this text instead; change nothing.

        ``name`` is what errors call the text.
        """

    def request_reload(self, trigger: Trigger, force: bool) -> RestartId:
        """Ask the same question as SIGHUP; the outcome is found under the id returned."""

    def outcome(self, restart_id: RestartId, wait_s: float) -> RestartRecord | None:
        """Wait for the outcome of a request; None when there is none yet."""

    def request_stop(self, trigger: Trigger) -> None: ...
