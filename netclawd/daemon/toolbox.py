"""A tool under its policy: what the plan asks of it, and what a run of a turn calls.

The policy is judged again when a granted call runs: what was denied meanwhile is not run.
"""

from __future__ import annotations

import json
import logging

from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolSpec, ToolStatus
from netclawd.core.settings import Policy
from netclawd.ports import Cancel, Tool

_log = logging.getLogger(__name__)


class GuardedTool:
    """Implements :class:`netclawd.core.turn.ToolRules`."""

    def __init__(self, tool: Tool, policy: Policy) -> None:
        self._tool = tool
        self._policy = policy

    @property
    def spec(self) -> ToolSpec | None:
        """What a model is told of it; None where the policy denies it."""
        if self._policy is Policy.DENY:
            return None
        return ToolSpec(self._tool.name, self._tool.description, self._tool.parameters)

    def idempotent(self, call: ToolCall) -> bool:
        """Whether the call may be issued again; one that is denied by now may not."""
        if self._policy is Policy.DENY:
            return False
        try:
            return self._tool.idempotent(call)
        except Exception:  # noqa: BLE001 - what a model may have put into a call must not end its turn
            _log.exception("tool met a defect", extra={"CALL_ID": call.id})
            return False

    def refusal(self, call: ToolCall) -> ToolOutcome | None:
        """Return the answer to a call that is not run, whatever a person says."""
        if self._policy is Policy.DENY:
            return ToolOutcome(ToolStatus.DENIED, "This daemon's policy denies the tool.")
        if call.invalid:
            return ToolOutcome(ToolStatus.ERROR, f"The call can't be made: {call.invalid}")
        return None

    def question(self, call: ToolCall) -> str | None:
        """Return what a person must grant first, None when the call may run, or fail, at once."""
        if self._policy is not Policy.ASK:
            return None
        try:
            return self._tool.describe(call) if self._tool.refusal(call) is None else None
        except Exception:  # noqa: BLE001 - as above; whoever grants it sees the call itself
            _log.exception("tool met a defect", extra={"CALL_ID": call.id})
            return f"{call.name} {json.dumps(dict(call.arguments))}"

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        if (refused := self.refusal(call)) is not None:
            return refused
        asked = context.granted is not None or context.again
        if self._policy is Policy.ASK and not asked:
            # It was not to be asked about when it was planned; a call that can be made now is.
            why = self._tool.refusal(call) or "A person must be asked first: make the call again."
            return ToolOutcome(ToolStatus.ERROR, why)
        return self._tool.run(call, context, cancel)

    def close(self) -> None:
        self._tool.close()
