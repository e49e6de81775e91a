"""What a turn does next, read from its durable events alone; and what becomes of an interrupted one.

Pure. Think of a turn as a program whose only memory is its event log. :func:`read_turn` folds the
log into a :class:`Standing`; :func:`plan_next` names the one thing to do; doing it appends events in
one commit, and the question is asked again. A process that was killed anywhere and one that never
stopped therefore walk the same road.

Two things can be under way without an end in the log. A model call leaves no trace before its reply
is whole, so it is repeated, and ``step.retry`` says so first. A tool call leaves ``tool.started``:
with no end it is issued again under the same id only if it was declared idempotent then and is
still; otherwise its outcome is unknown and stays so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from netclawd.core.session import (
    ApprovalId,
    CallId,
    EventType,
    NewEvent,
    ParkReason,
    SessionEvent,
    ToolCall,
    ToolStatus,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.values import frozen


class ToolRules(Protocol):
    """What the plan must know of a tool; :class:`netclawd.ports.Tool` has it."""

    def idempotent(self, call: ToolCall) -> bool: ...
    def question(self, call: ToolCall) -> str | None: ...


# -- what can be next --------------------------------------------------------------------------


class Next:
    """Base of all next things."""

    __slots__ = ()


@frozen
class Start(Next):
    """Commit ``turn.started``: nobody has worked on it yet."""


@frozen
class TakeUp(Next):
    """Commit ``turn.resumed``: the person it waited for has decided."""


@frozen
class Retry(Next):
    """Commit ``step.retry``: the step's model call is about to be made again."""

    step: int
    #: The new attempt, from 2.
    attempt: int
    #: restart, crash or request.
    reason: str


@frozen
class CallModel(Next):
    step: int
    attempt: int


@frozen
class RunTool(Next):
    step: int
    call: ToolCall
    #: It was started before, is idempotent, and nobody knows how it ended.
    again: bool


@frozen
class Unknown(Next):
    """Commit ``tool.unknown``: the call was started and may or may not have had its effect."""

    step: int
    call: ToolCall


@frozen
class Deny(Next):
    """Commit ``tool.finished`` with status denied: a person said no, or nobody answered in time."""

    step: int
    call: ToolCall


@frozen
class AskApproval(Next):
    """Commit the question and park the turn."""

    step: int
    call: ToolCall
    question: str


@frozen
class Wait(Next):
    """Nothing to do until a person acts."""

    reason: ParkReason


@frozen
class Deliver(Next):
    """Send the reply, which the outbox holds since the commit of ``model.completed``."""

    text: str


@frozen
class Complete(Next):
    """Commit ``turn.completed``."""

    steps: int


@frozen
class Ended(Next):
    """The turn has ended."""


#: What a drain lets begin no more; everything else only writes down what is known already.
STARTS_WORK = (CallModel, Retry, RunTool)
#: What a turn that is to be parked doesn't come to: a question would park it for another reason.
PARKS_BEFORE = (*STARTS_WORK, AskApproval)

_ENDS = (EventType.TURN_COMPLETED, EventType.TURN_FAILED, EventType.TURN_CANCELLED)


# -- where a turn stands -----------------------------------------------------------------------


@dataclass(slots=True)
class Standing:
    """A turn's events, folded."""

    started: bool = False
    ended: bool = False
    delivered: bool = False
    #: Model calls completed.
    steps: int = 0
    #: Attempt of the step that comes next.
    attempt: int = 1
    #: Why the model call of that step, which may have begun, must be announced as repeated.
    cut: str | None = None
    #: Why it was resumed last.
    resumed: str | None = None
    #: Text and calls of the newest reply.
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    #: Calls of that reply that were started: whether as idempotent.
    begun: dict[CallId, bool] = field(default_factory=dict)
    #: Calls of that reply that the model has an answer to.
    answered: set[CallId] = field(default_factory=set)
    #: Questions asked about calls of that reply.
    asked: dict[CallId, ApprovalId] = field(default_factory=dict)
    #: Their words.
    questions: dict[CallId, str] = field(default_factory=dict)
    granted: set[CallId] = field(default_factory=set)
    refused: set[CallId] = field(default_factory=set)
    parked: ParkReason | None = None
    #: The event that was folded last.
    newest: SessionEvent | None = None

    @property
    def open_call(self) -> ToolCall | None:
        """The first call without an answer; calls are made one after the other."""
        return next((call for call in self.calls if call.id not in self.answered), None)

    @property
    def pending_approval(self) -> tuple[ApprovalId, CallId] | None:
        """The question that nobody has answered yet."""
        for call_id, approval_id in self.asked.items():
            if call_id not in self.granted | self.refused:
                return approval_id, call_id
        return None

    @property
    def model_is_next(self) -> bool:
        return self.started and self.open_call is None and not (self.steps and not self.calls)


def read_turn(events: Sequence[SessionEvent]) -> Standing:
    """Fold one turn's events, in order."""
    standing = Standing()
    for event in events:
        take_event(standing, event)
    return standing


def take_event(standing: Standing, event: SessionEvent) -> None:
    """Fold one more event, in place: a long turn isn't read again for each of its steps."""
    data = event.data
    match event.type:
        case EventType.TURN_STARTED:
            standing.started = True
        case EventType.MODEL_COMPLETED:
            _take_reply(standing, event)
        case EventType.STEP_RETRY:
            standing.attempt, standing.cut = data["attempt"], None
        case EventType.TOOL_STARTED:
            standing.begun[data["call_id"]] = data["idempotent"]
        case EventType.TOOL_FINISHED | EventType.TOOL_UNKNOWN:
            standing.answered.add(data["call_id"])
        case EventType.APPROVAL_REQUESTED:
            standing.asked[data["call_id"]] = data["approval_id"]
            standing.questions[data["call_id"]] = data["question"]
        case EventType.APPROVAL_GRANTED:
            standing.granted.add(data["call_id"])
        case EventType.APPROVAL_DENIED | EventType.APPROVAL_EXPIRED:
            standing.refused.add(data["call_id"])
        case EventType.TURN_INTERRUPTED:
            cause = "crash" if data["cause"] == "crash" else "restart"
            _take_stop(standing, event, cause)
        case EventType.TURN_PARKED:
            standing.parked = ParkReason(data["reason"])
            _take_stop(standing, event, "request")
        case EventType.TURN_RESUMED:
            standing.parked, standing.resumed = None, data["cause"]
        case EventType.REPLY_SENT:
            standing.delivered = True
        case _ if event.type in _ENDS:
            standing.ended = True
    standing.newest = event


def _take_reply(standing: Standing, event: SessionEvent) -> None:
    standing.steps = event.data["step"]
    standing.text = event.data["text"]
    standing.calls = tuple(
        ToolCall(CallId(call["id"]), call["name"], call["arguments"], call.get("invalid", ""))
        for call in event.data["calls"]
    )
    standing.attempt, standing.cut = 1, None
    for seen in (standing.asked, standing.questions, standing.begun, standing.answered):
        seen.clear()
    standing.granted, standing.refused = set(), set()


def _take_stop(standing: Standing, event: SessionEvent, cause: str) -> None:
    """Note that a model call may have been under way: it was next, and it is not known that it wasn't."""
    before = standing.newest
    tool_was_cut = (
        before is not None
        and before.type is EventType.TOOL_FINISHED
        and before.data["status"] == ToolStatus.INTERRUPTED
    )
    if event.data.get("state") == "cut" and standing.model_is_next and not tool_was_cut:
        standing.cut = cause


# -- the plan ----------------------------------------------------------------------------------


def plan_next(events: Sequence[SessionEvent], tools: Mapping[str, ToolRules]) -> Next:
    """Name the one next thing; doing it and asking again leads to the end of the turn."""
    return plan_from(read_turn(events), tools)


def plan_from(standing: Standing, tools: Mapping[str, ToolRules]) -> Next:
    """Do as :func:`plan_next` from events that have been folded."""
    if standing.ended:
        return Ended()
    if standing.parked is not None:
        return _plan_parked(standing, standing.parked)
    if not standing.started:
        return Start()
    if (call := standing.open_call) is not None:
        return _plan_call(standing, call, tools.get(call.name))
    if standing.model_is_next:
        step = standing.steps + 1
        if standing.cut is not None:
            return Retry(step, standing.attempt + 1, standing.cut)
        return CallModel(step, standing.attempt)
    return Complete(standing.steps) if standing.delivered else Deliver(standing.text)


def _plan_parked(standing: Standing, reason: ParkReason) -> Next:
    if reason is ParkReason.APPROVAL and standing.pending_approval is None:
        return TakeUp()
    return Wait(reason)


def _plan_call(standing: Standing, call: ToolCall, rules: ToolRules | None) -> Next:
    step = standing.steps
    if call.id in standing.begun:
        if standing.begun[call.id] and rules is not None and rules.idempotent(call):
            return RunTool(step, call, again=True)
        return Unknown(step, call)
    if call.id in standing.refused:
        return Deny(step, call)
    if call.id in standing.asked:
        granted = call.id in standing.granted
        return RunTool(step, call, again=False) if granted else Wait(ParkReason.APPROVAL)
    question = rules.question(call) if rules is not None else None
    return (
        RunTool(step, call, again=False) if question is None else AskApproval(step, call, question)
    )


def call_id(turn_id: TurnId, step: int, number: int) -> CallId:
    """Name the ``number``-th call (from 1) of a step: one identity however often it is issued."""
    return CallId(f"{turn_id}-{step}-{number}")


def plan_cancel(standing: Standing, by: str) -> tuple[NewEvent, ...]:
    """Return the events that end a turn at a person's wish; no call is left without a word."""
    closing: list[NewEvent] = []
    if (pending := standing.pending_approval) is not None:
        asked = {"approval_id": pending[0], "call_id": pending[1], "by": by}
        closing.append(NewEvent(EventType.APPROVAL_EXPIRED, asked))
    call = standing.open_call
    if call is not None and call.id in standing.begun:
        data = {"step": standing.steps, "call_id": call.id, "name": call.name}
        closing.append(NewEvent(EventType.TOOL_UNKNOWN, data))
    return (*closing, NewEvent(EventType.TURN_CANCELLED, {"by": by}))


# -- the judgement of an interrupted turn --------------------------------------------------------


@frozen
class Limits:
    #: Resumes of one turn before it is parked.
    resumes: int
    #: Seconds after the first interruption in which a turn is resumed by itself.
    deadline_s: float


@frozen
class Resume:
    """Go on from the last checkpoint."""


@frozen
class Park:
    """Leave it to a person."""

    reason: ParkReason


@frozen
class Leave:
    """Not interrupted: it is queued, waits for a person already, or has ended."""


def judge_interrupted(turn: Turn, now: float, limits: Limits) -> Resume | Park | Leave:
    """Judge a turn that no living worker holds; ``now`` is wall clock."""
    if turn.state not in (TurnState.RUNNING, TurnState.INTERRUPTED):
        return Leave()
    if turn.resumes >= limits.resumes:
        return Park(ParkReason.RESUME_LIMIT)
    if now > resume_deadline(turn.interrupted_at, now, limits):
        return Park(ParkReason.RESUME_DEADLINE)
    return Resume()


def is_suspect(turn: Turn, limits: Limits) -> bool:
    """Whether a turn that ran at a crash is resumed for the last time, having been resumed before.

    Such turns run one at a time: the one that ends the daemon then uses up its own last resume, and
    not that of all which happened to run beside it.
    """
    return 0 < turn.resumes == limits.resumes - 1


def resume_deadline(interrupted_at: float | None, now: float, limits: Limits) -> float:
    """Return the wall clock until which a turn first interrupted then, or now, is resumed."""
    return (now if interrupted_at is None else interrupted_at) + limits.deadline_s
