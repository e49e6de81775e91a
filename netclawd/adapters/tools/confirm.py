"""The tool ``confirm``: asks a person and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel


class ConfirmTool:
    name = "confirm"
    description = "Ask a person a question; the call succeeds when they say yes."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
    }

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def describe(self, call: ToolCall) -> str:
        asked = call.arguments.get("question")
        return asked if isinstance(asked, str) and asked.strip() else "May the agent go on?"

    def refusal(self, call: ToolCall) -> str | None:  # noqa: ARG002 - the port's
        return None

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        return ToolOutcome(ToolStatus.OK, "granted")

    def close(self) -> None:
        return
