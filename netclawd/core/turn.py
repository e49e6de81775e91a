"""What a turn does next, read from its durable events alone; and what becomes of an interrupted one.

Pure. Think of a turn as a program whose only memory is its event log. :func:`read_turn` folds the
log into a :class:`Standing`; :func:`plan_next` names the one thing to do; doing it appends events in
one commit, and the question is asked again. A process that was killed anywhere and one that never
stopped therefore walk the same road.

Two things can be under way without an end in the log. A model call leaves no trace before its reply
is whole, so it is repeated, and ``step.retry`` says so first. A tool call leaves ``tool.started``:
with no end it is issued again under the same id only if it was declared idempotent then and is
still; otherwise its outcome is unknown and stays so.

The calls of one reply are one batch. All questions about them are asked in one commit, which parks
the turn at once; when each has its answer, what may run runs beside each other. A batch that was
interrupted anywhere goes on with the calls that have no answer yet.
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
    ToolOutcome,
    ToolStatus,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.transcript import ABSENT_TEXT, DENIED_TEXT, EXPIRED_TEXT, read_calls
from netclawd.core.values import frozen


class ToolRules(Protocol):
    """What the plan must know of a tool; :class:`netclawd.daemon.toolbox.GuardedTool` has it."""

    def idempotent(self, call: ToolCall) -> bool: ...
    def refusal(self, call: ToolCall) -> ToolOutcome | None:
        """Return the answer to a call that is not to run, whatever a person says."""

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
class PlannedCall:
    """A call that is to run."""

    call: ToolCall
    #: It was started before, is idempotent, and nobody knows how it ended.
    again: bool


@frozen
class RunTools(Next):
    """Run these calls beside each other; what has not begun when a drain comes is planned again."""

    step: int
    calls: tuple[PlannedCall, ...]


@frozen
class Unknown(Next):
    """Commit ``tool.unknown``: the call was started and may or may not have had its effect."""

    step: int
    call: ToolCall


@frozen
class Answer(Next):
    """Commit ``tool.finished`` for a call that is not run: refused, denied, or nobody answered in time."""

    step: int
    call: ToolCall
    outcome: ToolOutcome


@frozen
class AwaitOutcome(Next):
    """Wait until the daemon has said what became of the configuration that these calls have written."""

    calls: tuple[CallId, ...]


@frozen
class Question:
    call: ToolCall
    #: The call in full, for a person.
    text: str


@frozen
class Ask(Next):
    """Commit all questions of the reply and park the turn."""

    step: int
    questions: tuple[Question, ...]


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
STARTS_WORK = (CallModel, Retry, RunTools, AwaitOutcome)
#: What a turn that is to be parked doesn't come to: a question would park it for another reason.
PARKS_BEFORE = (*STARTS_WORK, Ask)

#: Why a turn failed that has made ``sessions.step_limit`` model calls.
STEP_LIMIT = "step-limit"

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
    #: The newest text that isn't blank, since a question was asked last.
    said: str = ""
    #: Calls of that reply that were started: whether as idempotent.
    begun: dict[CallId, bool] = field(default_factory=dict)
    #: Calls of that reply that the model has an answer to.
    answered: set[CallId] = field(default_factory=set)
    #: Questions asked about calls of that reply.
    asked: dict[CallId, ApprovalId] = field(default_factory=dict)
    #: Their words.
    questions: dict[CallId, str] = field(default_factory=dict)
    granted: set[CallId] = field(default_factory=set)
    #: What the model is told of those that were not granted.
    refused: dict[CallId, str] = field(default_factory=dict)
    #: The newest thing that happened is the end of calls, of which one was ended by the daemon.
    tool_was_cut: bool = False
    parked: ParkReason | None = None
    #: Calls that have written the configuration and whose outcome nobody has told, in their order.
    awaited: dict[CallId, None] = field(default_factory=dict)
    #: It was stopped last by a restart that came while it waited for such an outcome.
    own_restart: bool = False

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls of the newest reply that have no answer yet."""
        return tuple(call for call in self.calls if call.id not in self.answered)

    @property
    def pending_approvals(self) -> Mapping[CallId, ApprovalId]:
        """The questions that nobody has answered yet."""
        decided = self.granted | self.refused.keys()
        return {call: asked for call, asked in self.asked.items() if call not in decided}

    @property
    def model_is_next(self) -> bool:
        return self.started and not self.open_calls and not (self.steps and not self.calls)


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
        case EventType.TOOL_STARTED | EventType.TOOL_FINISHED | EventType.TOOL_UNKNOWN:
            _take_call(standing, event)
        case (
            EventType.APPROVAL_REQUESTED
            | EventType.APPROVAL_GRANTED
            | EventType.APPROVAL_DENIED
            | EventType.APPROVAL_EXPIRED
        ):
            _take_question(standing, event)
        case EventType.CONFIG_OUTCOME:
            standing.awaited.pop(data["call_id"], None)
            return  # Another thread's word, which may come between any two of the run's.
        case EventType.TURN_INTERRUPTED:
            cause = "crash" if data["cause"] == "crash" else "restart"
            standing.own_restart = bool(standing.awaited) and cause != "crash"
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
    if event.type not in (EventType.TOOL_FINISHED, EventType.TOOL_UNKNOWN):
        standing.tool_was_cut = False


def _take_reply(standing: Standing, event: SessionEvent) -> None:
    standing.steps = event.data["step"]
    standing.text = event.data["text"]
    standing.said = standing.text if standing.text.strip() else standing.said
    standing.calls = read_calls(event)
    standing.attempt, standing.cut = 1, None
    for seen in (standing.asked, standing.questions, standing.begun, standing.refused):
        seen.clear()
    for done in (standing.answered, standing.granted):
        done.clear()


def _take_call(standing: Standing, event: SessionEvent) -> None:
    data = event.data
    if event.type is EventType.TOOL_STARTED:
        standing.begun[data["call_id"]] = data["idempotent"]
        return
    standing.answered.add(data["call_id"])
    if "proposal" in data:
        standing.awaited[data["call_id"]] = None
    if data.get("status") == ToolStatus.INTERRUPTED:
        standing.tool_was_cut = True


def _take_question(standing: Standing, event: SessionEvent) -> None:
    call = event.data["call_id"]
    match event.type:
        case EventType.APPROVAL_REQUESTED:
            standing.said = ""
            standing.asked[call] = event.data["approval_id"]
            standing.questions[call] = event.data["question"]
        case EventType.APPROVAL_GRANTED:
            standing.granted.add(call)
        case EventType.APPROVAL_DENIED:
            standing.refused[call] = DENIED_TEXT
        case _:
            standing.refused[call] = EXPIRED_TEXT


def _take_stop(standing: Standing, event: SessionEvent, cause: str) -> None:
    """Note that a model call may have been under way: it was next, and it is not known that it wasn't."""
    if standing.awaited:
        return  # The call comes only behind the outcome.
    cut = event.data.get("state") == "cut" and not standing.tool_was_cut
    if cut and standing.model_is_next:
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
    if standing.open_calls:
        return _plan_calls(standing, tools)
    if standing.model_is_next:
        return _plan_model(standing)
    return Complete(standing.steps) if standing.delivered else Deliver(standing.text)


def _plan_parked(standing: Standing, reason: ParkReason) -> Next:
    if reason is ParkReason.APPROVAL and not standing.pending_approvals:
        return TakeUp()
    return Wait(reason)


def _plan_model(standing: Standing) -> Next:
    if standing.awaited:
        return AwaitOutcome(tuple(standing.awaited))
    step = standing.steps + 1
    if standing.cut is not None:
        return Retry(step, standing.attempt + 1, standing.cut)
    return CallModel(step, standing.attempt)


def _plan_calls(standing: Standing, tools: Mapping[str, ToolRules]) -> Next:
    """First say what is known, then ask all that must be asked, then run what may run."""
    for call in standing.open_calls:
        if (known := _plan_known(standing, call, tools.get(call.name))) is not None:
            return known
    if standing.pending_approvals:
        return Wait(ParkReason.APPROVAL)
    questions = tuple(
        Question(call, text)
        for call in standing.open_calls
        if call.id not in standing.begun and call.id not in standing.asked
        if (text := tools[call.name].question(call)) is not None
    )
    if questions:
        return Ask(standing.steps, questions)
    calls = tuple(PlannedCall(call, call.id in standing.begun) for call in standing.open_calls)
    return RunTools(standing.steps, calls)


def _plan_known(standing: Standing, call: ToolCall, rules: ToolRules | None) -> Next | None:
    """Return what the model is to be told of a call without running it, None: it may yet run."""
    if call.id in standing.begun:
        repeatable = standing.begun[call.id] and rules is not None and rules.idempotent(call)
        return None if repeatable else Unknown(standing.steps, call)
    if call.id in standing.refused:
        denied = ToolOutcome(ToolStatus.DENIED, standing.refused[call.id])
        return Answer(standing.steps, call, denied)
    if call.id in standing.pending_approvals:
        return None  # Its answer comes first, so that no question is left behind.
    absent = ToolOutcome(ToolStatus.ERROR, ABSENT_TEXT.format(call.name))
    refusal = absent if rules is None else rules.refusal(call)
    return None if refusal is None else Answer(standing.steps, call, refusal)


def call_id(turn_id: TurnId, step: int, number: int) -> CallId:
    """Name the ``number``-th call (from 1) of a step: one identity however often it is issued."""
    return CallId(f"{turn_id}-{step}-{number}")


def plan_cancel(standing: Standing, by: str) -> tuple[NewEvent, ...]:
    """Return the events that end a turn at a person's wish; no question and no started call is left."""
    questions = [
        NewEvent(EventType.APPROVAL_EXPIRED, {"approval_id": asked, "call_id": call, "by": by})
        for call, asked in standing.pending_approvals.items()
    ]
    unknown = [
        NewEvent(
            EventType.TOOL_UNKNOWN,
            {"step": standing.steps, "call_id": call.id, "name": call.name},
        )
        for call in standing.open_calls
        if call.id in standing.begun
    ]
    return (*questions, *unknown, NewEvent(EventType.TURN_CANCELLED, {"by": by}))


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

    #: Whether it is one of the turn's resumes; not when the turn was stopped by a restart whose outcome
    #: it waits for: an agent may change the configuration as often as it is let.
    counted: bool = True


@frozen
class Park:
    """Leave it to a person."""

    reason: ParkReason


@frozen
class Leave:
    """Not interrupted: it is queued, waits for a person already, or has ended."""


def judge_interrupted(
    turn: Turn, now: float, limits: Limits, *, awaiting: bool = False
) -> Resume | Park | Leave:
    """Judge a turn that no living worker holds; ``now`` is wall clock.

    ``awaiting``: it waits for the outcome of a configuration that it has written. A drain that stopped
    it there has done what the turn asked for, and is not held against it; a crash is.
    """
    if turn.state not in (TurnState.RUNNING, TurnState.INTERRUPTED):
        return Leave()
    if awaiting and turn.state is TurnState.INTERRUPTED:
        return Resume(counted=False)
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
