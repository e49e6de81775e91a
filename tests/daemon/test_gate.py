"""The ingress gate: what becomes of an input that comes now."""

from __future__ import annotations

import pytest

from netclawd.core.settings import NewWork
from netclawd.daemon.gate import Gate
from netclawd.errors import DrainingError

NOW = 1000.0


def test_it_is_closed_until_a_start_opens_it() -> None:
    assert Gate(NewWork.DEFER).judge(NOW) is True
    with pytest.raises(DrainingError):
        Gate(NewWork.REJECT).judge(NOW)


@pytest.mark.parametrize("new_work", NewWork)
def test_an_open_gate_lets_everything_run(new_work: NewWork) -> None:
    gate = Gate(new_work)
    gate.close(NOW + 30, stopping=True)
    gate.open()
    assert gate.judge(NOW) is False
    assert gate.state.deadline is None
    assert not gate.state.stopping, "nothing of the drain is left"


@pytest.mark.parametrize("stopping", [False, True])
def test_a_closed_gate_defers(stopping: bool) -> None:
    gate = Gate(NewWork.DEFER)
    gate.open()
    gate.close(NOW + 30, stopping=stopping)
    assert gate.judge(NOW) is True
    assert gate.judge(NOW + 1000) is True, "however long it takes"


@pytest.mark.parametrize(
    ("stopping", "what"),
    [(False, "The daemon is restarting."), (True, "The daemon is stopping.")],
)
def test_a_closed_gate_that_rejects_says_why_and_when(stopping: bool, what: str) -> None:
    gate = Gate(NewWork.REJECT)
    gate.open()
    gate.close(NOW + 30, stopping=stopping)
    with pytest.raises(DrainingError) as caught:
        gate.judge(NOW + 10)
    error = caught.value
    assert error.what == what
    assert error.status == 503
    assert 20 <= error.retry_after_s <= 22, "what is left of the drain, and a moment to start"
    assert error.remedy


def test_a_retry_is_never_told_to_come_at_once() -> None:
    gate = Gate(NewWork.REJECT)
    assert gate.retry_after_s(NOW) >= 1
    gate.close(NOW, stopping=False)
    assert gate.retry_after_s(NOW + 100) == 1, "the drain is late"


def test_a_stop_that_overtakes_a_restart_shortens_the_wait() -> None:
    gate = Gate(NewWork.REJECT)
    gate.close(NOW + 30, stopping=False)
    gate.close(NOW + 2, stopping=True)
    with pytest.raises(DrainingError, match="is stopping") as caught:
        gate.judge(NOW)
    assert caught.value.retry_after_s == 3


def test_once_the_turns_are_drained_a_retry_waits_for_requests_only() -> None:
    """30 s were allowed for the drain, but nothing that takes so long is left."""
    gate = Gate(NewWork.DEFER)
    gate.open()
    gate.close(NOW + 30, stopping=False)
    gate.end_drain(NOW + 5)
    assert gate.retry_after_s(NOW + 1) == 5
    assert gate.retry_after_s(NOW + 5) == 1, "at the deadline only the start is left"
    gate.close(NOW + 30, stopping=True)
    assert gate.retry_after_s(NOW + 5) == 1, "a stop that overtakes gives no more time"
