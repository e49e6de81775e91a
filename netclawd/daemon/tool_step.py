"""The tool calls of a step: start and end of each are checkpoints, and they run beside each other.

A batch is what the plan lets run of one reply. It has one Cancel: a drain's deadline, a person who
parks or cancels the turn, and an error that ends the run, stop all of it. Each call that has begun
gets its end written by whoever ran it; what has not begun when the batch is to stop never begins, and
is planned again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from netclawd.core import turn as plan
from netclawd.core.session import (
    CallContext,
    Change,
    EventType,
    NewEvent,
    ProposalChange,
    ToolCall,
    ToolOutcome,
    ToolStatus,
)
from netclawd.core.transcript import ABSENT_TEXT
from netclawd.daemon.board import Doing, Kind
from netclawd.ports import Cancel, Cancelled

if TYPE_CHECKING:
    from netclawd.daemon.turn_run import TurnRun

_log = logging.getLogger(__name__)

#: Calls of one turn that run at the same time.
MOST_AT_ONCE = 8


class ToolStep:
    def __init__(self, run: TurnRun) -> None:
        self._run = run

    def run(self, step: plan.RunTools) -> None:
        """Perform the calls, each from its start to its end."""
        batch = self.begin(step)
        if batch is None:
            return
        try:
            batch.run()
        finally:
            self._run.board.done(self._run)

    def begin(self, step: plan.RunTools) -> Batch | None:
        """Tell the board, and return what is to be run; None when nothing may begin."""
        names = ", ".join(dict.fromkeys(planned.call.name for planned in step.calls))
        doing = Doing(Kind.TOOL, names, self._run.parts.clock.monotonic())
        cancel = self._run.board.begin(self._run, doing)
        return None if cancel is None else Batch(self._run, step, cancel)


class Batch:
    """Calls of one reply that run beside each other."""

    def __init__(self, run: TurnRun, step: plan.RunTools, cancel: Cancel) -> None:
        self._run = run
        self._step = step.step
        self._cancel = cancel
        self._lock = threading.Lock()
        self._left = deque(step.calls)
        #: What ended the run for all of them.
        self._error: BaseException | None = None

    def run(self) -> None:
        """Return when no call runs any more; raise what ended the run."""
        threads = []
        for number in range(2, min(MOST_AT_ONCE, len(self._left)) + 1):
            try:
                threads.append(self._run.parts.spawn(f"tool-{number}", self._work))
            except RuntimeError:
                break  # No thread to be had: those that there are make all calls.
        self._work()
        for thread in threads:
            # As a tool's call itself: bounded by its own limits, and by the drain's deadlines.
            thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (planned := self.take()) is not None:
                self.start(planned)
                self.finish(planned.call, self.perform(planned))
        except BaseException as error:  # noqa: BLE001 - the worker raises it when all have ended
            with self._lock:
                self._error = self._error or error
                self._left.clear()
            self._run.cancel.set()

    def take(self) -> plan.PlannedCall | None:
        """Return the next call to be made, None when none is left or none may begin any more."""
        if not self._run.board.goes_on(self._run):
            return None
        with self._lock:
            return self._left.popleft() if self._left else None

    def start(self, planned: plan.PlannedCall) -> None:
        """Commit that the call begins. Crash: from here on it may have had its effect."""
        call = planned.call
        tool = self._run.parts.agent.tools.get(call.name)
        data = {
            **about(self._step, call),
            "arguments": dict(call.arguments),
            "idempotent": tool is not None and tool.idempotent(call),
            "again": planned.again,
        }
        self._run.commit(EventType.TOOL_STARTED, data)

    def perform(self, planned: plan.PlannedCall) -> ToolOutcome:
        """Make the call; a defect of the tool is an answer, too."""
        call, run, lease = planned.call, self._run, self._run.leased()
        tool = run.parts.agent.tools.get(call.name)
        granted = run.standing.questions[call.id] if call.id in run.standing.granted else None
        context = CallContext(lease.session_id, lease.turn_id, planned.again, granted)
        if tool is None:
            return ToolOutcome(ToolStatus.ERROR, ABSENT_TEXT.format(call.name))
        try:
            return tool.run(call, context, self._cancel)
        except Cancelled:
            return ToolOutcome(ToolStatus.INTERRUPTED, "The daemon ended the call.")
        except Exception as error:  # noqa: BLE001 - a tool's defect is an answer that the model can work with
            _log.exception("tool met a defect", extra={**run.ids(), "CALL_ID": call.id})
            return ToolOutcome(ToolStatus.ERROR, f"The tool failed ({type(error).__name__}).")

    def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Commit how the call ended."""
        finish(self._run, self._step, call, outcome)


def finish(run: TurnRun, step: int, call: ToolCall, outcome: ToolOutcome) -> None:
    """Commit what the model is told of a call; secrets are taken out of it first."""
    redact = run.parts.agent.redact
    text = redact(outcome.text)
    data = {**about(step, call), "status": outcome.status.value, "text": text}
    proposal = None
    if outcome.proposal is not None:
        data["proposal"] = {"changes": _redacted(outcome.proposal.changes, redact)}
        proposal = ProposalChange(call.id, outcome.proposal)
    event = NewEvent(EventType.TOOL_FINISHED, data)
    run.write(Change(run.leased(), (event,), proposal=proposal))


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _redacted(inner, redact) for key, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(entry, redact) for entry in value]
    return redact(value) if isinstance(value, str) else value


def about(step: int, call: ToolCall) -> dict[str, Any]:
    """Return what every event about a call says of it."""
    return {"step": step, "call_id": call.id, "name": call.name}
