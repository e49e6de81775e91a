"""The tools, and the ledger's file as a crash or a second writer leaves it."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from netclawd.adapters.tools.clock_tool import ClockTool
from netclawd.adapters.tools.confirm import ConfirmTool
from netclawd.adapters.tools.ledger import LedgerTool
from netclawd.core.session import (
    CallContext,
    CallId,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    TurnId,
)
from netclawd.daemon.board import CancelFlag
from tests.waiting import scaled

CONTEXT = CallContext(SessionId("s"), TurnId("t"), again=False, granted=None)


def _cancelled() -> CancelFlag:
    cancel = CancelFlag()
    cancel.set()
    return cancel


def _call(call_id: str = "t-1-1", **arguments: object) -> ToolCall:
    return ToolCall(CallId(call_id), "ledger", arguments)


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerTool:
    return LedgerTool(str(tmp_path / "ledger.txt"))


def _lines(tmp_path: Path) -> str:
    return (tmp_path / "ledger.txt").read_text()


def test_the_clock_tool_reads_the_clock() -> None:
    class Clock:
        def monotonic(self) -> float:
            return 0.0

        def wall(self) -> float:
            return 1_700_000_000.0

    tool, call = ClockTool(Clock()), ToolCall(CallId("c"), "clock", {})
    assert tool.run(call, CONTEXT, CancelFlag()) == ToolOutcome(
        ToolStatus.OK, "2023-11-14T22:13:20+00:00"
    )
    assert tool.idempotent(call)
    assert tool.describe(call)


def test_confirm_asks_what_it_is_given() -> None:
    tool = ConfirmTool()
    call = ToolCall(CallId("c"), "confirm", {"question": "Go?"})
    assert tool.describe(call) == "Go?"
    assert tool.idempotent(call)
    assert tool.run(call, CONTEXT, CancelFlag()) == ToolOutcome(ToolStatus.OK, "granted")
    for odd in ({}, {"question": " "}, {"question": 3}):
        assert tool.describe(ToolCall(CallId("c"), "confirm", odd))


def test_the_ledger_appends_one_line_a_call(ledger: LedgerTool, tmp_path: Path) -> None:
    for call_id in ("a", "b", "a"):
        assert ledger.run(_call(call_id), CONTEXT, CancelFlag()).status is ToolStatus.OK
    assert _lines(tmp_path) == "a\nb\na\n"
    assert os.stat(tmp_path / "ledger.txt").st_mode & 0o777 == 0o600


def test_an_idempotent_call_has_one_effect(ledger: LedgerTool, tmp_path: Path) -> None:
    call = _call("a", idempotent=True)
    assert ledger.idempotent(call)
    assert not ledger.idempotent(_call("a"))
    first, again = ledger.run(call, CONTEXT, CancelFlag()), ledger.run(call, CONTEXT, CancelFlag())
    assert first.status is again.status is ToolStatus.OK
    assert first.text != again.text
    # An id that only begins like another is another.
    ledger.run(_call("aa", idempotent=True), CONTEXT, CancelFlag())
    ledger.run(_call("a-1", idempotent=True), CONTEXT, CancelFlag())
    assert _lines(tmp_path) == "a\naa\na-1\n"


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_torn_line_does_not_count_and_spoils_no_other(
    ledger: LedgerTool, tmp_path: Path, idempotent: bool
) -> None:
    (tmp_path / "ledger.txt").write_text("x\na")
    ledger.run(_call("a", idempotent=idempotent), CONTEXT, CancelFlag())
    assert _lines(tmp_path) == "x\na\na\n"


def test_a_cancelled_call_writes_nothing(ledger: LedgerTool, tmp_path: Path) -> None:
    outcome = ledger.run(_call(seconds=600), CONTEXT, _cancelled())
    assert outcome.status is ToolStatus.INTERRUPTED
    assert not (tmp_path / "ledger.txt").exists()


def test_a_call_that_waits_for_the_lock_can_be_cancelled(
    ledger: LedgerTool, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.txt"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        cancel, outcomes = CancelFlag(), list[ToolOutcome]()
        thread = threading.Thread(
            target=lambda: outcomes.append(ledger.run(_call(), CONTEXT, cancel))
        )
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        cancel.set()
        thread.join(scaled(10))
    assert [outcome.status for outcome in outcomes] == [ToolStatus.INTERRUPTED]
    assert _lines(tmp_path) == ""


@pytest.mark.parametrize("seconds", ["1", -1, float("nan"), float("inf"), None])
def test_odd_seconds_are_refused(ledger: LedgerTool, tmp_path: Path, seconds: object) -> None:
    assert ledger.run(_call(seconds=seconds), CONTEXT, CancelFlag()).status is ToolStatus.ERROR
    assert not (tmp_path / "ledger.txt").exists()


def test_a_ledger_that_cannot_be_written_is_an_error_for_the_model(tmp_path: Path) -> None:
    ledger = LedgerTool(str(tmp_path / "absent" / "ledger.txt"))
    outcome = ledger.run(_call(), CONTEXT, CancelFlag())
    assert outcome.status is ToolStatus.ERROR
    assert "No such file" in outcome.text
