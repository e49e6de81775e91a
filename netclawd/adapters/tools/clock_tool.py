"""The tool ``clock``: reads the clock port, and has no effect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel, Clock


class ClockTool:
    name = "clock"
    description = "Tell the date and time, in UTC."
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def describe(self, call: ToolCall) -> str:  # noqa: ARG002 - the port's
        return "Look at the clock."

    def refusal(self, call: ToolCall) -> str | None:  # noqa: ARG002 - the port's
        return None

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        return ToolOutcome(ToolStatus.OK, now.isoformat(timespec="seconds"))

    def close(self) -> None:
        return
