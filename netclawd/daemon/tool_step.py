"""The tool calls of a step: start and end of each are checkpoints."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from netclawd.core import turn as plan
from netclawd.core.session import CallContext, EventType, ToolCall, ToolOutcome, ToolStatus
from netclawd.daemon.board import Doing, Kind
from netclawd.daemon.toolbox import GuardedTool
from netclawd.ports import Cancel, Cancelled

if TYPE_CHECKING:
    from netclawd.daemon.turn_run import TurnRun

_log = logging.getLogger(__name__)


class ToolStep:
    def __init__(self, run: TurnRun) -> None:
        self._run = run
        #: The tool that ran last was ended by us.
        self.was_cut = False

    def run(self, step: plan.RunTool) -> None:
        """Perform one call, from its start to its end."""
        call = step.call
        tool = self._run.parts.agent.tools.get(call.name)
        doing = Doing(Kind.TOOL, call.name, self._run.parts.clock.monotonic())
        cancel = self._run.board.begin(self._run, doing)
        if cancel is None:
            return
        try:
            data = {
                **about(step.step, call),
                "arguments": dict(call.arguments),
                "idempotent": tool is not None and tool.idempotent(call),
                "again": step.again,
            }
            self._run.commit(EventType.TOOL_STARTED, data)
            outcome = self._outcome(tool, step, cancel)
        finally:
            self._run.board.done(self._run)
        self.was_cut = outcome.status is ToolStatus.INTERRUPTED
        self.finish(step.step, call, outcome)

    def _outcome(self, tool: GuardedTool | None, step: plan.RunTool, cancel: Cancel) -> ToolOutcome:
        call, lease = step.call, self._run.leased()
        granted = self._run.standing.questions.get(call.id)
        context = CallContext(lease.session_id, lease.turn_id, step.again, granted)
        if tool is None:
            return ToolOutcome(ToolStatus.ERROR, "There is no tool of that name.")
        try:
            return tool.run(call, context, cancel)
        except Cancelled:
            return ToolOutcome(ToolStatus.INTERRUPTED, "The daemon ended the call.")
        except Exception as error:  # noqa: BLE001 - a tool's defect is an answer that the model can work with
            _log.exception("tool met a defect", extra={**self._run.ids(), "CALL_ID": call.id})
            return ToolOutcome(ToolStatus.ERROR, f"The tool failed ({type(error).__name__}).")

    def finish(self, step: int, call: ToolCall, outcome: ToolOutcome) -> None:
        """Commit how a call ended."""
        data = {**about(step, call), "status": outcome.status.value, "text": outcome.text}
        self._run.commit(EventType.TOOL_FINISHED, data)


def about(step: int, call: ToolCall) -> dict[str, Any]:
    """Return what every event about a call says of it."""
    return {"step": step, "call_id": call.id, "name": call.name}
