"""The tool ``confirm``: asks a person and does nothing else."""

from __future__ import annotations

from netclawd.core.session import ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel


class ConfirmTool:
    name = "confirm"

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def question(self, call: ToolCall) -> str | None:
        asked = call.arguments.get("question")
        return asked if isinstance(asked, str) and asked.strip() else "May the agent go on?"

    def run(self, call: ToolCall, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        return ToolOutcome(ToolStatus.OK, "granted")
