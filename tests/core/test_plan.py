"""The plan of a reload: the same judgement as the restart's, in values, with every turn's fate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netclawd.core import budgets
from netclawd.core.listeners import parse_address, plan_listeners
from netclawd.core.plan import (
    Activity,
    Fate,
    Gap,
    Now,
    TurnNow,
    ValueChange,
    Verdict,
    changed_values,
    expected_gap,
    plan_bounds,
    plan_refusal,
    plan_reload,
    plan_start,
    plan_turns,
)
from netclawd.core.schema import with_defaults
from netclawd.core.session import SessionId, TurnId, TurnState
from netclawd.core.settings import Snapshot
from netclawd.core.values import replace
from tests.core.examples import DRAIN, NEW, OLD, REFUSAL, SCHEMA


def reading(name: str, **tables: Any) -> Snapshot:
    effective = with_defaults(SCHEMA, tables)
    return Snapshot("/etc/netclaw/netclaw.toml", b"", effective, f"full {name}", f"shown {name}")


RUNNING = reading("old", daemon={"listen": [str(OLD)]}, drain={"timeout_s": 12})
CANDIDATE = reading("new", daemon={"listen": [str(NEW)]}, drain={"timeout_s": 3})


def turn(state: TurnState, activity: Activity = Activity.CHECKPOINT, number: int = 1) -> TurnNow:
    return TurnNow(TurnId(f"t{number}"), SessionId(f"s{number}"), state, activity, str(activity))


def now(**fields: Any) -> Now:
    return replace(Now(7, RUNNING, False, (OLD,), (), ()), **fields)


def test_a_change_names_both_values_of_each_key() -> None:
    plan = plan_reload(now(), CANDIDATE, {})
    assert (plan.verdict, plan.generation) == (Verdict.RESTART, 7)
    assert plan.changes == (
        ValueChange("daemon.listen", [str(OLD)], [str(NEW)]),
        ValueChange("drain.timeout_s", 12, 3),
    )
    assert (plan.digest, plan.new_digest) == ("shown old", "shown new")


def test_a_key_that_only_one_side_has_is_not_set_on_the_other() -> None:
    old, new = {"a": {"gone": 1}}, {"a": {"fresh": False}}
    assert changed_values(old, new) == (
        ValueChange("a.fresh", None, False),
        ValueChange("a.gone", 1, None),
    )


def test_a_table_that_comes_or_goes_is_one_change() -> None:
    mine = {"kind": "openai", "retries": 4}
    assert changed_values({"p": {"demo": {"kind": "demo"}}}, {"p": {"mine": mine}}) == (
        ValueChange("p.demo", {"kind": "demo"}, None),
        ValueChange("p.mine", None, mine),
    )


def test_the_listeners_are_those_that_the_restart_would_plan() -> None:
    plan = plan_reload(now(held=(OLD, NEW)), CANDIDATE, {})
    assert plan.listeners == plan_listeners((OLD, NEW), (NEW,))
    assert plan.as_dict()["listeners"] == {"bind": [], "keep": [str(NEW)], "retire": [str(OLD)]}


def test_nothing_new_touches_no_turn_and_takes_no_time() -> None:
    plan = plan_reload(now(turns=(turn(TurnState.RUNNING),), gaps_ms=(30.0,)), RUNNING, {})
    assert plan.verdict is Verdict.UNCHANGED
    assert (plan.turns, plan.gap, plan.bounds, plan.changes) == ((), None, None, ())


def test_new_code_alone_is_a_restart() -> None:
    plan = plan_reload(now(code_changed=True), RUNNING, {})
    assert (plan.verdict, plan.changes, plan.code_changed) == (Verdict.RESTART, (), True)


def test_a_rotated_secret_is_a_restart_without_a_changed_key() -> None:
    plan = plan_reload(now(), replace(RUNNING, digest="another"), {})
    assert (plan.verdict, plan.changes, plan.secrets_changed) == (Verdict.RESTART, (), True)


def test_what_was_refused_before_is_said() -> None:
    assert plan_reload(now(refused_digest=CANDIDATE.digest), CANDIDATE, {}).refused_before
    assert not plan_reload(now(refused_digest="another"), CANDIDATE, {}).refused_before


@pytest.mark.parametrize(
    ("state", "activity", "fate", "at_most_s"),
    [
        (TurnState.RUNNING, Activity.MODEL, Fate.REPEATED, 15.0),
        (TurnState.RUNNING, Activity.TOOL, Fate.ENDED, 20.0),
        (TurnState.RUNNING, Activity.CHECKPOINT, Fate.CHECKPOINT, 30.0),
        (TurnState.INTERRUPTED, Activity.CHECKPOINT, Fate.CHECKPOINT, 30.0),
        (TurnState.PARKED, Activity.CHECKPOINT, Fate.PARKED, None),
        (TurnState.QUEUED, Activity.CHECKPOINT, Fate.DEFERRED, None),
    ],
)
def test_each_turn_has_its_fate_and_its_deadline(
    state: TurnState, activity: Activity, fate: Fate, at_most_s: float | None
) -> None:
    (planned,) = plan_turns([turn(state, activity)], DRAIN)
    assert (planned.fate, planned.at_most_s) == (fate, at_most_s)


def test_no_turn_gets_longer_than_the_whole_drain() -> None:
    short = replace(DRAIN, timeout_s=4.0)
    turns = [turn(TurnState.RUNNING, activity) for activity in Activity]
    assert {planned.at_most_s for planned in plan_turns(turns, short)} == {4.0}


def test_turns_at_work_come_first() -> None:
    turns = [
        turn(TurnState.QUEUED, number=1),
        turn(TurnState.PARKED, number=2),
        turn(TurnState.RUNNING, Activity.MODEL, 3),
    ]
    assert [planned.turn_id for planned in plan_turns(turns, DRAIN)] == ["t3", "t2", "t1"]


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ((), None),
        ((31.0,), Gap(31.0, 31.0, 1)),
        ((90.0, 30.0, 40.0), Gap(40.0, 90.0, 3)),
        ((30.0, 33.0, 31.0, 60.0), Gap(32.0, 60.0, 4)),
    ],
)
def test_the_gap_is_median_and_worst_of_what_was(
    gaps: tuple[float, ...], expected: Gap | None
) -> None:
    assert expected_gap(gaps) == expected


def test_the_deadlines_are_those_of_the_running_configuration() -> None:
    bounds = plan_reload(now(), CANDIDATE, {}).bounds
    assert bounds == plan_bounds(RUNNING)
    assert bounds.drain_s == 12.0
    assert bounds.sum_s == pytest.approx(
        budgets.REHEARSAL_S + 12.0 + budgets.REQUEST_MINIMUM_S + budgets.BOOT_S
    )
    assert bounds.warm_up_s == budgets.WARM_UP_S


def test_what_slack_is_still_sent_comes_behind_the_drain() -> None:
    tokens = {"app_token": "env:A", "bot_token": "env:B"}
    with_slack = plan_bounds(reading("slack", drain={"timeout_s": 12}, slack=tokens))
    without = plan_bounds(reading("none", drain={"timeout_s": 12}))
    assert with_slack.sum_s - without.sum_s == pytest.approx(budgets.CHANNEL_SEND_S)


def test_a_refusal_plans_nothing() -> None:
    plan = plan_refusal(now(turns=(turn(TurnState.RUNNING),)), REFUSAL, aborts=True)
    assert (plan.verdict, plan.refusal, plan.aborts) == (Verdict.REFUSED, REFUSAL, True)
    assert (plan.turns, plan.changes, plan.bounds) == ((), (), None)


def test_a_start_binds_everything() -> None:
    plan = plan_start(RUNNING, CANDIDATE, {"drain.timeout_s": "NETCLAW_DRAIN__TIMEOUT_S"})
    assert plan.verdict is Verdict.START
    assert plan.listeners.bind == (parse_address(str(NEW)),)
    assert [change.key for change in plan.changes] == ["daemon.listen", "drain.timeout_s"]


def test_a_plan_is_json() -> None:
    turns = tuple(turn(TurnState.RUNNING, activity) for activity in Activity)
    values = plan_reload(now(turns=turns, gaps_ms=(30.0,)), CANDIDATE, {}).as_dict()
    again = json.loads(json.dumps(values))
    assert again["turns"][0]["fate"] == "checkpoint"
    assert again["gap"] == {"median_ms": 30.0, "worst_ms": 30.0, "restarts": 1}
