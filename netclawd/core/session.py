"""The words of a session: inputs, turns, steps, events, and what may become of an interrupted turn.

Pure. A session is a log of durable events, numbered from 1 without holes. A turn is one answer to
one input; a step is one model call with the tools that it asked for. A turn's state is never
guessed: :func:`netclawd.core.turn.plan_next` reads it from the turn's events alone, which is what
makes a resume after SIGKILL and a resume after an orderly drain the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NewType

from netclawd.core.values import field, frozen

SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
InputId = NewType("InputId", str)
CallId = NewType("CallId", str)
ApprovalId = NewType("ApprovalId", str)
RestartId = NewType("RestartId", str)

#: The channel whose delivery is the event log itself.
API = "api"
#: The word of an input's origin for who says it.
USER = "user"


class EventType(StrEnum):
    """The durable events of a session; the values are protocol."""

    INPUT_ADMITTED = "input.admitted"
    TURN_STARTED = "turn.started"
    MODEL_COMPLETED = "model.completed"
    STEP_RETRY = "step.retry"
    TOOL_STARTED = "tool.started"
    TOOL_FINISHED = "tool.finished"
    TOOL_UNKNOWN = "tool.unknown"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_DENIED = "approval.denied"
    APPROVAL_EXPIRED = "approval.expired"
    TURN_INTERRUPTED = "turn.interrupted"
    TURN_RESUMED = "turn.resumed"
    TURN_COMPLETED = "turn.completed"
    TURN_FAILED = "turn.failed"
    TURN_CANCELLED = "turn.cancelled"
    TURN_PARKED = "turn.parked"
    CONFIG_OUTCOME = "config.outcome"
    #: Stands in the place of the turns up to a number, in what the model is told.
    CONTEXT_SUMMARISED = "context.summarised"
    REPLY_SENT = "reply.sent"
    RESTART = "restart"


class TurnState(StrEnum):
    """Where a turn stands, as the store holds it."""

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the turn any more."""
        return self in (TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELLED)


class ParkReason(StrEnum):
    """Why a turn waits for a person."""

    APPROVAL = "approval"
    RESUME_DEADLINE = "resume-deadline"
    RESUME_LIMIT = "resume-limit"
    #: A person has parked it.
    REQUEST = "request"


@frozen
class NewEvent:
    """An event on its way into the store, which gives it its number and its time."""

    type: EventType
    #: JSON-compatible; never larger than what the producing step bounds it to.
    data: Mapping[str, Any] = field(default_factory=dict)


@frozen
class SessionEvent:
    """A durable event."""

    session_id: SessionId
    #: From 1, without holes, per session.
    seq: int
    type: EventType
    #: Wall clock, seconds since the epoch.
    at: float
    turn_id: TurnId | None
    data: Mapping[str, Any]


@frozen
class Usage:
    """Tokens of a model call, or of several, as the model server counts them."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens
        )


@frozen
class Session:
    id: SessionId
    #: Wall clock, seconds since the epoch.
    created_at: float
    #: Delivery route of its replies; API is the event log itself.
    channel: str
    #: Number of its newest event, 0 when it has none.
    last_seq: int
    #: State of its oldest unended turn, behind which the others wait; None when all have ended.
    turn_state: TurnState | None
    #: Why that turn is parked, None when it isn't.
    park_reason: ParkReason | None = None
    #: Tokens of all its model calls, summaries included.
    usage: Usage = Usage()
    #: What its channel or its client calls it, None where it has no such name.
    alias: str | None = None


@frozen
class Turn:
    id: TurnId
    session_id: SessionId
    input_id: InputId
    state: TurnState
    #: The generation that holds its lease; 0 when none does.
    generation: int
    #: How often it has been resumed.
    resumes: int
    #: Wall clock of its first interruption, None when it never was.
    interrupted_at: float | None
    park_reason: ParkReason | None
    #: Order of admission over all sessions.
    position: int
    #: Admitted while the gate was closed.
    deferred: bool
    #: Tokens of its model calls so far, summaries included.
    usage: Usage = Usage()
    #: The channel of its session.
    channel: str = API
    #: Who said what it answers, as the input has it.
    origin: Mapping[str, str] = field(default_factory=dict)


@frozen
class Lease:
    """The right of one generation to commit for one turn; the store refuses all others."""

    turn_id: TurnId
    session_id: SessionId
    generation: int


#: How source ids, and names of sessions, of webhooks and reminders begin: no client may take one of theirs.
OWN_SOURCES = ("hook:", "reminder:")


@frozen
class AdmitInput:
    """One input, to be made durable."""

    session_id: SessionId
    input_id: InputId
    turn_id: TurnId
    text: str
    #: The source's own id (Idempotency-Key, platform event id); None: never a repeat.
    source_id: str | None
    deferred: bool
    #: Who says it, in the words of the session's channel; empty where the channel has none.
    origin: Mapping[str, str] = field(default_factory=dict)


@frozen
class Admitted:
    """The answer to an admission; ``fresh`` is False when it repeats an earlier one."""

    input_id: InputId
    turn_id: TurnId
    deferred: bool
    fresh: bool


class OutboxState(StrEnum):
    """The life of an outgoing reply: pending -> sending -> sent, or ambiguous after a crash.

    The others are of messages that go out through a channel alone (:mod:`netclawd.core.outgoing`).
    """

    #: It is shown while it is being made.
    STREAMING = "streaming"
    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    #: Nobody can say whether it arrived; it is not sent again by itself.
    AMBIGUOUS = "ambiguous"
    #: The platform does not take it.
    FAILED = "failed"
    #: It is not to be sent any more.
    DROPPED = "dropped"


@frozen
class OutboxChange:
    """Create (PENDING) or move the outbox entry of a turn; its identity is the turn's id."""

    state: OutboxState
    #: The reply; only with PENDING.
    text: str | None = None
    #: The platform's receipt; only with SENT.
    receipt: str | None = None


@frozen
class OutboxEntry:
    turn_id: TurnId
    session_id: SessionId
    channel: str
    state: OutboxState
    text: str
    receipt: str | None


class ApprovalState(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    DENIED = "denied"
    EXPIRED = "expired"


@frozen
class ApprovalChange:
    """Create (PENDING) or decide an approval."""

    id: ApprovalId
    state: ApprovalState
    #: What is asked, in full, for a person; only with PENDING.
    question: str | None = None
    call_id: CallId | None = None
    #: Name of the tool.
    name: str = ""
    #: Who decided, e.g. "uid 1000"; only with a decision.
    decided_by: str | None = None


@frozen
class Approval:
    id: ApprovalId
    session_id: SessionId
    turn_id: TurnId
    call_id: CallId
    state: ApprovalState
    question: str
    #: Wall clock, seconds since the epoch.
    asked_at: float
    decided_by: str | None
    #: Name of the tool, empty where it was not recorded.
    name: str = ""
    #: Wall clock from which a pending one is expired, None for a decided one.
    expires_at: float | None = None


@frozen
class Proposal:
    """A change of the configuration that a tool call has written; its outcome comes with a restart."""

    #: Digest of the snapshot that was written, as :class:`netclawd.core.settings.Snapshot` has it.
    digest: str
    #: The settings that were changed, by their dotted keys; None: back to the default.
    changes: Mapping[str, Any]


@frozen
class ProposalChange:
    """Open a proposal: what a call has written, whose outcome its turn waits for."""

    call_id: CallId
    proposal: Proposal


@frozen
class OpenProposal:
    """A proposal whose outcome nobody has told yet."""

    call_id: CallId
    session_id: SessionId
    turn_id: TurnId
    proposal: Proposal
    #: Wall clock, seconds since the epoch.
    at: float


class ProposalOutcome(StrEnum):
    """What became of a proposal; the values are protocol."""

    APPLIED = "applied"
    #: Refused before anything changed: the old generation goes on.
    REFUSED = "refused"
    #: The new image failed; the last good configuration serves.
    ROLLED_BACK = "rolled-back"
    #: Somebody replaced it in the file before it was tried.
    SUPERSEDED = "superseded"
    #: Nobody could say within the time that a turn waits.
    UNKNOWN = "unknown"


@frozen
class Change:
    """All that one checkpoint of a turn writes; it is committed whole or not at all.

    ``events`` get their numbers in order. What is None stays as it is.
    """

    lease: Lease
    events: tuple[NewEvent, ...] = ()
    state: TurnState | None = None
    park_reason: ParkReason | None = None
    resumes: int | None = None
    #: Wall clock of the first interruption.
    interrupted_at: float | None = None
    outbox: OutboxChange | None = None
    approvals: tuple[ApprovalChange, ...] = ()
    proposal: ProposalChange | None = None
    #: What the turn said before the question that it asks: who was shown the beginning is shown all of it.
    said: str = ""
    #: Forget the interruptions so far: no resume is counted any more, and there was no first one.
    forgiven: bool = False
    #: Tokens to be added to those of the turn and its session.
    usage: Usage | None = None


@frozen
class Page:
    """A page of sessions, newest first; ``next`` is the cursor of the following page, if any."""

    sessions: tuple[Session, ...]
    next: str | None


@frozen
class Delta:
    """Text of a reply that is being made. Not durable, not numbered: a watcher places it by offset."""

    session_id: SessionId
    turn_id: TurnId
    #: Step of the turn, from 1.
    step: int
    #: Attempt of the step, from 1; a newer attempt replaces all text of an older one.
    attempt: int
    #: Characters of this attempt before this text.
    offset: int
    text: str


@frozen
class ToolCall:
    """A tool call that a model asked for."""

    id: CallId
    name: str
    arguments: Mapping[str, Any]
    #: Why the arguments can't be used (they are no JSON object), empty when they can; then there are none.
    invalid: str = ""


class FinishReason(StrEnum):
    STOP = "stop"
    TOOLS = "tool_calls"
    #: The model's limit of output ended the reply.
    LENGTH = "length"
    #: The model server withheld the rest.
    FILTERED = "content_filter"


@frozen
class ModelReply:
    """A whole reply of a model; one without a finish reason is never made into this."""

    text: str
    calls: tuple[ToolCall, ...]
    finish: FinishReason
    #: None where the model server doesn't say.
    usage: Usage | None = None


@frozen
class ToolSpec:
    """A tool as a model is told of it."""

    name: str
    description: str
    #: JSON Schema of the arguments, an object.
    parameters: Mapping[str, Any]


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    #: What the daemon itself tells the model: a restart, an interruption.
    SYSTEM = "system"


@frozen
class Message:
    """One entry of the conversation as a model reads it."""

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    #: The call that a TOOL message answers.
    call_id: CallId | None = None


@frozen
class ModelRequest:
    """One model call: everything that the model is told."""

    messages: tuple[Message, ...]
    #: The system prompt, empty for none.
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    #: Of a client's request, in the words of chat completions: ``temperature``, ``top_p``,
    #: ``max_tokens``, ``stop`` (list), ``tool_choice``; what a model server doesn't know is left out.
    options: Mapping[str, Any] = field(default_factory=dict)


class ToolStatus(StrEnum):
    OK = "ok"
    ERROR = "error"
    #: The daemon ended it at the drain's deadline.
    INTERRUPTED = "interrupted"
    DENIED = "denied"


@frozen
class ToolOutcome:
    status: ToolStatus
    #: What the model reads.
    text: str
    proposal: Proposal | None = None


@frozen
class CallContext:
    """Where and how a tool call runs."""

    session_id: SessionId
    turn_id: TurnId
    #: It was started before, is idempotent, and nobody knows how it ended.
    again: bool
    #: What a person was shown and has granted, None where nobody was asked.
    granted: str | None
