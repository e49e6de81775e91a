"""The arithmetic of the drain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netclawd.core import budgets
from netclawd.core.drain import (
    Deadlines,
    hasten,
    plan_deadlines,
    quiesce_deadline,
    retry_after_s,
)
from netclawd.core.settings import DrainSettings
from netclawd.core.values import replace
from tests.core.examples import DRAIN

NOW = 1000.0

instants = st.floats(0, 1e9)
timeouts = st.floats(0, 3600)
drain_settings = st.builds(
    DrainSettings,
    new_work=st.just(DRAIN.new_work),
    timeout_s=timeouts,
    request_timeout_s=timeouts,
    model_timeout_s=timeouts,
    model_timeout_at_stop_s=timeouts,
    tool_timeout_s=timeouts,
)


def inner(deadlines: Deadlines) -> tuple[float, float, float]:
    return deadlines.request, deadlines.model, deadlines.tool


def test_a_restart_gives_each_sort_of_work_its_own_time() -> None:
    assert plan_deadlines(DRAIN, NOW, stopping=False) == Deadlines(1005, 1015, 1020, 1030)


def test_a_stop_gives_a_model_call_less_time() -> None:
    assert plan_deadlines(DRAIN, NOW, stopping=True) == Deadlines(1005, 1002, 1020, 1030)


def test_a_short_drain_bounds_all_that_runs_in_it() -> None:
    short = replace(DRAIN, timeout_s=1.0)
    assert plan_deadlines(short, NOW, stopping=False) == Deadlines(1001, 1001, 1001, 1001)


@given(drain_settings, instants, st.booleans())
def test_no_deadline_lies_beyond_the_end_or_before_the_beginning(
    settings: DrainSettings, now: float, stopping: bool
) -> None:
    deadlines = plan_deadlines(settings, now, stopping=stopping)
    assert all(now <= deadline <= deadlines.end for deadline in inner(deadlines))


@given(drain_settings, instants, st.floats(0, 7200))
def test_hastening_moves_no_deadline_back(
    settings: DrainSettings, now: float, later: float
) -> None:
    before = plan_deadlines(settings, now, stopping=False)
    after = hasten(before, settings, now + later)
    assert after.end <= before.end
    assert all(a <= b for a, b in zip(inner(after), inner(before), strict=True))
    assert all(deadline <= after.end for deadline in inner(after))


def test_hastening_lets_a_model_call_have_what_a_stop_gives_it() -> None:
    before = plan_deadlines(DRAIN, NOW, stopping=False)
    assert hasten(before, DRAIN, NOW + 4).model == NOW + 4 + DRAIN.model_timeout_at_stop_s
    assert hasten(before, DRAIN, NOW + 14).model == before.model, "one second was left"


def test_a_request_has_its_time_from_the_announcement_and_a_moment_at_least() -> None:
    deadlines = plan_deadlines(DRAIN, NOW, stopping=False)
    assert quiesce_deadline(deadlines, NOW + 1) == NOW + 5
    late = NOW + 12
    assert quiesce_deadline(deadlines, late) == late + budgets.REQUEST_MINIMUM_S


def test_the_moment_after_a_drain_that_ran_out_is_inside_the_time_to_exit() -> None:
    deadlines = plan_deadlines(DRAIN, NOW, stopping=True)
    assert quiesce_deadline(deadlines, deadlines.end) < NOW + budgets.EXIT_S


def test_retry_after_covers_what_is_left_and_the_start_of_the_new_image() -> None:
    assert retry_after_s(NOW + 3.2, NOW) == 5
    assert retry_after_s(NOW + 3, NOW) == 4


def test_retry_after_is_never_less_than_a_second() -> None:
    assert retry_after_s(None, NOW) == 1
    assert retry_after_s(NOW - 100, NOW) == 1
