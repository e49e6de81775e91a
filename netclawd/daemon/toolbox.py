"""A tool under its policy: what the plan asks of it, and what a run of a turn calls.

The policy is judged again when a granted call runs: what was denied meanwhile is not run.
"""

from __future__ import annotations

from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolSpec, ToolStatus
from netclawd.core.settings import Policy
from netclawd.ports import Cancel, Tool


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
        return self._tool.idempotent(call)

    def question(self, call: ToolCall) -> str | None:
        """Return what a person must grant first, None when the call may run, or fail, at once."""
        if self._policy is not Policy.ASK or call.invalid or self._tool.refusal(call) is not None:
            return None
        return self._tool.describe(call)

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        if self._policy is Policy.DENY:
            return ToolOutcome(ToolStatus.DENIED, "This daemon's policy denies the tool.")
        if call.invalid:
            return ToolOutcome(ToolStatus.ERROR, f"The call can't be made: {call.invalid}")
        return self._tool.run(call, context, cancel)

    def close(self) -> None:
        self._tool.close()
