"""What the daemon needs from the world, as Protocols: the seam between policy and effect.

``daemon`` is written against these; adapters implement them; ``cli``'s wiring module joins the two.
``Service`` (:mod:`netclawd.ports.service`) is the one port in the other direction: what HTTP and the
control socket may ask of the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from netclawd.core.events import Event
from netclawd.core.listeners import Kept
from netclawd.core.restart import RestartRecord
from netclawd.core.session import (
    AdmitInput,
    Admitted,
    Approval,
    ApprovalId,
    CallContext,
    CallId,
    Change,
    Lease,
    ModelReply,
    ModelRequest,
    NewEvent,
    OpenProposal,
    OutboxEntry,
    Page,
    ProposalOutcome,
    RestartId,
    Session,
    SessionEvent,
    SessionId,
    ToolCall,
    ToolOutcome,
    Turn,
    TurnId,
)
from netclawd.core.settings import DaemonSettings, Snapshot
from netclawd.core.values import frozen
from netclawd.ports.service import Call as Call
from netclawd.ports.service import CallListener as CallListener
from netclawd.ports.service import Service as Service
from netclawd.ports.service import Watch as Watch

if TYPE_CHECKING:
    # Not needed to serve.
    from netclawd.core.counters import EventCounts
    from netclawd.core.reading import Census
    from netclawd.ports.channels import Outbox
    from netclawd.ports.reminders import ReminderStore

# -- time and chance ---------------------------------------------------------------------------


class Clock(Protocol):
    def monotonic(self) -> float:
        """Return seconds of CLOCK_MONOTONIC; it goes on across execve."""

    def wall(self) -> float:
        """Return seconds since the epoch."""


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """Return a fresh identifier, ``prefix`` and at least 96 random bits, sortable by age."""


# -- the store ---------------------------------------------------------------------------------


class Store(Protocol):
    """Durable sessions. Every method may be called from any thread.

    A write returns only after it is durable, raises :class:`~netclawd.errors.StoreError` and then
    has changed nothing. Concurrent writes share commits (group commit). After :meth:`close` every
    call raises :class:`~netclawd.errors.StoreClosedError`.
    """

    @property
    def outgoing(self) -> Outbox:
        """What channels receive, and what goes out through them."""

    @property
    def reminders(self) -> ReminderStore:
        """Reminders and their occurrences."""

    def begin_generation(self, at: float, restart_id: RestartId | None, above: int = 0) -> int:
        """Allot the next generation, one more than the highest ever allotted and than ``above``; fence
        all older ones."""

    def create_session(self, session_id: SessionId, at: float, channel: str = "api") -> Session: ...

    def open_session(
        self, alias: str, session_id: SessionId, at: float, channel: str = "api"
    ) -> Session:
        """Return the session that the channel calls ``alias``; make it, with this id, if there is none.

        Whoever asks with the same channel and alias, at whatever time, gets the same session.
        """

    def session(self, session_id: SessionId) -> Session:
        """Return the session or raise NotFoundError."""

    def sessions(self, cursor: str | None, limit: int) -> Page:
        """Return a page, newest first; raise BadRequestError for a cursor that isn't ours."""

    def admit(self, new: AdmitInput, at: float) -> Admitted:
        """Make an input and its queued turn durable, with ``input.admitted``.

        The same session and source id again: nothing is written and the first answer returned, or
        KeyReusedError when the text differs. NotFoundError when the session does not exist.
        """

    def admitted(self, session_id: SessionId, source_id: str, text: str | None) -> Admitted | None:
        """Return what :meth:`admit` would for a source id that it knows, None for a new one.

        KeyReusedError and NotFoundError as there, ``text`` None fits any; nothing is written.
        """

    def delivered(self, source_id: str) -> tuple[SessionId, Admitted] | None:
        """Return the session and the answer of a webhook's source id (``hook:…``), whichever session it went
        to, None for a new one."""

    def lease(self, turn_id: TurnId, generation: int, *, resumed: bool = False) -> Lease:
        """Bind a turn that has not ended to a generation. FencedError when a newer one exists.

        ``resumed``: work on it goes on after an interruption, which is counted as one of its resumes.
        """

    def lease_all(self, turn_ids: Sequence[TurnId], generation: int) -> tuple[Lease, ...]:
        """Lease many turns in one transaction (warm-up), in their order; all of them or none."""

    def commit(self, change: Change, at: float) -> tuple[SessionEvent, ...]:
        """Commit one checkpoint whole; FencedError when the lease is not the current one.

        A turn that nobody has ever leased is leased by its first commit.
        """

    def commit_all(self, changes: Sequence[Change], at: float) -> None:
        """Commit many checkpoints in one transaction (warm-up, drain)."""

    def append(self, session_id: SessionId, turn_id: TurnId | None, event: Any, at: float) -> int:
        """Append one NewEvent outside a lease and return its number (``config.outcome``)."""

    def events(self, session_id: SessionId, after: int, limit: int) -> tuple[SessionEvent, ...]:
        """Return durable events numbered above ``after``, in order. NotFoundError as above."""

    def turn(self, turn_id: TurnId) -> Turn: ...

    def next_turn(self, session_id: SessionId) -> Turn | None:
        """Return the session's oldest turn that has not ended, None when all have."""

    def turn_events(self, turn_id: TurnId) -> tuple[SessionEvent, ...]:
        """Return all events of one turn, in order."""

    def open_turns(self) -> tuple[Turn, ...]:
        """Return every turn that has not ended, in order of admission."""

    def conversation(self, session_id: SessionId, before: TurnId) -> tuple[SessionEvent, ...]:
        """Return the newest ``context.summarised`` of this turn or an earlier one, if there is one, then
        the events of the session's turns that were admitted before this one and that it does not cover,
        turn after turn: completed ones; of the others that have ended those with a tool call that was
        started; and failed ones but for the slugs ``context-overflow``, ``internal-error`` and
        ``provider-refused``, of which what was said may be the cause."""

    def outbox(self, states: Sequence[str] = ()) -> tuple[OutboxEntry, ...]:
        """Return the entries of sessions without a channel in these states (all when empty), oldest first."""

    def approvals(self, pending_only: bool) -> tuple[Approval, ...]: ...

    def approval(self, approval_id: ApprovalId) -> Approval: ...

    def open_proposals(self) -> tuple[OpenProposal, ...]:
        """Return the changes of the configuration whose outcome nobody has told, oldest first."""

    def close_proposal(
        self,
        call_id: CallId,
        outcome: ProposalOutcome,
        event: NewEvent,
        generation: int,
        at: float,
    ) -> bool:
        """Tell a proposal's outcome once, with this event of its turn, or of the session alone when the
        turn has ended.

        False, with nothing written, when it was told before. NotFoundError; FencedError when there is
        a newer generation.
        """

    def record_restart(self, record: RestartRecord) -> None:
        """Insert or replace the journal entry with this restart id."""

    def restarts(self, limit: int) -> tuple[RestartRecord, ...]:
        """Return the restart journal, newest first."""

    def restart(self, restart_id: RestartId) -> RestartRecord | None: ...

    def try_to_write(self) -> None:
        """Commit what changes nothing; StoreError when that can't be done now, or a restart would lack
        the room to write."""

    def trouble(self) -> str:
        """Return why the last write failed, for people; empty once one has gone through.

        It goes through by itself: after a failure the store tries again and again.
        """

    def newest_place(self) -> int:
        """Return the place of the newest event over all sessions, 0 without any.

        Places grow with every event; unlike numbers they are of the whole store, and may have holes.
        """

    def count_events(self, after: int, most: int) -> EventCounts:
        """Count the events behind a place, the oldest first, up to ``most`` of them.

        The details: of ``input.admitted`` whether it was deferred (``true``, ``false``), of
        ``turn.parked`` the reason, of ``turn.resumed`` the cause, of ``turn.interrupted`` the state, of
        ``turn.failed`` the slug.
        """

    def census(self) -> Census:
        """Count sessions, turns, replies, reminders and restarts by their states."""

    def waiting_since(self) -> float | None:
        """Return the monotonic instant since which what was submitted waits without progress; None at
        rest, and once closed."""

    def on_commit(self, callback: Callable[[SessionId, int], None]) -> None:
        """Register a callback (session, its newest seq), called by the writer after each commit."""

    def counters(self) -> Mapping[str, int]:
        """Return counts since open: ``admissions``, ``commits`` (of transactions), ``events``."""

    def prepare_close(self) -> None:
        """Do now, while others read and write, what would make :meth:`close` slow; never fails."""

    def close(self) -> None:
        """Finish what was submitted, checkpoint the WAL, close. Idempotent."""


# -- the agent ---------------------------------------------------------------------------------


class Cancel(Protocol):
    """A request to stop; given to whatever takes time."""

    def is_set(self) -> bool: ...

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set or the time is up; return whether it is set."""

    def on_set(self, act: Callable[[], None]) -> Callable[[], None]:
        """Have ``act`` called when it is set, at once if it is; return what takes that back.

        It is called in the thread that sets it, which may hold locks: it must not block.
        """


class Cancelled(Exception):  # noqa: N818 - it is not an error but an answer
    """Raised by a provider or a tool that stopped because its Cancel was set."""


class Provider(Protocol):
    """A model behind a wire."""

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        """Stream one reply: text through ``on_text`` as it comes, the whole as the result.

        Raises Cancelled soon (within 100 ms) after ``cancel`` is set, and ProviderError (a
        NetclawError) for a failure. A reply that was cut is never returned.
        """


class Tool(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str:
        """What the model is told of it."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON Schema of the arguments, an object."""

    #: Whether a repeated call with the same call id has one effect; such a call may be re-issued.
    def idempotent(self, call: ToolCall) -> bool: ...

    def describe(self, call: ToolCall) -> str:
        """Return the call in full, for a person who is asked to grant it."""

    def refusal(self, call: ToolCall) -> str | None:
        """Say why the call can't be made whatever a person says, so that nobody is asked; else None.

        :meth:`run` then says the same as an ERROR.
        """

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        """Perform the call; the call's id is its idempotency key. Calls run beside each other.

        When ``cancel`` is set it stops soon, leaves nothing half-done and returns INTERRUPTED.
        """

    def close(self) -> None:
        """End at once what calls have left running; nobody waits for them any more. Idempotent."""


# -- the world around the process ---------------------------------------------------------------


class Notifier(Protocol):
    """sd_notify(3) and the s6 notification descriptor; harmless when neither is there."""

    def status(self, text: str) -> None: ...
    def reloading(self, monotonic_usec: int, status: str) -> None:
        """Send RELOADING=1, MONOTONIC_USEC= and STATUS= in one datagram."""

    def ready(self, status: str) -> None:
        """Send READY=1 and STATUS=; the first time also the newline of s6."""

    def stopping(self, status: str) -> None: ...
    def watchdog(self) -> None: ...
    def extend_timeout(self, usec: int) -> None: ...


class FdStore(Protocol):
    """Descriptors that the supervisor keeps while the process is dead; the fd store of systemd.

    Each call takes a moment at most, and raises OSError when the supervisor can't be told.
    """

    def store(self, name: str, fd: int) -> None:
        """Have a copy kept; the next start gets it under this name."""

    def takes(self) -> bool:
        """Return whether all that was stored until now is kept."""

    def remove(self, names: Sequence[str]) -> bool:
        """Have all under these names closed; return whether that is known to be done."""


class Boot(Protocol):
    """The stub that an image is started by: until it is ready, there is a way back.

    :mod:`netclawd.__main__` has it, which imports nothing of ours.
    """

    #: Slug, what and remedy of the failure that led back to this image, None when there was none.
    failure: tuple[str, str, str] | None
    #: Images that have failed since the last one that was ready.
    failed: int
    #: Whether nothing leads back any more.
    over: bool
    #: Comes to rest and returns descriptors by name to hand over instead of those held by the stub;
    #: None when that is all. The listeners go on whatever it raises.
    rescue: Callable[[], list[tuple[str, int]] | None] | None
    #: Returns the numbers of signals that were heard and not acted on yet.
    heard: Callable[[], list[int]] | None
    #: Masks secrets in what is said of a failure; set as soon as they are known.
    redact: Callable[[str], str]

    def release_connections(self) -> None:
        """Let go of the kept connections, once the HTTP server has them."""

    def done(self) -> None:
        """The image is ready, or ends as it was asked to. Idempotent."""

    def roll_back(self, slug: str, what: str, remedy: str) -> int | None:
        """Go back to the last good snapshot; from any thread. Returns only if that can't be."""

    def note(self, timeout_s: float, limit: int, window_s: float, now: float) -> bytes:
        """Return what the next image's stub must know, to be handed over as ``boot``."""


class SettingsSource(Protocol):
    """Reads the configuration."""

    def read(self, *, running: bool, served: DaemonSettings | None = None) -> Snapshot:
        """Read the file once, apply the environment, validate all of it.

        ``running``: an empty or missing file is then half-written (ConfigSyntaxError), otherwise it
        means defaults. ``served``: settings whose tunnel was judged when they were taken.
        Raises ConfigSyntaxError, ConfigSchemaError or ConfigMeaningError.
        """

    def candidate(
        self, content: bytes, name: str, served: DaemonSettings | None = None
    ) -> Snapshot:
        """Judge what might take the file's place under a running daemon; errors call it ``name``."""

    def overridden(self, snapshot: Snapshot) -> Mapping[str, str]:
        """Return the settings that a variable of the environment decides, with its name."""


class SettingsEditor(Protocol):
    """Edits the text of the configuration file; what isn't changed stays as it is, comments included."""

    @property
    def schema(self) -> Mapping[str, Any]: ...
    def fits(self, schema: Mapping[str, Any], value: Any) -> bool:
        """Whether a value is one that the schema of a setting allows."""

    def read(self) -> bytes | None:
        """Return the file as it is now, None where there is none; ConfigSyntaxError."""

    def parse(self, content: bytes | None) -> Mapping[str, Any]:
        """Return the values that a content sets; ConfigSyntaxError."""

    def edit(
        self, content: bytes | None, edits: Sequence[tuple[tuple[str, ...], Any]]
    ) -> bytes | None:
        """Return the content with each setting set, or taken out (None), None where nothing is left.

        ConfigNotWrittenError where its layout has no room.
        """


class WatchMode(StrEnum):
    INOTIFY = "inotify"
    POLLING = "polling"
    #: inotify can't see everything here: the file is looked at in addition.
    BOTH = "inotify+polling"


@frozen
class WatchState:
    mode: WatchMode
    #: Why the file is not watched as it should be, and what to do; empty when it is.
    trouble: str = ""


class Watcher(Protocol):
    """Tells when the configuration file may have changed."""

    def start(self, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` (from the watcher's thread) once the content has settled."""

    def state(self) -> WatchState:
        """Return how it watches; it may change while it runs. From any thread."""

    def stop(self) -> None: ...


class Codec(Protocol):
    """Turns maps of plain values into sealed bytes (a checksum ends them) and back."""

    #: Largest sealed record; of a larger file nobody needs to read more than one byte beyond.
    limit_bytes: int

    def seal(self, values: Mapping[str, Any]) -> bytes: ...

    def unseal(self, data: bytes) -> dict[str, Any]:
        """Raise ManifestError for bytes that are truncated, changed, too large or too deep."""


# -- HTTP --------------------------------------------------------------------------------------


@frozen
class Quiesced:
    """What is left when HTTP has come to rest."""

    kept: tuple[Kept, ...]
    #: Monotonic instant after which the old image accepted nothing.
    last_accept: float
    #: Requests that were answered 503 because they were unfinished at the deadline.
    cut: int


class HttpServer(Protocol):
    """The HTTP side. Called by the arbiter only, except ``retire``'s callback."""

    def start(self, listeners: Mapping[str, Any], kept: Sequence[Kept]) -> None:
        """Serve these listening sockets (name -> socket.socket) and the connections kept open."""

    def serving_since(self) -> float:
        """Return the monotonic instant at which the loop began to accept."""

    def last_turn(self) -> float | None:
        """Return the monotonic instant of the loop's last turn, of which one comes each second at
        least; None in its pause between quiesce and resume, and when it has ended."""

    def quiesce(
        self, deadline: float, retry_after_s: int, done: Callable[[Quiesced], None]
    ) -> None:
        """Stop accepting, end streams, let requests finish until ``deadline`` (monotonic), then
        answer the rest 503; call ``done`` from the loop's thread when nothing is in progress."""

    def resume(self) -> None:
        """Undo a quiesce: accept again, go on with the kept connections (execve failed)."""

    def retire(self, names: Sequence[str], done: Callable[[], None]) -> None:
        """Accept what is queued on these listeners, then close them; the connections live on.

        No newcomer finds them any more; a handshake that has begun gets a moment to end.
        """

    def empty(self, listeners: Mapping[str, Any]) -> None:
        """Accept what is queued on sockets that are not served, and close them."""

    def stop(self, timeout_s: float, leave: Collection[str] = ()) -> None:
        """Close everything politely and end the threads.

        The queues of the listeners named in ``leave`` are for the next daemon.
        """

    def streams(self) -> int:
        """Return how many event streams, long polls and chat completions are open."""


Post = Callable[[Event], None]

#: Renders the metrics for what a client accepts: content type and body.
Exposition = Callable[[str | None], tuple[str, bytes]]
