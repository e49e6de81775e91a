"""The budgets are nested: what is inside ends before what is around it."""

from __future__ import annotations

from itertools import pairwise

from netclawd.core import budgets
from tests.core.examples import SCHEMA, SNAPSHOT


def test_each_budget_ends_before_the_one_around_it() -> None:
    nested = (
        budgets.DRAIN_S,
        budgets.EXIT_S,
        budgets.STOP_KILL_S,
        budgets.UNIT_STOP_S,
        budgets.CONTAINER_STOP_S,
    )
    assert all(inner < outer for inner, outer in pairwise(nested))


def test_what_runs_in_a_drain_ends_before_it() -> None:
    for budget in (
        budgets.REQUEST_S,
        budgets.MODEL_CALL_S,
        budgets.MODEL_CALL_AT_STOP_S,
        budgets.TOOL_S,
    ):
        assert budgets.REQUEST_MINIMUM_S < budget < budgets.DRAIN_S
    assert budgets.MODEL_CALL_AT_STOP_S < budgets.MODEL_CALL_S


def test_a_drain_that_runs_out_leaves_time_to_settle_before_the_exit() -> None:
    quiesced = budgets.DRAIN_S + budgets.REQUEST_MINIMUM_S + budgets.LINGER_S
    assert quiesced < budgets.EXIT_S


def test_a_retired_listener_is_refused_within_three_seconds() -> None:
    assert budgets.RETIRE_S < 3


def test_the_defaults_of_the_settings_are_the_budgets() -> None:
    drain = SNAPSHOT.settings.drain
    assert (drain.timeout_s, drain.request_timeout_s, drain.tool_timeout_s) == (
        budgets.DRAIN_S,
        budgets.REQUEST_S,
        budgets.TOOL_S,
    )
    assert SNAPSHOT.settings.daemon.boot_timeout_s == budgets.BOOT_S
    assert drain.model_timeout_s == budgets.MODEL_CALL_S
    assert drain.model_timeout_at_stop_s == budgets.MODEL_CALL_AT_STOP_S


def test_no_setting_may_ask_for_a_longer_drain_than_the_supervisor_waits_for() -> None:
    timeout = SCHEMA["properties"]["drain"]["properties"]["timeout_s"]
    assert timeout["maximum"] <= budgets.DRAIN_S


def test_the_supervisor_waits_longer_for_a_reload_than_the_reload_for_its_outcome() -> None:
    assert budgets.OUTCOME_S < budgets.UNIT_START_S


def test_a_part_is_called_stuck_well_before_the_watchdog_fires() -> None:
    assert budgets.STUCK_S < budgets.WATCHDOG_S
