"""The tool ``clock``: reads the clock port, and has no effect."""

from __future__ import annotations

from datetime import UTC, datetime

from netclawd.core.session import ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel, Clock


class ClockTool:
    name = "clock"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def question(self, call: ToolCall) -> str | None:  # noqa: ARG002 - the port's
        return None

    def run(self, call: ToolCall, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        return ToolOutcome(ToolStatus.OK, now.isoformat(timespec="seconds"))
