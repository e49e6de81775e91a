"""A turn played on paper: what an engine would commit for each next thing, event by event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netclawd.core import turn
from netclawd.core.session import (
    EventType,
    ParkReason,
    SessionEvent,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    TurnId,
)

SESSION, TURN = SessionId("s1"), TurnId("t1")
Row = tuple[EventType, dict[str, Any]]


def stamp(rows: Sequence[Row], after: int = 0) -> list[SessionEvent]:
    return [
        SessionEvent(SESSION, after + n, type_, float(n), TURN, data)
        for n, (type_, data) in enumerate(rows, 1)
    ]


@dataclass(frozen=True)
class PaperTool:
    safe: bool = False
    asks: bool = False
    refuses: bool = False

    def idempotent(self, call: ToolCall) -> bool:
        return self.safe

    def refusal(self, call: ToolCall) -> ToolOutcome | None:
        return ToolOutcome(ToolStatus.ERROR, "never") if self.refuses else None

    def question(self, call: ToolCall) -> str | None:
        return "May I?" if self.asks else None


TOOLS: Mapping[str, turn.ToolRules] = {
    "once": PaperTool(),
    "safe": PaperTool(safe=True),
    "ask": PaperTool(asks=True),
    "never": PaperTool(refuses=True, asks=True),
    #: Writes the configuration: its outcome is told later.
    "writes": PaperTool(safe=True),
}

#: In which order the calls of a batch begin and end: each number comes twice.
Order = Callable[[int], Sequence[int]]


def together(calls: int) -> Sequence[int]:
    """All begin, then all end, the last first."""
    return [*range(calls), *reversed(range(calls))]


def in_turn(calls: int) -> Sequence[int]:
    return [number for number in range(calls) for _ in range(2)]


YES, NO, LATE = EventType.APPROVAL_GRANTED, EventType.APPROVAL_DENIED, EventType.APPROVAL_EXPIRED


@dataclass
class Play:
    """Plays a turn whose model asks for these tools step by step, then answers.

    ``events`` is the durable log; ``effects`` is what the world saw, in order, which no crash undoes.
    """

    plan: tuple[tuple[str, ...], ...]
    #: What comes of the questions, one after the other and from the start again.
    decisions: tuple[EventType, ...] = (YES,)
    order: Order = together
    events: list[SessionEvent] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.events:
            self.commit((EventType.INPUT_ADMITTED, {"text": "go", "input_id": "i1"}))

    def commit(self, *rows: Row) -> None:
        self.events += stamp(rows, len(self.events))

    def advance(self) -> turn.Next:
        """Do one next thing and commit it; what happens in the world happens before the commit."""
        step = turn.plan_next(self.events, TOOLS)
        match step:
            case turn.Start():
                self.commit((EventType.TURN_STARTED, {"generation": 1}))
            case turn.TakeUp():
                self.commit((EventType.TURN_RESUMED, {"cause": "approval"}))
            case turn.Retry():
                data = {"step": step.step, "attempt": step.attempt, "reason": step.reason}
                self.commit((EventType.STEP_RETRY, data))
            case turn.CallModel():
                self._model(step)
            case turn.RunTools():
                self._tools(step)
            case turn.Unknown():
                self.commit((EventType.TOOL_UNKNOWN, self._about(step.step, step.call)))
            case turn.Answer():
                about = self._about(step.step, step.call)
                data = {**about, "status": step.outcome.status.value, "text": step.outcome.text}
                self.commit((EventType.TOOL_FINISHED, data))
            case turn.Ask():
                self._ask(step)
            case turn.Wait():
                self._decide()
            case turn.AwaitOutcome():
                self.commit((EventType.CONFIG_OUTCOME, {"call_id": step.calls[0]}))
            case turn.Deliver():
                self.commit((EventType.REPLY_SENT, {"text": step.text, "receipt": "1"}))
            case turn.Complete():
                self.commit((EventType.TURN_COMPLETED, {"steps": step.steps}))
        return step

    def _about(self, step: int, call: ToolCall) -> dict[str, Any]:
        return {"step": step, "call_id": call.id, "name": call.name}

    def _model(self, step: turn.CallModel) -> None:
        self.effects.append(f"model {step.step}")
        names = self.plan[step.step - 1] if step.step <= len(self.plan) else ()
        calls = [
            {"id": turn.call_id(TURN, step.step, n), "name": name, "arguments": {}}
            for n, name in enumerate(names, 1)
        ]
        finish = "tool_calls" if calls else "stop"
        data = {"step": step.step, "attempt": step.attempt, "text": "x"}
        self.commit((EventType.MODEL_COMPLETED, {**data, "finish": finish, "calls": calls}))

    def _tools(self, step: turn.RunTools) -> None:
        begun: set[int] = set()
        for number in self.order(len(step.calls)):
            call = step.calls[number].call
            about = self._about(step.step, call)
            if number in begun:
                wrote = {"proposal": {"changes": dict[str, Any]()}} if call.name == "writes" else {}
                done = {**about, "status": "ok", "text": "done", **wrote}
                self.commit((EventType.TOOL_FINISHED, done))
                continue
            begun.add(number)
            safe = TOOLS[call.name].idempotent(call)
            start = {"arguments": {}, "idempotent": safe, "again": step.calls[number].again}
            self.commit((EventType.TOOL_STARTED, {**about, **start}))
            self.effects.append(f"tool {call.id}")

    def _ask(self, step: turn.Ask) -> None:
        asked = [
            (
                EventType.APPROVAL_REQUESTED,
                {"approval_id": f"a-{q.call.id}", "call_id": q.call.id, "question": q.text},
            )
            for q in step.questions
        ]
        self.commit(*asked, (EventType.TURN_PARKED, {"reason": "approval"}))

    def _decide(self) -> None:
        """Answer the first question that is open."""
        decided = sum(event.type in (YES, NO, LATE) for event in self.events)
        call, asked = next(iter(turn.read_turn(self.events).pending_approvals.items()))
        data = {"approval_id": asked, "call_id": call, "by": "uid 0"}
        self.commit((self.decisions[decided % len(self.decisions)], data))

    def finish(self) -> list[SessionEvent]:
        for _ in range(200):
            if isinstance(self.advance(), turn.Ended):
                return self.events
        raise AssertionError("the turn does not end")


def interrupt(play: Play, state: str = "cut", cause: str = "crash") -> None:
    """What the next generation writes about a turn that was running."""
    standing = turn.read_turn(play.events)
    if standing.started and not standing.ended and standing.parked is None:
        play.commit(
            (EventType.TURN_INTERRUPTED, {"cause": cause, "restart_id": "r1", "state": state}),
            (EventType.RESTART, {"cause": cause, "restart_id": "r1", "trigger": "boot"}),
            (EventType.TURN_RESUMED, {"cause": cause, "generation": 2, "resumes": 1}),
        )


def park(play: Play, state: str) -> None:
    """What is written about a turn that a person parks and resumes, whatever it was doing."""
    standing = turn.read_turn(play.events)
    if not standing.ended and standing.parked is None:
        play.commit((EventType.TURN_PARKED, {"reason": "request", "by": "uid 0", "state": state}))
        assert turn.plan_next(play.events, TOOLS) == turn.Wait(ParkReason.REQUEST)
        play.commit((EventType.TURN_RESUMED, {"cause": "request", "generation": 1, "resumes": 0}))
